"""A log gets lines, few of them; a terminal a bar."""

from __future__ import annotations

import io

import pytest

from mmrec.io import progress as module
from mmrec.io.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def work(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, every: float) -> str:
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(module, "LINES_EVERY", every)
    with Progress(total=300, desc="read", unit="rows") as bar:
        for _ in range(300):
            bar.update()
            bar.set_postfix_str("loss 0.5")
            Progress.write("said", file=stream)
    return stream.getvalue()


def test_a_log_gets_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = work(io.StringIO(), monkeypatch, every=60.0)
    assert quiet == "said\n" * 300
    text = work(io.StringIO(), monkeypatch, every=0.0)
    assert "\r" not in text
    lines = [line for line in text.splitlines() if line != "said"]
    assert lines
    assert all(line.startswith("read: ") and "of 300 rows" in line for line in lines)


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\r" in work(Terminal(), monkeypatch, every=60.0)


def test_nothing_where_nothing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    for shown in (False, None):
        with Progress(total=3, shown=shown) as bar:
            bar.update(3)
    assert stream.getvalue() == ""

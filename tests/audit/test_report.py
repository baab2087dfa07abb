"""The report reads as text, Markdown, JSON and a picture; the command line keeps its word."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmrec.audit import SEVERITIES, audit, explain
from mmrec.audit.__main__ import EXIT_SERIOUS, main
from mmrec.audit.checks.statistics import Measured
from mmrec.audit.report.tables import plain, tables
from mmrec.cli import EXIT_BAD_INPUT, run


@pytest.fixture(scope="module")
def root(made: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = made(users=150)
    data.vectors[7, 0] = np.nan
    return data.write(tmp_path_factory.mktemp("report") / "data")


def test_written_files_hold_the_findings(root: Path, tmp_path: Path) -> None:
    report = audit(root, out=tmp_path / "out")
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["audit.json", "audit.md", "audit.png"]
    content = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert [f["name"] for f in content["findings"]] == [f.name for f in report.findings]
    assert set(content["facts"]) == set(vars(report.facts))
    assert content["facts"]["shape"]["counts"]["train"]["rows"] > 100
    (broken,) = (f for f in content["findings"] if f["name"] == "broken_vectors")
    assert broken["evidence"]["broken"] == 1
    text = (tmp_path / "out" / "audit.md").read_text()
    for finding in report.findings:
        sentence, advice = explain(finding)
        assert sentence in text
        assert advice in text
    picture = tmp_path / "out" / "audit.png"
    assert picture.stat().st_size < 200_000
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert min(image.size) > 500


def test_severe_findings_come_first(root: Path) -> None:
    report = audit(root)
    places = [SEVERITIES.index(finding.severity) for finding in report.findings]
    assert places == sorted(places)
    assert [f.name for f in report.serious] == ["broken_vectors"]
    assert report.terminal().splitlines()[2].startswith("SERIOUS broken_vectors")
    assert ": NaN" not in report.to_json()


@dataclass(frozen=True)
class Part:
    so_many: int
    listed: list[int]


@dataclass(frozen=True)
class Figures:
    n: int
    group: dict[str, float | Measured]
    parts: dict[str, Part]
    records: list[Part]


def test_json_has_no_nan_and_tables_no_long_lists() -> None:
    parts = [Part(1234, [*range(99)]), Part(2, [])]
    group = {"x": float("nan"), "auc": Measured(0.6, 0.1, 0.1, 9)}
    figures = Figures(3, group, {"a": parts[0], "b": parts[1]}, parts[1:])
    assert plain(figures)["group"] == {
        "x": None,
        "auc": {"value": 0.6, "low": 0.404, "high": 0.796, "rows": 9},
    }
    assert plain(figures)["parts"]["a"]["listed"] == [*range(99)]
    text = "\n".join(tables(figures))
    assert "| n | 3 |" in text
    assert "| auc | 0.6000 [0.4040, 0.7960] |" in text
    assert "| parts | so many |\n| --- | --- |\n| a | 1,234 |\n| b | 2 |" in text
    assert "| so many | listed |\n| --- | --- |\n| 2 | – |" in text
    assert "98" not in text


def test_the_command_prints_writes_and_is_strict_if_asked(root: Path, tmp_path: Path) -> None:
    words = ["--data", str(root), "--out", str(tmp_path / "out"), "--facts", "--strict"]
    ran = subprocess.run(
        [sys.executable, "-m", "mmrec.audit", *words], capture_output=True, text=True, check=False
    )
    assert ran.returncode == EXIT_SERIOUS, ran.stderr
    assert "SERIOUS broken_vectors" in ran.stdout
    assert "| train |" in ran.stdout
    assert ran.stderr == ""  # a log gets no bar
    assert (tmp_path / "out" / "audit.md").exists()


def test_the_command_leaves_with_0_or_one_sentence(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["audit", "--data", str(root)])
    run(main)  # serious findings, yet no exit code unless --strict asks for it
    capsys.readouterr()
    for words, sentence in (
        (["--data", str(tmp_path / "nowhere")], "nowhere"),
        (["--data", str(root), "--out", f"{__file__}/out"], "a folder is needed to write to"),
    ):
        monkeypatch.setattr(sys, "argv", ["audit", *words])
        with pytest.raises(SystemExit) as left:
            run(main)
        assert left.value.code == EXIT_BAD_INPUT
        told = capsys.readouterr().err.strip()
        assert sentence in told
        assert told.count("\n") == 0


def test_time_names_a_column(made: Callable[..., Any], tmp_path: Path) -> None:
    data = made(users=120)
    for clicks in data.clicks.values():
        time = clicks.pop("timestamp")
        clicks["when"] = time.astype("datetime64[s]")
        clicks["day"] = time.astype("datetime64[D]")
        clicks["mobile"] = time % 2 == 0
        clicks["city"] = np.where(time % 3 == 0, "Ulm", None)
    root = data.write(tmp_path / "data")
    report = audit(root, time="when")
    assert report.facts.future.by_time["train"].time == "when"
    assert {"when", "day", "mobile"} <= {
        score.column for score in report.facts.tasks["label"].leaks.scores
    }
    assert {f.evidence.missing["city"] > 0 for f in report.named("missing_values")} == {True}
    with pytest.raises(ValueError, match="time must be a column of train, got hour"):
        audit(root, time="hour")

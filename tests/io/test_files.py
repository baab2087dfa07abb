"""Removing what a run has written."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmrec.errors import InputError
from mmrec.io.files import remove


def test_these_names_go_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "ranker" / "checkpoints").mkdir(parents=True)
    (tmp_path / "metrics.json").touch()
    (tmp_path / "mine.txt").touch()
    remove(tmp_path, ["ranker", "metrics.json", "never.json"], keep=[tmp_path / "mine.txt", None])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("kept", ["packed", "packed/inner", "link"])
def test_what_is_read_stays_with_all_else(kept: str, tmp_path: Path) -> None:
    (tmp_path / "packed" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "packed" / "inner")
    (tmp_path / "ranker").mkdir()
    with pytest.raises(InputError, match=r"is read, so .*packed, which holds it, cannot be made"):
        remove(tmp_path, ["ranker", "packed"], keep=[tmp_path / kept])
    assert (tmp_path / "ranker").exists()
    assert (tmp_path / "packed" / "inner").exists()

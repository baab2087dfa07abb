"""Where something is to be written, asked before any work; and what is removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmrec import InputError
from mmrec.io.files import remove, require_file, require_folder


def test_a_folder_is_one_or_can_be_made(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for good in (tmp_path, tmp_path / "a" / "b", "relative"):
        assert require_folder(good) == Path(good)
    for bad in (file, file / "below", file / "far" / "below"):
        with pytest.raises(InputError, match=f"a folder is needed to write to, {file} is a file"):
            require_folder(bad)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_file_is_no_folder_and_lies_in_one(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for good in (file, tmp_path / "new" / "a.jsonl", "a.jsonl"):
        assert require_file(good) == Path(good)
    for bad in (tmp_path, f"{tmp_path}/new/"):
        with pytest.raises(InputError, match=f"a file is needed to write to, {bad} is a folder"):
            require_file(bad)
    with pytest.raises(InputError, match=f"a folder is needed to write to, {file} is a file"):
        require_file(file / "a.jsonl")


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

"""Whatever image folders hold ends as a status; lost storage ends the run."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from odd_pictures import ODDITIES, encoded, photo

from mmrec.embed import Preprocessing
from mmrec.embed.preprocess import ReadOptions, read_picture
from mmrec.io.pictures import STATUSES, StorageError

OPTIONS = ReadOptions(Preprocessing(size=(16, 16)))


@pytest.mark.parametrize("number", range(1, len(ODDITIES) + 1))
def test_each_oddity_has_its_status(number: int, odd_folder: Path) -> None:
    odd = ODDITIES[number - 1]
    picture = read_picture(str(odd_folder / f"{number}.jpg"), OPTIONS)
    assert (picture.status, picture.pixels is not None) == (odd.status, odd.status == "ok")
    assert odd.note in picture.note
    assert picture.status in STATUSES


def test_no_permission(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "1.jpg"
    path.write_bytes(encoded(photo(20, 20)))
    path.chmod(0)
    if os.access(path, os.R_OK):  # root may read everything: let the system call say no

        def refuse(*_: object) -> int:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

        monkeypatch.setattr(os, "open", refuse)
    assert read_picture(str(path), OPTIONS).status == "no permission"


def test_bytes_and_nothing_are_sources_too() -> None:
    assert read_picture(encoded(photo(20, 20)), OPTIONS).status == "ok"
    assert read_picture(b"", OPTIONS).status == "empty"
    assert read_picture(None, OPTIONS).status == "missing"


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "1.jpg"
    with open(path, "wb") as handle:
        handle.truncate(10**10)  # sparse: takes no space
    picture = read_picture(str(path), OPTIONS)
    assert (picture.status, picture.note) == ("too large", "10,000,000,000 bytes")


@pytest.mark.parametrize("failures", [1, 3, 4])
def test_failing_storage_is_tried_again_and_then_ends_the_run(
    failures: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "1.jpg"
    path.write_bytes(encoded(photo(20, 20)))
    opened, real = [], os.open

    def stale(*arguments: object) -> int:
        opened.append(arguments)
        if len(opened) <= failures:
            raise OSError(errno.ESTALE, "Stale file handle", str(path))
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", stale)
    monkeypatch.setattr("mmrec.io.pictures.time.sleep", lambda _: None)
    if failures < 4:
        assert read_picture(str(path), OPTIONS).status == "ok"
    else:
        with pytest.raises(StorageError, match="Stale file handle"):
            read_picture(str(path), OPTIONS)


def test_torchvision_and_pillow_decode_the_same_pixels() -> None:
    import torch

    data = encoded(photo(90, 60), quality=85)
    options = ReadOptions(OPTIONS.preprocessing, resize_here=False)
    pillow = ReadOptions(OPTIONS.preprocessing, torchvision=False)
    fast = read_picture(data, options).pixels
    assert fast is not None
    assert fast.shape == (3, 60, 90)
    slow = read_picture(data, pillow).pixels
    here = read_picture(data, OPTIONS).pixels
    assert slow is not None
    assert here is not None
    assert (slow.to(torch.int16) - here).abs().max() <= 1

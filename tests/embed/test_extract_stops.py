"""What ends an extraction early: strict runs, a full disk, Ctrl-C, a folder that goes away."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from toy_encoder import ToyEncoder, read_output, shard_bytes

from mmrec import InputError
from mmrec.cli import run
from mmrec.embed import embed_items

Shop = Callable[..., tuple[Path, Path]]


def test_strict_stops_at_the_first_bad_picture(toy: ToyEncoder, shop: Shop, tmp_path: Path) -> None:
    items, images = shop(30)
    arguments = {
        "items": items, "images": images, "out": tmp_path / "out", "shard_size": 10, "workers": 2,
    }  # fmt: skip
    with pytest.raises(InputError, match=r"strict.*item 13: missing"):
        embed_items(toy.towers, strict=True, **arguments)
    assert list(shard_bytes(tmp_path / "out")) == ["part-00000-of-00003.parquet"]
    assert embed_items(toy.towers, **arguments).shards_before == 1
    with pytest.raises(InputError, match=r"strict.*item 13: missing, and 1 more"):
        embed_items(toy.towers, strict=True, **arguments)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk_is_one_sentence_and_finished_shards_stay(
    workers: int, toy: ToyEncoder, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items, images = shop(60)
    arguments = {
        "items": items, "images": images, "out": tmp_path / "out", "shard_size": 12,
        "workers": workers,
    }  # fmt: skip
    real, written = pq.write_table, []

    def full(table: pa.Table, path: Path, **options: object) -> None:
        written.append(path)
        if len(written) == 3:
            Path(path).write_bytes(b"half a shard")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(table, path, **options)

    monkeypatch.setattr("mmrec.embed.output.pq.write_table", full)
    out = tmp_path / "out"
    with pytest.raises(OSError, match="No space left") as caught:
        embed_items(toy.towers, **arguments)
    assert caught.value.filename == str(out / "part-00002-of-00005.parquet")
    assert sorted(p.name for p in out.iterdir() if p.name != ".lock") == [
        "_identity.json", "part-00000-of-00005.parquet", "part-00001-of-00005.parquet",
    ]  # fmt: skip
    assert embed_items(toy.towers, **arguments).shards_before == 2
    assert read_output(out)["item_id"] == list(range(1, 61))


@pytest.mark.parametrize(
    "name", ["_identity.json", "part-00000-of-00001.parquet", "_report.json", "_contact.png"]
)
def test_a_full_disk_is_named_with_the_file(
    name: str,
    toy: ToyEncoder,
    shop: Shop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One sentence with the file's name, not the temporary one's, also where Python names none."""
    items, images = shop(5)
    out = tmp_path / "out"

    def full(descriptor: int) -> None:
        asked = os.fstat(descriptor)
        if any(os.path.samestat(asked, p.stat()) for p in out.glob(f".{name}.*.tmp")):
            raise OSError(errno.ENOSPC, "No space left on device")

    def embed() -> None:
        embed_items(toy.towers, items=items, images=images, out=out, workers=0)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SystemExit) as caught:
        run(embed)
    assert caught.value.code == 2
    sentence = capsys.readouterr().err
    assert sentence.count("\n") == 1
    assert "No space left on device" in sentence
    assert sentence.endswith(f": {out / name}\n")
    assert not list(out.glob(".*.tmp"))


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_keeps_finished_shards(workers: int, shop: Shop, tmp_path: Path) -> None:
    items, images = shop(60)
    arguments = {
        "items": items, "images": images, "out": tmp_path / "out", "shard_size": 12,
        "workers": workers,
    }  # fmt: skip

    class Interrupted(ToyEncoder):
        def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
            if self.pictures > 30:
                raise KeyboardInterrupt
            return super().encode_image(pixels)

    with pytest.raises(KeyboardInterrupt):
        embed_items(Interrupted().towers, **arguments)
    report = embed_items(ToyEncoder().towers, **arguments)
    assert report.shards_before == 3
    assert read_output(tmp_path / "out")["item_id"] == list(range(1, 61))


def test_a_folder_that_goes_away_ends_the_run(shop: Shop, tmp_path: Path) -> None:
    """A lost mount must not be recorded as missing pictures."""
    items, images = shop(60)

    class Unmounts(ToyEncoder):
        def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
            if images.exists():
                shutil.rmtree(images)
            return super().encode_image(pixels)

    arguments = {"items": items, "images": images, "out": tmp_path / "out", "shard_size": 12}
    with pytest.raises(InputError, match=r"no longer there.*finished shards are kept"):
        embed_items(Unmounts().towers, workers=0, **arguments)
    assert len(shard_bytes(tmp_path / "out")) == 1


def test_vectors_that_are_not_finite_are_refused(shop: Shop, tmp_path: Path) -> None:
    items, images = shop(10)

    class Overflows(ToyEncoder):
        def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
            return super().encode_image(pixels) * 1e6

    with pytest.raises(InputError, match=r"finite.*image_emb of item 1\b"):
        embed_items(Overflows().towers, items=items, images=images, out=tmp_path / "out", workers=0)

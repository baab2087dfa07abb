"""Extraction from end to end, with a toy encoder and with a small CLIP."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from odd_pictures import ODDITIES, encoded, photo
from PIL import Image
from toy_encoder import ToyEncoder, read_output, shard_bytes, write_items

from mmrec import InputError
from mmrec.embed import Captions, OpenClipEncoder, TinyClip, embed_items
from mmrec.embed.clip import _register
from mmrec.embed.shard import spread

Shop = Callable[..., tuple[Path, Path]]
TITLES = [
    None, "", "   ", "🎬🔥", "x" * 10_000, "é" * 10_000, "plain", "A\nB\tC", "#tag #tag", "\0",
    "日本語",
]  # fmt: skip


def test_the_output_is_what_readers_expect(toy: ToyEncoder, shop: Shop, tmp_path: Path) -> None:
    items, images = shop(60)
    report = embed_items(
        toy.towers, items=items, images=images, out=tmp_path / "out", shard_size=25, workers=0
    )
    assert [p.name for p in sorted((tmp_path / "out").glob("*.parquet"))] == [
        f"part-0000{i}-of-00003.parquet" for i in range(3)
    ]
    table = pq.read_table(tmp_path / "out" / "part-00000-of-00003.parquet")
    assert table.schema.field("item_id").type == pa.int64()
    assert table.schema.field("image_emb").type == pa.list_(pa.float16(), 11)
    assert table.schema.field("text_emb").type == pa.list_(pa.float16(), 7)
    output = read_output(tmp_path / "out")
    assert output["item_id"] == list(range(1, 61))
    without = [i for i in range(1, 61) if i % 13 == 0]
    for i, has, status, vector in zip(
        output["item_id"], output["has_image"], output["status"], output["image_emb"], strict=True
    ):
        assert (has, status) == ((False, "missing") if i in without else (True, "ok"))
        assert any(vector) == has
    assert all(output["has_text"])
    assert (report.items, report.present["image"], report.present["text"]) == (60, 56, 60)
    assert report.statuses == {"ok": 56, "missing": 4}
    assert report.problems == [(i, "missing", "") for i in without]
    written = json.loads((tmp_path / "out" / "_report.json").read_text())
    assert written["statuses"] == report.statuses
    assert set(written["seconds"]) >= {"decode", "transfer", "forward", "write", "total"}
    with Image.open(tmp_path / "out" / "_contact.png") as sheet:
        assert sheet.size[0] > 500


def test_vectors_agree_with_open_clips_own_preprocessing_and_encoding(
    clip: OpenClipEncoder, tiny: TinyClip, odd_folder: Path, tmp_path: Path
) -> None:
    """Every readable oddity, and every odd title, against open_clip's documented use."""
    count = len(ODDITIES)
    titles = [TITLES[i % len(TITLES)] for i in range(count)]
    items = write_items(tmp_path / "items.parquet", range(1, count + 1), titles)
    report = embed_items(
        clip.towers,
        items=items,
        images=odd_folder,
        out=tmp_path / "out",
        workers=2,
        dtype="float32",
    )
    output = read_output(tmp_path / "out")
    assert output["status"] == [odd.status for odd in ODDITIES]
    assert sum(report.statuses.values()) == count

    name, _ = _register(str(tiny.config))
    model, _, preprocess = open_clip.create_model_and_transforms(name, pretrained=str(tiny.weights))
    model.eval()
    tokenizer = open_clip.get_tokenizer(name)
    tags = pq.read_table(items).column("item_tags").to_pylist()
    with torch.inference_mode():
        for row, odd in enumerate(ODDITIES):
            if odd.status == "ok":
                with Image.open(odd_folder / f"{row + 1}.jpg") as image:
                    theirs = model.encode_image(preprocess(image)[None])[0]
                ours = torch.tensor(output["image_emb"][row])
                assert torch.cosine_similarity(ours, theirs, dim=0) > 0.999, odd.name
            caption = Captions()(titles[row], tags[row])
            assert output["has_text"][row] == bool(caption)
            if caption and len(titles[row] or "") < 1000:  # theirs would take minutes
                theirs = model.encode_text(tokenizer([caption]))[0]
                ours = torch.tensor(output["text_emb"][row])
                assert torch.cosine_similarity(ours, theirs, dim=0) > 0.999, caption


def test_identical_pictures_and_captions_are_encoded_once(toy: ToyEncoder, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for i in range(1, 41):
        (images / f"{i}.jpg").write_bytes(encoded(photo(30, 30, seed=i % 3)))
    items = tmp_path / "items.parquet"
    pq.write_table(
        pa.table({"item_id": range(1, 41), "item_title": [f"t{i % 5}" for i in range(40)]}), items
    )
    report = embed_items(toy.towers, items=items, images=images, out=tmp_path / "out", workers=0)
    assert (toy.pictures, toy.captions) == (3, 5)
    assert (report.encoded["image"], report.encoded["text"]) == (3, 5)
    vectors = [tuple(v) for v in read_output(tmp_path / "out")["image_emb"]]
    assert all(vectors[i] == vectors[i + 3] for i in range(37))
    assert len(set(vectors)) == 3


def _rank(rank: int, world: int, barrier: object, arguments: dict[str, object]) -> None:
    torch.set_num_threads(1)
    embed_items(
        ToyEncoder().towers, rank=rank, world_size=world, barrier=lambda: barrier.wait(60) and None,  # type: ignore[attr-defined]
        **arguments,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize(("world", "workers"), [(1, 1), (1, 3), (2, 0), (3, 2)])
def test_bytes_do_not_depend_on_workers_or_ranks(
    world: int, workers: int, toy: ToyEncoder, shop: Shop, tmp_path: Path
) -> None:
    items, images = shop(120)
    embed_items(
        toy.towers, items=items, images=images, out=tmp_path / "one", shard_size=17, workers=0
    )
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(world)
    arguments = {
        "items": items, "images": images, "out": tmp_path / "many", "shard_size": 17,
        "workers": workers,
    }  # fmt: skip
    ranks = [
        context.Process(target=_rank, args=(rank, world, barrier, arguments))
        for rank in range(world)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
    assert [rank.exitcode for rank in ranks] == [0] * world
    assert shard_bytes(tmp_path / "many") == shard_bytes(tmp_path / "one")


def test_a_rerun_does_what_is_missing_and_nothing_else(shop: Shop, tmp_path: Path) -> None:
    items, images = shop(60)
    out = tmp_path / "out"
    arguments = {"items": items, "images": images, "out": out, "shard_size": 12, "workers": 0}
    embed_items(ToyEncoder().towers, **arguments)
    whole = shard_bytes(out)
    stamps = {p.name: p.stat().st_mtime_ns for p in out.glob("*.parquet")}
    lost = out / "part-00002-of-00005.parquet"
    lost.unlink()
    toy = ToyEncoder()
    report = embed_items(toy.towers, **arguments)
    assert (report.items_now, report.shards_before, report.items) == (12, 4, 60)
    assert toy.pictures <= 12
    assert shard_bytes(out) == whole
    assert all(p.stat().st_mtime_ns == stamps[p.name] for p in out.glob("*.parquet") if p != lost)
    again = ToyEncoder()
    assert embed_items(again.towers, **arguments).items_now == 0
    assert again.pictures == again.captions == 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"captions": Captions(template="{title}")}, "captions"),
        ({"encoders": ToyEncoder(seed=5).towers}, "encoders"),
        ({"shard_size": 11}, "shard_size"),
        ({"dtype": "float32"}, "dtype"),
        ({"images": None}, "items"),
        ({"exif": True}, "exif"),
    ],
)
def test_a_change_is_noticed_and_refused_unless_restarted(
    change: dict[str, object], named: str, shop: Shop, tmp_path: Path
) -> None:
    items, images = shop(30)
    out = tmp_path / "out"
    base: dict[str, object] = {
        "encoders": ToyEncoder().towers, "items": items, "images": images, "out": out,
        "shard_size": 10, "workers": 0,
    }  # fmt: skip
    embed_items(**base)  # type: ignore[arg-type]
    before, identity = shard_bytes(out), (out / "_identity.json").read_text()
    changed = {**base, **change}
    with pytest.raises(InputError, match=rf"another .*{named}.*--restart"):
        embed_items(**changed)  # type: ignore[arg-type]
    assert shard_bytes(out) == before
    assert embed_items(**changed, restart=True).items_now == 30  # type: ignore[arg-type]
    assert (out / "_identity.json").read_text() != identity
    assert embed_items(**changed).items_now == 0  # type: ignore[arg-type]


def test_changed_items_are_noticed(toy: ToyEncoder, shop: Shop, tmp_path: Path) -> None:
    items, images = shop(20)
    embed_items(toy.towers, items=items, images=images, out=tmp_path / "out", workers=0)
    write_items(items, range(1, 21), ["new"] * 20)
    with pytest.raises(InputError, match="another items"):
        embed_items(toy.towers, items=items, images=images, out=tmp_path / "out", workers=0)


def test_shards_of_unknown_origin_are_refused(toy: ToyEncoder, shop: Shop, tmp_path: Path) -> None:
    items, images = shop(20)
    arguments = {"items": items, "images": images, "out": tmp_path / "out", "workers": 0}
    embed_items(toy.towers, **arguments)
    (tmp_path / "out" / "_identity.json").unlink()
    with pytest.raises(InputError, match=r"no _identity\.json"):
        embed_items(toy.towers, **arguments)
    (tmp_path / "out" / "_identity.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        embed_items(toy.towers, **arguments)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_pictures_inside_parquet(
    packed: bool, workers: int, toy: ToyEncoder, shop: Shop, tmp_path: Path
) -> None:
    items, images = shop(50)
    embed_items(
        toy.towers, items=items, images=images, out=tmp_path / "files", shard_size=15, workers=0
    )
    data = [
        (images / f"{i}.jpg").read_bytes() if (images / f"{i}.jpg").exists() else None
        for i in range(1, 51)
    ]
    column = [d and {"bytes": d, "path": "x"} for d in data] if packed else data
    table = pq.read_table(items).append_column("image", pa.array(column))
    stored = tmp_path / "stored.parquet"
    pq.write_table(table, stored, row_group_size=7)
    embed_items(
        toy.towers, items=stored, images=None, image_column="image", out=tmp_path / "stored",
        shard_size=15, workers=workers,
    )  # fmt: skip
    assert shard_bytes(tmp_path / "stored") == shard_bytes(tmp_path / "files")


def test_picture_names_in_a_column_may_be_unicode(toy: ToyEncoder, tmp_path: Path) -> None:
    images = tmp_path / "bilder"
    images.mkdir()
    names = ["фото 🎬.jpg", "a b#c.jpg", "../bilder/ü.png", None]
    for seed, name in enumerate(names[:3]):
        (images / str(name)).write_bytes(encoded(photo(20, 20, seed=seed)))
    items = tmp_path / "items.parquet"
    pq.write_table(
        pa.table({"item_id": [5, 3, 9, 4], "item_title": list("abcd"), "file": names}), items
    )
    embed_items(
        toy.towers, items=items, images=images, image_column="file", out=tmp_path / "out", workers=0
    )
    output = read_output(tmp_path / "out")
    assert output["item_id"] == [5, 3, 9, 4]
    assert output["status"] == ["ok", "ok", "ok", "missing"]


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"shard_size": 0}, "shard_size is at least 1"),
        ({"workers": -1}, "workers is at least 0"),
        ({"resize": "moon"}, "resize is one of"),
        ({"dtype": "int8"}, "dtype is one of"),
        ({"rank": 2, "world_size": 2}, r"rank is one of range\(0, 2\), got 2"),
    ],
)
def test_wrong_options_are_one_sentence(
    options: dict[str, object], rule: str, toy: ToyEncoder, shop: Shop, tmp_path: Path
) -> None:
    items, images = shop(3)
    with pytest.raises(InputError, match=rule):
        embed_items(toy.towers, items=items, images=images, out=tmp_path / "out", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_the_device_path_gives_nearly_the_same_vectors(
    clip: OpenClipEncoder, shop: Shop, tmp_path: Path
) -> None:
    items, images = shop(25, size=(90, 70))
    for resize in ("worker", "device"):
        embed_items(
            clip.towers, items=items, images=images, out=tmp_path / resize, resize=resize, workers=2
        )
    a, b = (np.array(read_output(tmp_path / r)["image_emb"]) for r in ("worker", "device"))
    present = np.abs(a).sum(axis=1) > 0
    cosines = (a * b).sum(1)[present] / np.linalg.norm(a[present], axis=1)
    assert (cosines / np.linalg.norm(b[present], axis=1)).min() > 0.9999


def test_a_shard_knows_its_rows() -> None:
    """Distinct vectors spread to items; several are averaged, none is zero."""
    vectors = np.arange(6.0).reshape(3, 2)
    found, there = spread(vectors, [(0, 2), (2, 0), (3, 2)], 4)
    assert found.tolist() == [[4, 5], [0, 0], [0, 1], [4, 5]]
    assert there.tolist() == [True, False, True, True]
    found, _ = spread(vectors, [(0, 2), (2, 0), (2, 1), (3, 2)], 4)
    assert found.tolist() == [[4, 5], [0, 0], [1, 2], [4, 5]]
    assert replace(Captions(), longest=3)("abcdef", None) == "abc"


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_card_gives_the_same_vectors(
    precision: str, clip: OpenClipEncoder, tiny: TinyClip, odd_folder: Path, tmp_path: Path
) -> None:
    items = write_items(tmp_path / "items.parquet", range(1, len(ODDITIES) + 1))
    card = OpenClipEncoder(
        model_name=tiny.config, pretrained=tiny.weights, device="cuda", precision=precision
    )
    outputs = {}
    for name, encoder in (("cpu", clip), ("card", card)):
        embed_items(encoder.towers, items=items, images=odd_folder, out=tmp_path / name, workers=2)
        outputs[name] = read_output(tmp_path / name)
    assert outputs["cpu"]["status"] == outputs["card"]["status"]
    for column in ("image_emb", "text_emb"):
        for a, b in zip(outputs["cpu"][column], outputs["card"][column], strict=True):
            if any(a):
                x, y = torch.tensor(a), torch.tensor(b)
                assert torch.cosine_similarity(x, y, dim=0) > 0.999


def test_other_programs_read_the_folder(toy: ToyEncoder, shop: Shop, tmp_path: Path) -> None:
    items, images = shop(20)
    out = tmp_path / "out"
    report = embed_items(toy.towers, items=items, images=images, out=out, workers=0, shard_size=7)
    assert report.shards > 1
    frames = pd.read_parquet(out), pl.scan_parquet(out, hidden_file_prefix="_").collect()
    assert len(frames[0]) == len(frames[1]) == pq.read_table(out).num_rows == 20


def test_a_restart_where_something_changed_keeps_what_did_not(shop: Shop, tmp_path: Path) -> None:
    items, images = shop(20)
    base = {"items": items, "images": images, "out": tmp_path / "out", "workers": 0}
    embed_items(ToyEncoder().towers, **base)
    assert embed_items(ToyEncoder().towers, **base, restart="changed").items_now == 0
    assert embed_items(ToyEncoder().towers, **base, exif=True, restart="changed").items_now == 20
    assert embed_items(ToyEncoder().towers, **base, exif=True, restart=True).items_now == 20


def test_a_table_that_has_grown_is_embedded_where_it_is_new(shop: Shop, tmp_path: Path) -> None:
    """Twice, the second time after a kill; what was there is kept to the byte."""
    items, images = shop(47)
    out, stamps = tmp_path / "out", {}
    base = {"items": items, "images": images, "out": out, "workers": 0, "shard_size": 10}
    made = 0
    for count in (25, 32, 47):
        write_items(items, range(1, count + 1))
        if count == 47:
            next(out.glob("part-00003-*")).unlink()  # of the items 26..32
        toy = ToyEncoder()
        report = embed_items(toy.towers, **base, restart="changed" if count == 32 else False)
        assert report.items == count
        assert report.items_now == count - made + 7 * (count == 47)
        assert toy.pictures <= report.items_now
        kept = {path.name[:10]: path.stat().st_mtime_ns for path in out.glob("part-*")}
        assert all(kept[name] == stamp for name, stamp in stamps.items() if "00003" not in name)
        made, stamps = count, kept
    assert [path.name for path in sorted(out.glob("part-*"))] == [
        f"part-0000{i}-of-00006.parquet" for i in range(6)
    ]
    assert embed_items(ToyEncoder().towers, **base).items_now == 0
    grown = read_output(out)
    embed_items(ToyEncoder().towers, **{**base, "out": tmp_path / "whole"})
    whole = read_output(tmp_path / "whole")
    assert grown["item_id"] == whole["item_id"] == list(range(1, 48))
    for name in ("image_emb", "text_emb"):
        np.testing.assert_allclose(grown[name], whole[name], atol=1e-2)
    write_items(items, [*range(2, 49)])  # the first one is gone: no growth
    with pytest.raises(InputError, match="another items"):
        embed_items(ToyEncoder().towers, **base)
    assert embed_items(ToyEncoder().towers, **base, restart="changed").items_now == 47

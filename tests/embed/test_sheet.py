"""The contact sheet: neighbours are the nearest, and the picture is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from toy_encoder import ToyEncoder

from mmrec import InputError
from mmrec.embed import Captions, embed_items
from mmrec.embed.items import read_items
from mmrec.embed.sheet import draw_sheet, neighbours_of, read_fused, read_mean

Shop = Callable[..., tuple[Path, Path]]


def test_neighbours_are_the_nearest_others() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[[3, 17]] = 0  # nothing known of these
    shown = np.ones(50, bool)
    shown[[3, 17]] = False
    queries, nearest, cosines = neighbours_of(vectors, shown, 7, 4)
    assert len(queries) == 7
    for query, found, values in zip(queries, nearest, cosines, strict=True):
        scores = {i: float(vectors[query] @ vectors[i]) for i in range(50)}
        others = [i for i in scores if i not in (query, 3, 17)]
        assert list(found) == sorted(others, key=lambda i: -scores[i])[:4]
        np.testing.assert_allclose(values, [scores[i] for i in found], rtol=1e-5)


def test_the_fused_space_is_the_mean_of_unit_vectors(shop: Shop, tmp_path: Path) -> None:
    items, images = shop(30)
    toy = ToyEncoder(image_dim=6, text_dim=6)
    embed_items(
        toy.towers, items=items, images=images, out=tmp_path / "out", workers=0, shard_size=8
    )
    ids, vectors, shown = read_mean(tmp_path / "out")
    assert ids.tolist() == list(range(1, 31))
    assert shown.tolist() == [i % 13 != 0 for i in range(1, 31)]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-3)
    embed_items(
        ToyEncoder().towers,
        items=items,
        images=images,
        out=tmp_path / "two",
        workers=0,
        shard_size=8,
    )
    assert read_mean(tmp_path / "two")[1].shape == (30, 11 + 7)


def test_fused_vectors_take_their_place(shop: Shop, tmp_path: Path) -> None:
    items, images = shop(20)
    out = tmp_path / "out"
    embed_items(ToyEncoder().towers, items=items, images=images, out=out, workers=0)
    fused = tmp_path / "fused.parquet"
    rows = np.random.default_rng(0).normal(size=(21, 3))
    pq.write_table(pa.table({"item_id": range(21), "item_emb_d128": list(rows)}), fused)
    ids, vectors, shown = read_fused(out, fused)
    assert ids.tolist() == list(range(21))
    assert shown.tolist() == [False] + [i % 13 != 0 for i in range(1, 21)]
    np.testing.assert_allclose(vectors[4], rows[4] / np.linalg.norm(rows[4]), rtol=1e-5)
    table = read_items(items, images=images, captions=Captions())
    draw_sheet(out, table, tmp_path / "s.png", rows=3, neighbours=2, fused=fused)
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.size == (3 * 152 + 8, 3 * 196 + 8)
        assert sheet.getpixel((8, 8)) == (255, 0, 0)  # the frame of the first query
    (tmp_path / "bad.parquet").write_text("x")
    with pytest.raises(InputError, match="a parquet file is needed"):
        read_fused(out, tmp_path / "bad.parquet")


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_items_make_a_sheet_too(count: int, shop: Shop, tmp_path: Path) -> None:
    items, images = shop(count)
    embed_items(ToyEncoder().towers, items=items, images=images, out=tmp_path / "out", workers=0)
    assert (tmp_path / "out" / "_contact.png").stat().st_size > 0
    embed_items(ToyEncoder().towers, items=items, images=None, out=tmp_path / "none", workers=0)
    assert (tmp_path / "none" / "_contact.png").stat().st_size > 0

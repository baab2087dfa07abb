"""A tiny valid data set in the MicroLens layout, written with the list types a test asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

NUM_ITEMS = 13  # with the padding
LENGTH = 5
ROWS = {"train": 23, "valid": 7, "test": 11}
WIDTHS = {"image_emb": 3, "text_emb": 2}


def list_array(rows: list[list[Any]], kind: str, value: pa.DataType) -> pa.Array:
    """`rows` as the list type named by `kind`: list, large_list or fixed_size_list."""
    made = {
        "list": lambda: pa.list_(value),
        "large_list": lambda: pa.large_list(value),
        "fixed_size_list": lambda: pa.list_(value, len(rows[0])),
    }
    if value == pa.float16():
        rows = [row if row is None else [np.float16(x) for x in row] for row in rows]
    return pa.array(rows, type=made[kind]())


def clicks(rows: int, seed: int, *, lists: str = "list", integer: pa.DataType) -> pa.Table:
    """Random clicks that keep to the layout; the first history is empty, the second full."""
    random = np.random.default_rng(seed)
    real = random.integers(0, LENGTH + 1, size=rows)
    real[0], real[1] = 0, LENGTH
    histories = [
        [0] * (LENGTH - n) + random.integers(1, NUM_ITEMS, size=n).tolist() for n in real.tolist()
    ]
    columns = {
        "user_id": pa.array(random.integers(0, 9, size=rows), integer),
        "item_seq": list_array(histories, lists, integer),
        "item_id": pa.array(random.integers(1, NUM_ITEMS, size=rows), integer),
        "likes_level": pa.array(random.integers(1, 11, size=rows), integer),
        "views_level": pa.array(random.integers(1, 11, size=rows), integer),
        "label": pa.array(np.arange(rows) % 2, integer),
    }
    return pa.table(columns)


Writer = Callable[..., Path]


@pytest.fixture
def write_microlens(tmp_path: Path) -> Writer:
    """Write the data set under `tmp_path / name` and return that directory.

    Keyword arguments: lists (list type), integer and floating (widths), nested (click folder or
    not), padding_row (item 0 in item_info), embedding, features, titles (files or columns there
    or not), images (None, "flat" or "nested"), name.
    """

    def write(
        *,
        lists: str = "list",
        integer: pa.DataType | None = None,
        floating: pa.DataType | None = None,
        nested: bool = True,
        padding_row: bool = True,
        embedding: bool = True,
        features: bool = True,
        titles: bool = True,
        images: str | None = None,
        name: str = "data",
    ) -> Path:
        integer, floating = integer or pa.int64(), floating or pa.float64()
        root = tmp_path / name
        folder = root / "MicroLens_1M_x1" if nested else root
        folder.mkdir(parents=True)
        for seed, (split, rows) in enumerate(ROWS.items()):
            table = clicks(rows, seed, lists=lists, integer=integer)
            if split == "test":
                table = table.drop_columns(["label"])
                table = table.add_column(0, "ID", pa.array(np.arange(rows), integer))
            pq.write_table(table, folder / f"{split}.parquet")

        random = np.random.default_rng(7)
        ids = np.arange(0 if padding_row else 1, NUM_ITEMS)
        random.shuffle(ids)
        tags = [[0, 0, 0] if i == 0 else [0, int(i) % 4 + 1, int(i)] for i in ids]
        info = {"item_id": pa.array(ids, integer), "item_tags": list_array(tags, lists, integer)}
        if embedding:
            vectors = [[0.0] * 4 if i == 0 else [float(i), -1.0, 0.5, 2.0] for i in ids]
            info["item_emb_d128"] = list_array(vectors, lists, floating)
        pq.write_table(pa.table(info), folder / "item_info.parquet")

        real = np.arange(1, NUM_ITEMS)
        if titles:
            ragged = "list" if lists == "fixed_size_list" else lists
            content = {
                "item_id": pa.array(real, integer),
                "item_title": pa.array([f"title {i} #tag" for i in real]),
                "item_tags": list_array([[int(i)] * (i % 3) for i in real], ragged, integer),
            }
            pq.write_table(pa.table(content), root / "item_feature.parquet")
        if features:
            some = real[:-1]  # the last item has neither image nor text
            content = {"item_id": pa.array(some, integer)}
            for column, width in WIDTHS.items():
                rows_ = [[float(i) / (j + 1) for j in range(width)] for i in some]
                content[column] = list_array(rows_, lists, floating)
            content["has_image"] = pa.array(some % 3 != 0)
            content["has_text"] = pa.array(some % 5 != 0)
            pq.write_table(pa.table(content), root / "features.parquet")
        if images is not None:
            place = root / "item_images" / ("item_images" if images == "nested" else "")
            place.mkdir(parents=True)
            (place / "3.jpg").write_bytes(b"not looked into")
        return root

    return write

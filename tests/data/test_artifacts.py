"""The two files that leave the project, read as FuxiCTR reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mmrec.data.artifacts import write_item_embeddings, write_item_info
from mmrec.data.microlens import MICROLENS
from mmrec.errors import InputError

SCHEMA = MICROLENS.items
VECTORS = torch.randn(5, 128)


def info(path: Path, ids: list[int], **columns: list[object]) -> Path:
    tags = [[0, 0, i] for i in ids]
    pq.write_table(pa.table({"item_id": ids, "item_tags": tags, **columns}), path)
    return path


def test_embeddings_hold_every_item_but_the_padding(tmp_path: Path) -> None:
    frame = pd.read_parquet(write_item_embeddings(tmp_path / "custom.parquet", VECTORS, SCHEMA))
    assert frame["item_id"].tolist() == [1, 2, 3, 4]
    vector = frame.iloc[2]["item_emb_d128"]
    assert isinstance(vector, np.ndarray)
    assert vector.shape == (128,)
    np.testing.assert_array_equal(vector, VECTORS[3].numpy())


def test_item_info_comes_out_in_the_order_of_ids_with_other_columns_kept(tmp_path: Path) -> None:
    old = [[9.0] * 128 for _ in range(5)]
    source = info(tmp_path / "a.parquet", [3, 0, 4, 1, 2], item_emb_d128=old, x=[3, 0, 4, 1, 2])
    frame = pd.read_parquet(write_item_info(source, tmp_path / "b.parquet", VECTORS, SCHEMA))
    assert frame["item_id"].tolist() == frame["x"].tolist() == [0, 1, 2, 3, 4]
    assert list(frame.columns) == ["item_id", "item_tags", "item_emb_d128", "x"]
    np.testing.assert_array_equal(frame.iloc[0]["item_emb_d128"], np.zeros(128))
    np.testing.assert_allclose(frame.iloc[4]["item_emb_d128"], VECTORS[4].double().numpy())
    assert frame.iloc[4]["item_emb_d128"].dtype == np.float64
    assert frame.iloc[2]["item_tags"].tolist() == [0, 0, 2]


def test_a_missing_padding_row_and_a_missing_column_are_added(tmp_path: Path) -> None:
    source = info(tmp_path / "a.parquet", [1, 2, 3, 4])
    frame = pd.read_parquet(write_item_info(source, tmp_path / "b.parquet", VECTORS, SCHEMA))
    assert frame["item_id"].tolist() == [0, 1, 2, 3, 4]
    assert frame.iloc[0]["item_emb_d128"].tolist() == [0.0] * 128


def test_other_items_are_refused(tmp_path: Path) -> None:
    source = info(tmp_path / "a.parquet", [0, 1, 2])
    with pytest.raises(InputError, match=r"must hold items 0\.\.4 once each, got 3 rows"):
        write_item_info(source, tmp_path / "b.parquet", VECTORS, SCHEMA)
    assert not (tmp_path / "b.parquet").exists()

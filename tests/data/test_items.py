"""The item table is aligned to ids whatever order and shape the files have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parquet_edits import edit
from slow_variants import thoroughly

from mmrec.data.items import READY, ItemTable, check_features, check_item_info, count_items
from mmrec.data.microlens import MICROLENS
from mmrec.errors import InputError
from mmrec.io import parquet as columns_module
from mmrec.io.parquet import as_lists
from mmrec.schema import Items

Writer = Callable[..., Path]


@pytest.fixture
def root(write_microlens: Writer) -> Path:
    return write_microlens(nested=False)


SCHEMA = MICROLENS.items


def read(root: Path, schema: Items = SCHEMA) -> ItemTable:
    return ItemTable.read(root / "item_info.parquet", schema, root / "features.parquet")


def test_the_table_agrees_with_a_loop(root: Path) -> None:
    table = read(root)
    assert (table.num_items, table.num_tags) == (13, 13)
    assert table.tags.shape == (13, 3)
    assert table.vectors["image"].shape == (13, 3)
    assert table.vectors["text"].shape == (13, 2)
    assert (table.tags.dtype, table.vectors["image"].dtype) == (torch.int64, torch.float16)
    info = {row["item_id"]: row for row in pq.read_table(root / "item_info.parquet").to_pylist()}
    rows = pq.read_table(root / "features.parquet").to_pylist()
    features = {row["item_id"]: row for row in rows}
    for item in range(13):
        assert table.tags[item].tolist() == info[item]["item_tags"]
        row = features.get(item, {"has_image": False, "has_text": False})
        assert table.present["image"][item].item() == row["has_image"]
        assert table.present["text"][item].item() == row["has_text"]
        for name, vectors in table.vectors.items():
            width = vectors.shape[1]
            expected = row[f"{name}_emb"] if row[f"has_{name}"] else [0.0] * width
            assert vectors[item].tolist() == pytest.approx(expected, rel=1e-3)
    assert not table.present["image"][0]
    assert not table.present["text"][0]
    assert table.to("cpu").tags.tolist() == table.tags.tolist()


def test_without_features_the_ready_embedding_is_the_one_modality(root: Path) -> None:
    table = ItemTable.read(root / "item_info.parquet", SCHEMA)
    assert list(table.vectors) == list(table.present) == [READY]
    assert table.vectors[READY].shape == (13, 4)
    assert table.vectors[READY][5].tolist() == [5.0, -1.0, 0.5, 2.0]
    assert not table.vectors[READY][0].any()
    assert table.present[READY].tolist() == [False] + [True] * 12


def test_without_features_and_embedding_there_is_no_content(write_microlens: Writer) -> None:
    info = write_microlens(nested=False, embedding=False) / "item_info.parquet"
    table = ItemTable.read(info, SCHEMA)
    assert not table.has_content
    assert not table.vectors
    assert not table.present


def test_masks_are_optional_and_a_modality_may_be_left_out(root: Path) -> None:
    table = pq.read_table(root / "features.parquet").drop_columns(["has_image", "has_text"])
    pq.write_table(table, root / "features.parquet")
    whole = read(root)
    assert whole.present["image"].tolist() == [False] + [True] * 11 + [False]
    assert whole.present["text"].tolist() == whole.present["image"].tolist()
    pq.write_table(table.drop_columns(["text_emb"]), root / "features.parquet")
    with pytest.raises(InputError, match="one column text_emb is needed, got 0"):
        read(root)
    images = read(root, replace(SCHEMA, modalities={"image": "image_emb"}))
    assert torch.equal(images.vectors["image"], whole.vectors["image"])
    assert list(images.vectors) == list(images.present) == ["image"]


def test_a_third_modality_is_a_column_and_a_line_of_the_schema(root: Path) -> None:
    table = pq.read_table(root / "features.parquet")
    sounds = np.arange(5 * table.num_rows, dtype=np.float32).reshape(-1, 5)
    heard = np.arange(table.num_rows) % 4 > 0
    table = table.append_column("sound", as_lists(sounds))
    table = table.append_column("has_audio", pa.array(heard))
    pq.write_table(table, root / "features.parquet")
    three = read(root, replace(SCHEMA, modalities={**SCHEMA.modalities, "audio": "sound"}))
    assert list(three.vectors) == list(three.present) == ["audio", "image", "text"]
    ids = table["item_id"].to_numpy().copy()
    assert torch.equal(three.present["audio"][ids], torch.from_numpy(heard))
    expected = torch.from_numpy(sounds * heard[:, None]).half()
    assert torch.equal(three.vectors["audio"][ids], expected)
    two = read(root)
    for name in two.vectors:
        assert torch.equal(three.vectors[name], two.vectors[name])


def test_a_vector_without_numbers_is_no_vector(root: Path) -> None:
    table = pq.read_table(root / "features.parquet")
    empty = pa.array([[]] * table.num_rows, pa.list_(pa.float32()))
    place = table.column_names.index("text_emb")
    pq.write_table(table.set_column(place, "text_emb", empty), root / "features.parquet")
    with pytest.raises(InputError, match=r"holds a number or more, got none .*text_emb, row 0"):
        read(root)


def test_other_column_names(root: Path) -> None:
    table = pq.read_table(root / "features.parquet")
    columns = ["item_id", "img_emb_CLIPRN50", "txt_emb_BERT", "has_image", "has_text"]
    expected = read(root)
    pq.write_table(table.rename_columns(columns), root / "features.parquet")
    names = {"image": "img_emb_CLIPRN50", "text": "txt_emb_BERT"}
    other = read(root, replace(SCHEMA, modalities=names))
    assert torch.equal(other.vectors["image"], expected.vectors["image"])
    assert torch.equal(other.vectors["text"], expected.vectors["text"])


TAGS = given(
    st.lists(st.lists(st.integers(0, 50), max_size=7), min_size=1, max_size=20),
    st.randoms(use_true_random=False),
    st.booleans(),
    st.integers(1, 25),
)


@settings(max_examples=30, deadline=None)
@TAGS
def test_ragged_tags_in_any_order_are_padded_on_the_left(
    tmp_path_factory: pytest.TempPathFactory, lists: list[list[int]], random: Any, zero: bool,
    at_once: int,
) -> None:  # fmt: skip
    path = tmp_path_factory.mktemp("info") / "item_info.parquet"
    rows: list[tuple[int, list[int]]] = list(enumerate(lists, start=1)) + [(0, [])] * zero
    random.shuffle(rows)
    columns = {
        "item_id": pa.array([item for item, _ in rows]),
        "item_tags": pa.array([tags for _, tags in rows], pa.large_list(pa.int32())),
        "item_emb_d128": pa.array([[float(item)] for item, _ in rows]),
    }
    pq.write_table(pa.table(columns), path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns_module, "BATCH_ROWS", at_once)
        table = ItemTable.read(path, SCHEMA)
    width = max(1, *map(len, lists), 1)
    expected = [[0] * (width - len(tags)) + tags for tags in [[], *lists]]
    assert table.tags.tolist() == expected
    assert table.num_tags == max(map(max, expected)) + 1
    assert table.vectors[READY][:, 0].tolist() == list(range(len(lists) + 1))


test_ragged_tags_in_any_order_are_padded_on_the_left_thoroughly = thoroughly(
    test_ragged_tags_in_any_order_are_padded_on_the_left, TAGS, 500
)


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        (
            "item_id",
            "repeat",
            r"each item stands in one row, got \d+ a second time in .*info.*",
        ),
        (
            "item_id",
            99,
            r"item ids are dense, 1\.\.99 without a gap, item \d+ is missing in .*info",
        ),
        ("item_id", -5, "item ids are 0 or more, got -5 in .*info.*, row 4$"),
        ("item_id", None, "every value must be there, got null in .*info.*column item_id, row 4$"),
        ("item_tags", None, "every value must be there, got null in .*column item_tags, row 4$"),
        ("item_tags", [1, None], "of a list must be there, got null in .*column item_tags, row 4$"),
        ("item_tags", [2, -1], r"tags lie in 0\.\..*, got -1 in .*column item_tags, row 4$"),
        ("item_emb_d128", [1.0] * 3, "one width, here 4, got width 3 .*item_emb_d128, row 4$"),
        ("item_emb_d128", None, "must be there, got null in .*column item_emb_d128, row 4$"),
        ("item_emb_d128", [1.0, float("nan"), 0, 0], "got nan at position 1 in .*d128, row 4$"),
        ("item_emb_d128", [1.0, 0, 0, float("-inf")], "got -inf at position 3 in .*d128, row 4$"),
        (
            "item_emb_d128",
            [7e4, 0, 0, 0],
            "up to 65504.*, got 70000.0 at position 0 .*d128, row 4$",
        ),
    ],
)
def test_a_bad_item_info_is_named(root: Path, column: str, value: Any, sentence: str) -> None:
    path = root / "item_info.parquet"
    ids = pq.read_table(path)["item_id"].to_pylist()
    assert ids[4] != 0
    edit(path, column, 4, ids[5] if value == "repeat" else value)
    with pytest.raises(InputError, match=sentence):
        check_item_info(path, SCHEMA)


def test_the_padding_row_has_no_tags(root: Path) -> None:
    path = root / "item_info.parquet"
    row = pq.read_table(path)["item_id"].to_pylist().index(0)
    edit(path, "item_tags", row, [0, 0, 3])
    sentence = rf"item 0 is padding and has no tags, got \[0, 0, 3\] in .*item_tags, row {row}$"
    with pytest.raises(InputError, match=sentence):
        check_item_info(path, SCHEMA)


def test_only_the_padding_is_no_item(root: Path) -> None:
    path = root / "item_info.parquet"
    pq.write_table(pa.table({"item_id": [0], "item_tags": pa.array([[0]])}), path)
    with pytest.raises(InputError, match="at least one item besides the padding"):
        count_items(path, SCHEMA)


@pytest.mark.parametrize("at_once", [3, 1000])
@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        ("item_id", 13, r"item ids lie in 0\.\.12, got 13 in .*features.*column item_id, row 7$"),
        ("item_id", -1, r"item ids lie in 0\.\.12, got -1 in .*features.*column item_id, row 7$"),
        ("item_id", 2, "each item stands in one row.*, got .*2.* in .*column item_id, row 7$"),
        ("has_text", None, "every value must be there, got null in .*column has_text, row 7$"),
        ("text_emb", None, "must be there, got null in .*column text_emb, row 7$"),
        ("text_emb", [1.0], "one width, here 2, got width 1 in .*column text_emb, row 7$"),
        ("image_emb", [0.0, float("nan"), 1], "got nan at position 1 in .*image_emb, row 7$"),
        ("image_emb", [0.0, None, 1], "of a list must be there, got null in .*image_emb, row 7$"),
    ],
)
def test_bad_features_are_named(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    column: str,
    value: Any,
    sentence: str,
    at_once: int,
) -> None:
    monkeypatch.setattr(columns_module, "BATCH_ROWS", at_once)
    path = root / "features.parquet"
    edit(path, column, 7, value)
    with pytest.raises(InputError, match=sentence):
        check_features(path, SCHEMA, 13)


def test_item_of_two_shards_is_refused(root: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    with pytest.raises(InputError, match=r"holds \*\.parquet files, .*shards has none"):
        check_features(shards, SCHEMA, 13)
    table = pq.read_table(root / "features.parquet")
    pq.write_table(table.slice(0, 6), shards / "0.parquet")
    pq.write_table(table.slice(5), shards / "1.parquet")
    with pytest.raises(
        InputError, match=r"one row.*, got 6 in .*1\.parquet, column item_id, row 0$"
    ):
        check_features(shards, SCHEMA, 13)
    pq.write_table(table.slice(6), shards / "1.parquet")
    pq.write_table(table.slice(0, 0), shards / "2.parquet")  # an empty shard does no harm
    pq.write_table(table, shards / ".left-over.tmp.parquet")
    check_features(shards, SCHEMA, 13)


def test_features_of_nobody_are_refused(root: Path) -> None:
    path = root / "features.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    with pytest.raises(InputError, match="features of at least one item are needed"):
        check_features(path, SCHEMA, 13)


def test_all_absent_gives_a_masked_modality(root: Path) -> None:
    path = root / "features.parquet"
    table = pq.read_table(path)
    place = table.schema.get_field_index("has_image")
    none = pa.array(np.zeros(table.num_rows, dtype=bool))
    pq.write_table(table.set_column(place, "has_image", none), path)
    table = read(root)
    assert not table.present["image"].any()
    assert not table.vectors["image"].any()
    assert table.vectors["image"].shape == (13, 1)

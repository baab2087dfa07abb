"""Every breach of the click log's layout is one sentence with file, column and row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parquet_edits import edit
from slow_variants import thoroughly

from mmrec.data.checks import ClickLog, read_row_ids
from mmrec.data.checks import check_clicks as check_any
from mmrec.data.microlens import MICROLENS
from mmrec.errors import InputError
from mmrec.io import parquet as columns_module
from mmrec.io.parquet import Column

NUM_ITEMS = 13


def check_clicks(path: Path, **options: Any) -> ClickLog:
    return check_any(path, MICROLENS.clicks, **options)


@pytest.fixture
def train(write_microlens: Callable[..., Path]) -> Path:
    return write_microlens(nested=False) / "train.parquet"


def test_a_good_file(train: Path) -> None:
    log = check_clicks(train, num_items=NUM_ITEMS, labelled=True)
    assert (log.num_rows, log.widths) == (23, {"item_seq": 5})
    test = check_clicks(train.with_name("test.parquet"), num_items=NUM_ITEMS, labelled=False)
    assert test.num_rows == 11


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        ("item_id", 13, r"item ids lie in 1\.\.12 \(0 is padding\), got 13"),
        ("item_id", 0, r"item ids lie in 1\.\.12 \(0 is padding\), got 0"),
        ("item_id", None, "every value must be there, got null"),
        ("user_id", -1, "user ids are 0 or more, got -1"),
        ("user_id", None, "every value must be there, got null"),
        ("label", 2, "labels are 0 or 1, got 2"),
        ("label", None, "every value must be there, got null"),
        ("likes_level", -3, r"categories lie in 0\.\.999, got -3"),
        ("views_level", 1000, r"categories lie in 0\.\.999, got 1000"),
        ("views_level", None, "every value must be there, got null"),
        ("item_seq", None, "every value must be there, got null"),
        ("item_seq", [0, None, 3], "every value of a list must be there, got null"),
        ("item_seq", [0, 4, 13], r"histories hold item ids 0\.\.12, got 13"),
        ("item_seq", [0, -4, 3], r"histories hold item ids 0\.\.12, got -4"),
        ("item_seq", [4, 3, 0], "histories are left-padded.*, got 0 after item 3"),
        ("item_seq", [0, 4, 0, 3], "histories are left-padded.*, got 0 after item 4"),
    ],
)
@pytest.mark.parametrize("row", [0, 11, 22])
@pytest.mark.parametrize("rows", [4, 1000])
def test_a_bad_value_is_named_with_its_place(
    train: Path, monkeypatch: pytest.MonkeyPatch, column: str, value: Any, sentence: str, row: int,
    rows: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(columns_module, "BATCH_ROWS", rows)
    edit(train, column, row, value)
    place = rf"^{sentence} in \S*/train\.parquet, column {column}, row {row}$"
    with pytest.raises(InputError, match=place):
        check_clicks(train, num_items=NUM_ITEMS, labelled=True)


@pytest.mark.parametrize("column", ["user_id", "item_seq", "item_id", "likes_level", "label"])
def test_a_missing_column_or_a_wrong_type(train: Path, column: str) -> None:
    table = pq.read_table(train)
    place = table.schema.get_field_index(column)
    strings = pa.array([str(value) for value in table[column].to_pylist()])
    pq.write_table(table.set_column(place, column, strings), train)
    with pytest.raises(InputError, match=rf"needed, got string in .*train.*, column {column}$"):
        check_clicks(train, labelled=True)
    pq.write_table(table.drop_columns([column]), train)
    with pytest.raises(InputError, match=rf"one column {column} is needed, got 0 .*train\.parquet"):
        check_clicks(train, labelled=True)


def test_scalar_for_list_and_list_of_floats(train: Path) -> None:
    table = pq.read_table(train)
    for kind, name in [(pa.int64(), "int64"), (pa.list_(pa.float64()), "list<element: double>")]:
        values = [1] * 23 if kind == pa.int64() else [[1.0]] * 23
        pq.write_table(table.set_column(1, "item_seq", pa.array(values, kind)), train)
        with pytest.raises(InputError, match=f"lists of integers are needed, got {name}"):
            check_clicks(train, labelled=True)


def test_a_column_that_is_there_twice(train: Path) -> None:
    table = pq.read_table(train)
    pq.write_table(table.append_column("user_id", table["user_id"]), train)
    with pytest.raises(InputError, match="one column user_id is needed, got 2"):
        check_clicks(train, labelled=True)


def test_an_empty_file(train: Path) -> None:
    pq.write_table(pq.read_table(train).slice(0, 0), train)
    with pytest.raises(InputError, match=r"at least one row is needed, .* in \S*train\.parquet$"):
        check_clicks(train, labelled=True)


@pytest.mark.parametrize("label", [0, 1])
def test_labels_that_are_all_equal(train: Path, label: int) -> None:
    table = pq.read_table(train)
    pq.write_table(table.set_column(5, "label", pa.array([label] * 23)), train)
    with pytest.raises(InputError, match=f"both 0 and 1, every one is {label} in .*column label"):
        check_clicks(train, labelled=True)


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.bool_(), pa.int8()])
def test_labels_of_other_types(train: Path, kind: pa.DataType) -> None:
    table = pq.read_table(train)
    pq.write_table(table.set_column(5, "label", table["label"].cast(kind)), train)
    assert check_clicks(train, labelled=True).num_rows == 23


def test_the_largest_level_of_a_narrow_type(train: Path) -> None:
    table = pq.read_table(train)
    levels = pa.array([127] * 23, pa.int8())
    pq.write_table(table.set_column(3, "likes_level", levels), train)
    assert check_clicks(train, labelled=True).num_rows == 23


def test_a_label_that_is_nan(train: Path) -> None:
    table = pq.read_table(train)
    pq.write_table(table.set_column(5, "label", table["label"].cast(pa.float64())), train)
    edit(train, "label", 9, float("nan"))
    with pytest.raises(InputError, match=r"labels are 0 or 1, got nan in .*column label, row 9$"):
        check_clicks(train, labelled=True)


def test_row_ids_keep_the_order_of_the_file_and_stand_once(train: Path) -> None:
    test = train.with_name("test.parquet")
    table = pq.read_table(test)
    ids = [9, 2, 100, 7, 0, 55, 3, 1, 8, 6, 4]
    pq.write_table(table.set_column(0, "ID", pa.array(ids)), test)
    check_clicks(test, labelled=False)
    assert read_row_ids(test, "ID").tolist() == ids
    edit(test, "ID", 8, 100)
    with pytest.raises(InputError, match=r"each ID stands once, got 100 a .*column ID, row 8$"):
        check_clicks(test, labelled=False)


def test_extra_columns_are_ignored(train: Path) -> None:
    table = pq.read_table(train)
    table = table.append_column("note", pa.nulls(23, pa.string()))
    pq.write_table(table, train)
    assert check_clicks(train, num_items=NUM_ITEMS, labelled=True).num_rows == 23


def test_ragged_histories_of_any_width(train: Path) -> None:
    edit(train, "item_seq", 4, [])
    edit(train, "item_seq", 6, [0] * 30 + [2])
    assert check_clicks(train, num_items=NUM_ITEMS, labelled=True).widths["item_seq"] == 31
    table = pq.read_table(train)
    empty = pa.array([[]] * 23, pa.list_(pa.int64()))
    pq.write_table(table.set_column(1, "item_seq", empty), train)
    assert check_clicks(train, num_items=NUM_ITEMS, labelled=True).widths["item_seq"] == 1


def _left_padded(history: list[int]) -> bool:
    real = [item for item in history if item != 0]
    return history == [0] * (len(history) - len(real)) + real


HISTORIES = given(st.lists(st.lists(st.integers(0, 2), max_size=5), min_size=1, max_size=12))


@settings(max_examples=60, deadline=None)
@HISTORIES
def test_the_padding_check_agrees_with_a_loop(
    tmp_path_factory: pytest.TempPathFactory, histories: list[list[int]]
) -> None:
    path = tmp_path_factory.mktemp("padding") / "train.parquet"
    n = len(histories)
    ones = pa.array([1] * n)
    pq.write_table(
        pa.table(
            dict.fromkeys(("user_id", "item_id", "likes_level", "views_level"), ones)
            | {"ID": pa.array(range(n))}
            | {"item_seq": pa.array(histories, pa.list_(pa.int32()))}
        ),
        path,
    )
    wrong = [row for row, history in enumerate(histories) if not _left_padded(history)]
    if wrong:
        with pytest.raises(InputError, match=rf"column item_seq, row {wrong[0]}$"):
            check_clicks(path, num_items=3, labelled=False)
    else:
        log = check_clicks(path, num_items=3, labelled=False)
        assert log.widths["item_seq"] == max(1, *map(len, histories))


test_the_padding_check_agrees_with_a_loop_thoroughly = thoroughly(
    test_the_padding_check_agrees_with_a_loop, HISTORIES, 1000
)


def test_the_check_reads_in_bounded_memory(tmp_path: Path) -> None:
    """120,000 rows of 100 in one row group: 96 MB of values, far less of memory at any time."""
    rows, width = 120_000, 100
    flat = np.random.default_rng(0).integers(1, 1000, size=rows * width, dtype=np.int64)
    ones = pa.array(np.ones(rows, dtype=np.int64))
    path = tmp_path / "train.parquet"
    table = pa.table(
        dict.fromkeys(("user_id", "item_id", "likes_level", "views_level"), ones)
        | {"label": pa.array(np.arange(rows) % 2)}
        | {"item_seq": pa.FixedSizeListArray.from_arrays(pa.array(flat), width)}
    )
    pq.write_table(table, path, row_group_size=rows)
    del table, flat, ones
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    peak = 0
    original = Column.lists

    def watched(self: Column) -> Any:
        nonlocal peak
        peak = max(peak, pool.bytes_allocated() - before)
        return original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Column, "lists", watched)
        log = check_clicks(path, num_items=1000, labelled=True)
    assert log.num_rows == rows
    assert 0 < peak < 60e6


def test_row_ids_of_64_bits_keep_every_bit(train: Path) -> None:
    test = train.with_name("test.parquet")
    table = pq.read_table(test)
    ids = [2**64 - 1, 2**63, *range(9)]
    pq.write_table(table.set_column(0, "ID", pa.array(ids, pa.uint64())), test)
    check_clicks(test, labelled=False)
    assert read_row_ids(test, "ID").tolist() == ids

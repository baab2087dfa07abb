"""Columns as numpy: every list type and width, and every bad value named with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_variants import thoroughly

from mmrec.errors import InputError
from mmrec.io import parquet
from mmrec.io.hashing import mix64
from mmrec.io.parquet import (
    INTEGER,
    INTEGERS,
    Column,
    as_lists,
    left_pad,
    open_parquet,
    read_columns,
    read_numbers,
    row_of,
    write_parquet,
)

RAGGED = given(
    st.lists(st.lists(st.integers(1, 99), max_size=6), min_size=1, max_size=9), st.integers(1, 7)
)
REPEATS = given(st.lists(st.integers(-3, 3), min_size=1, max_size=12))


@settings(max_examples=60, deadline=None)
@RAGGED
def test_left_pad_agrees_with_a_loop(lists: list[list[int]], width: int) -> None:
    lengths = np.array([len(row) for row in lists], dtype=np.int64)
    values = np.array([value for row in lists for value in row], dtype=np.int32)
    expected = [[0] * (width - len(row[-width:])) + row[-width:] for row in lists]
    assert left_pad(values, lengths, width).tolist() == expected
    places = [row for row, one in enumerate(lists) for _ in one]
    assert [row_of(place, lengths) for place in range(len(values))] == places


test_left_pad_agrees_with_a_loop_thoroughly = thoroughly(
    test_left_pad_agrees_with_a_loop, RAGGED, 1000
)


@pytest.mark.parametrize("kind", [pa.list_(pa.float16()), pa.large_list(pa.float32())])
@pytest.mark.parametrize("cut", [0, 1])
def test_vectors_of_absent_rows_may_be_anything(kind: pa.DataType, cut: int) -> None:
    # Slicing leaves an offset inside the arrow array, as reading in batches can.
    rows = [[9.0, 9.0], [1.0, 2.0], None, [float("nan")] * 2, [3.0], [5.0, 6.0]]
    typed = [row if row is None else [np.float16(value) for value in row] for row in rows]
    array = pa.array(typed if pa.types.is_float16(kind.value_type) else rows, kind).slice(cut)
    column = Column("a.parquet", "v", range(cut, len(rows)), array)
    present = np.array([False, True, False, False, False, True])[cut:]
    out = column.vectors(None, present)
    assert out.dtype == np.float16
    assert out.tolist() == [[0, 0], [1, 2], [0, 0], [0, 0], [0, 0], [5, 6]][cut:]
    for row, sentence in [
        (2, "marked absent must be there, got null"),
        (3, "finite numbers.*, got nan at position 0"),
        (4, "one width, here 2, got width 1"),
    ]:
        also = present.copy()
        also[row - cut] = True
        with pytest.raises(InputError, match=rf"{sentence} in a\.parquet, column v, row {row}$"):
            column.vectors(None, also)


@settings(max_examples=60, deadline=None)
@REPEATS
def test_a_repeat_is_found_as_a_loop_finds_it(values: list[int]) -> None:
    column = Column("a.parquet", "n", range(5, 5 + len(values)), pa.array(values))
    again = [row for row, value in enumerate(values) if value in values[:row]]
    if not again:
        column.refuse_repeat(np.array(values), "each stands once")
        return
    sentence = f"^each stands once, got {values[again[0]]} a second time in .*, row {5 + again[0]}$"
    with pytest.raises(InputError, match=sentence):
        column.refuse_repeat(np.array(values), "each stands once")


test_a_repeat_is_found_as_a_loop_finds_it_thoroughly = thoroughly(
    test_a_repeat_is_found_as_a_loop_finds_it, REPEATS, 1000
)


LISTS = [pa.list_(pa.uint8()), pa.large_list(pa.int32()), pa.list_(pa.uint64(), 2)]


@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize("at_once", [2, 3, 100])
def test_batches_of_rows_know_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: pa.DataType, at_once: int
) -> None:
    monkeypatch.setattr(parquet, "BATCH_ROWS", at_once)
    rows = [[row, 2 * row] for row in range(11)]
    table = pa.table({"n": range(11), "x": pa.array(rows, kind)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=5)
    source = open_parquet(tmp_path / "a.parquet", {"n": INTEGER, "x": INTEGERS})
    found: list[Any] = []
    for columns in read_columns(source, ["x", "n"]):
        assert list(columns["n"].rows) == columns["n"].numbers().tolist()
        values, lengths = columns["x"].lists()
        assert lengths.tolist() == [2] * len(columns["n"].array)
        found += values.reshape(-1, 2).tolist()
    assert found == rows
    assert read_numbers(source, "n").tolist() == list(range(11))


def test_integers_that_int64_cannot_hold_are_refused(tmp_path: Path) -> None:
    columns = {"n": pa.array([1, 2**63 - 1, 2**63], pa.uint64()), "m": pa.array([1, 2, 3])}
    write_parquet(tmp_path / "a.parquet", pa.table(columns))
    source = open_parquet(tmp_path / "a.parquet", {"n": INTEGER})
    sentence = rf"integers are at most {2**63 - 1}, got {2**63} in .*a\.parquet, column n, row 2$"
    with pytest.raises(InputError, match=sentence):
        read_numbers(source, "n")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_a_matrix_is_written_as_lists_and_read_back(tmp_path: Path, dtype: type) -> None:
    matrix = np.arange(35).reshape(7, 5).astype(dtype)
    path = write_parquet(tmp_path / "a.parquet", pa.table({"x": as_lists(matrix)}))
    assert pq.read_table(path)["x"].to_pylist() == matrix.tolist()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.parquet"]


def test_mixed_bits_are_those_of_the_published_function() -> None:
    """The first values of splitmix64 with seed 0, as its authors give them."""
    golden = 0x9E3779B97F4A7C15
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    states = [number * golden % 2**64 for number in range(3)]
    assert [mix64(state) for state in states] == expected
    assert mix64(np.array(states, dtype=np.uint64)).tolist() == expected

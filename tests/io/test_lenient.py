"""The lenient reader hands over what there is, and refuses only what cannot be read."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmrec.errors import InputError
from mmrec.io import lenient
from mmrec.io.sources import Source, open_source


def write(path: Path, columns: dict[str, Any], **how: Any) -> Source:
    pq.write_table(pa.table(columns), path, **how)
    return open_source(path)


@pytest.mark.parametrize("statistics", [True, False])
def test_ranges_need_no_statistics(tmp_path: Path, statistics: bool) -> None:
    columns = {"item_id": [4, 2, None], "item_seq": [[9, 1], None, [3]], "none": [None] * 3}
    source = write(tmp_path / "a.parquet", columns, write_statistics=statistics)
    assert lenient.span(source, "item_id") == (2, 4)
    assert lenient.span(source, "item_seq") == (1, 9)
    assert lenient.span(source, "none") is None


def test_batches_are_the_file(tmp_path: Path) -> None:
    lists = [[i] * (i % 3) for i in range(23)]
    source = write(tmp_path / "a.parquet", {"a": range(23), "b": lists}, row_group_size=7)
    for size in (1, 5, 23, 100):
        parts = list(lenient.batches(source, size=size))
        assert max(len(part["a"]) for part in parts) <= size
        assert [i for part in parts for i in part["a"].to_pylist()] == list(range(23))
        assert sum(len(part["b"].flatten()) for part in parts) == sum(i % 3 for i in range(23))
    assert lenient.whole(source, ["a"])["a"].to_pylist() == list(range(23))


def test_a_file_without_rows_is_one_empty_batch(tmp_path: Path) -> None:
    columns = {"a": pa.array([], pa.int64()), "b": pa.array([], pa.list_(pa.float32()))}
    source = write(tmp_path / "a.parquet", columns)
    assert {len(column) for part in lenient.batches(source) for column in part.values()} == {0}
    assert lenient.whole(source, ["b"])["b"].type == pa.list_(pa.float32())


def test_numbers_of_any_type() -> None:
    day = datetime.date(1970, 1, 3)
    columns: list[tuple[pa.Array, list[float]]] = [
        (pa.array([1, None, 3]), [1, np.nan, 3]),
        (pa.array([True, False, None]), [1, 0, np.nan]),
        (pa.array([1.5, np.nan, np.inf], pa.float32()), [1.5, np.nan, np.inf]),
        (pa.array([None, None, None]), [np.nan] * 3),
        (pa.array([day, None, day]), [2 * 86_400_000, np.nan, 2 * 86_400_000]),
        (pa.array([5, None, 7], pa.time32("s")), [5, np.nan, 7]),
    ]
    for array, wanted in columns:
        assert lenient.is_scalar(array.type)
        np.testing.assert_array_equal(lenient.floats(array), wanted)
        whole = [int(value) if np.isfinite(value) else -9 for value in wanted]
        np.testing.assert_array_equal(lenient.integers(array, -9), whole)
    assert not lenient.is_scalar(pa.string())
    assert lenient.integers(pa.array([2**62 + 1, None])).tolist() == [2**62 + 1, 0]  # exact


@pytest.mark.parametrize("kind", [pa.list_(pa.int64()), pa.large_list(pa.int8())], ids=str)
def test_a_null_list_counts_as_empty(kind: pa.DataType) -> None:
    values, lengths = lenient.lists(pa.array([[1, 2], None, [], [3]], kind))
    assert (values.to_pylist(), lengths.tolist()) == ([1, 2, 3], [2, 0, 0, 1])


def test_what_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(InputError, match=r"each column needs its own name, .*twice\.parquet"):
        lenient.kinds_of(open_source(tmp_path / "twice.parquet"))
    source = write(tmp_path / "one.parquet", {"a": [1]})
    with pytest.raises(InputError, match=r"columns a, b are needed, .*one\.parquet has \['a'\]"):
        lenient.whole(source, ["a", "b"])


def test_damage_further_on_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    random = np.random.default_rng(0).integers(0, 2**60, 50_000)
    source = write(path, {"a": random}, row_group_size=10_000, compression="zstd")
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(100_000))
    source = open_source(path)
    seen = []
    with pytest.raises(InputError, match=r"a\.parquet is damaged"):
        seen += [len(part["a"]) for part in lenient.batches(source, size=1_000)]

"""The stream against plain reading: every value, any types, any shape of files."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.stream_order import left_padded
from torch import Tensor

from mmrec.errors import InputError
from mmrec.stream.stream import ParquetStream


def clicks(rows: int, *, width: int = 5, start: int = 0, wide: bool = False) -> pa.Table:
    """A table whose every value tells its row number."""
    number = np.arange(start, start + rows)
    lists = [[int(n)] * (int(n) % (width + 3)) for n in number]
    ints = pa.int64() if wide else pa.int32()
    return pa.table(
        {
            "user": pa.array(number * 3, ints),
            "history": pa.array(lists, pa.list_(ints)),
            "score": pa.array(number / 2, pa.float64()),
            "odd": pa.array(number % 2 == 1),
        }
    )


def rows_of(stream: Any) -> list[int]:
    return [row for batch in stream for row in batch["row"].tolist()]


def write(path: Path, table: pa.Table, group: int = 7, **options: Any) -> Path:
    pq.write_table(table, path, row_group_size=group, **options)
    return path


def check_values(batch: dict[str, Tensor], width: int = 5) -> None:
    row = batch["row"]
    assert batch["user"].dtype == batch["history"].dtype == row.dtype == torch.int64
    assert batch["score"].dtype == torch.float32
    assert batch["odd"].dtype == torch.bool
    assert batch["user"].tolist() == (row * 3).tolist()
    assert batch["score"].tolist() == (row / 2).tolist()
    assert batch["odd"].tolist() == (row % 2 == 1).tolist()
    lists = [left_padded([n] * (n % (width + 3)), width) for n in row.tolist()]
    assert batch["history"].tolist() == lists


@settings(max_examples=30, deadline=None)
@given(
    files=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    group=st.sampled_from([1, 3, 17, 100]),
    batch_size=st.integers(1, 30),
    window=st.integers(1, 200),
    shuffle=st.booleans(),
)
def test_values(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[int],
    group: int,
    batch_size: int,
    window: int,
    shuffle: bool,
) -> None:
    folder = tmp_path_factory.mktemp("values")
    start = 0
    for index, rows in enumerate(files):
        # Files may differ in the width of their integers.
        table = clicks(rows, start=start, wide=index % 2 == 1)
        write(folder / f"{index}.parquet", table, group)
        start += rows
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        stream = ParquetStream(
            folder,
            batch_size=batch_size,
            list_widths={"history": 5},
            window=window,
            shuffle=shuffle,
        )
    seen = []
    for batch in stream:
        check_values(batch)
        seen += batch["row"].tolist()
    assert sorted(seen) == list(range(start))
    assert shuffle or seen == list(range(start))
    assert len(stream) == -(-start // batch_size)


list_types: list[Callable[[pa.DataType], pa.DataType]] = [
    pa.list_,
    pa.large_list,
    lambda value: pa.list_(value, 3),
]


@pytest.mark.parametrize("list_type", list_types)
@pytest.mark.parametrize(
    "name", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
)
@pytest.mark.parametrize("width", [None, 2, 3, 7])
def test_list_types(
    tmp_path: Path, list_type: Callable[[pa.DataType], pa.DataType], name: str, width: int | None
) -> None:
    values = [[1, 2, 3], [4, 5, 6], [7, 8, 120]] * 5
    column = pa.array(values, list_type(getattr(pa, name)()))
    write(tmp_path / "a.parquet", pa.table({"x": column}), 4)
    widths = None if width is None else {"x": width}
    stream = ParquetStream(tmp_path / "a.parquet", batch_size=4, list_widths=widths)
    got = torch.cat([batch["x"] for batch in stream])
    assert got.dtype == torch.int64
    assert got.tolist() == [left_padded(value, width or 3) for value in values]


def test_float_lists_and_dictionaries(tmp_path: Path) -> None:
    table = pa.table(
        {
            "v": pa.array([[0.5, 1.5], [2.5, 3.5]], pa.list_(pa.float16(), 2)),
            "d": pa.array([7, 9]).dictionary_encode(),
        }
    )
    (batch,) = ParquetStream(write(tmp_path / "a.parquet", table), batch_size=4)
    assert batch["v"].dtype == torch.float32
    assert batch["v"].tolist() == [[0.5, 1.5], [2.5, 3.5]]
    assert batch["d"].tolist() == [7, 9]


def test_columns_and_collate(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", clicks(20))
    stream = ParquetStream(path, batch_size=8, columns=["odd"], collate=lambda x: sorted(x))
    assert list(stream) == [["odd", "row"]] * 3


def test_a_batch_may_be_larger_than_memory_as_long_as_the_files_are_not(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", clicks(20))
    (batch,) = ParquetStream(path, batch_size=10**15, list_widths={"history": 5})
    check_values(batch)
    assert batch["row"].tolist() == list(range(20))


def test_directory_glob_list_and_url(tmp_path: Path) -> None:
    for index in range(3):
        write(tmp_path / f"{index}.parquet", clicks(10, start=10 * index))
    (tmp_path / "_notes.parquet").write_text("skipped")
    options: dict[str, Any] = {"batch_size": 8, "columns": ["user"]}
    for paths in (tmp_path, f"{tmp_path}/?.parquet", f"file://{tmp_path}", [str(tmp_path)]):
        assert rows_of(ParquetStream(paths, **options)) == list(range(30))
    backwards = [tmp_path / "2.parquet", tmp_path / "0.parquet"]
    users = torch.cat([batch["user"] for batch in ParquetStream(backwards, **options)])
    assert users.tolist() == [3 * n for n in [*range(20, 30), *range(10)]]


def test_memory_url(tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/stream/a.parquet", write(tmp_path / "a.parquet", clicks(30)).read_bytes())
    memory.pipe(
        "/stream/b.parquet", write(tmp_path / "a.parquet", clicks(9, start=30)).read_bytes()
    )
    for url in ("memory://stream", "memory://stream/*.parquet"):
        stream = ParquetStream(url, batch_size=8, list_widths={"history": 5}, shuffle=True)
        for batch in stream:
            check_values(batch)
        assert sorted(rows_of(stream)) == list(range(39))
    only = ParquetStream(
        "memory://stream", batch_size=8, columns=["user"], row_filter=[("odd", "==", True)]
    )
    assert rows_of(only) == list(range(1, 39, 2))


@pytest.mark.parametrize("group", [1, 4, 50])
@pytest.mark.parametrize("shuffle", [False, True])
def test_row_filter(tmp_path: Path, group: int, shuffle: bool) -> None:
    for index in range(2):
        write(tmp_path / f"{index}.parquet", clicks(40, start=40 * index), group)
    # Whole row groups pass nothing; the filter's columns are not among those read.
    keep = pc.field("odd") & ((pc.field("score") < 2) | (pc.field("score") > 9))
    stream = ParquetStream(
        tmp_path,
        batch_size=5,
        columns=["history"],
        list_widths={"history": 5},
        row_filter=keep,
        shuffle=shuffle,
        window=40,
    )
    expected = [n for n in range(80) if n % 2 == 1 and (n / 2 < 2 or n / 2 > 9)]
    seen = []
    for batch in stream:
        seen += batch["row"].tolist()
        lists = [left_padded([n] * (n % 8), 5) for n in batch["row"].tolist()]
        assert batch["history"].tolist() == lists
    assert sorted(seen) == expected
    assert shuffle or seen == expected
    assert stream.num_rows == len(expected)


def test_files_without_rows(tmp_path: Path) -> None:
    for index, rows in enumerate([0, 6, 0]):
        write(tmp_path / f"{index}.parquet", clicks(rows))
    widths = {"history": 5}
    assert rows_of(ParquetStream(tmp_path, batch_size=4, list_widths=widths)) == list(range(6))
    empty = ParquetStream(tmp_path / "0.parquet", batch_size=4, shuffle=True)
    assert len(empty) == 0
    assert list(empty) == []


def test_one_warning_for_big_row_groups(tmp_path: Path) -> None:
    path = write(tmp_path / "big.parquet", clicks(3000), group=2000)
    with pytest.warns(
        UserWarning, match=r"big\.parquet has row groups of up to 2000 rows.*repack"
    ) as found:
        ParquetStream(path, batch_size=8, columns=["user"], shuffle=True, window=400)
    assert len(found) == 1
    ParquetStream(path, batch_size=8, columns=["user"], window=400)  # no shuffle, no warning


def test_a_rank_may_get_an_empty_last_slice(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", clicks(9))
    sizes = []
    for rank in range(4):
        stream = ParquetStream(
            path, batch_size=8, list_widths={"history": 5}, rank=rank, world_size=4
        )
        batches = list(stream)
        for batch in batches:
            check_values(batch)
        sizes.append([len(batch["row"]) for batch in batches])
        assert batches[1]["history"].shape == (sizes[-1][1], 5)
    assert sizes == [[2, 0], [2, 0], [2, 0], [2, 1]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 3, "world_size": 4}, "batch_size .* at least world_size, got 3 for 4"),
        ({"rank": 2, "world_size": 2}, "rank must be in"),
        ({"window": 0}, "window must be"),
        ({"lanes": (0, 1)}, "lanes must be"),
        ({"columns": ["user", "userr"]}, r"userr is needed, got 0 .*a\.parquet: user, history"),
        ({"list_widths": {"user": 3}}, r"'user', which holds integers in .*a\.parquet"),
        ({"list_widths": {"nobody": 3}}, "'nobody', which is not read"),
        (
            {"list_widths": {"history": 0}},
            "list_widths of history must be a whole .* got 0",
        ),
        ({"row_filter": pc.field("nobody") == 1}, r"nobody.*cannot be applied to .*a\.parquet"),
        ({"row_filter": pc.field("user")}, "one truth value a row"),
        ({"verify": True}, r"manifest\.json.*none for .*a\.parquet"),
    ],
)
def test_wrong_use(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    path = write(tmp_path / "a.parquet", clicks(20))
    with pytest.raises(InputError, match=words):
        ParquetStream(path, **{"batch_size": 8, **options})

"""Files as they are opened and read: what is not sound is refused, and the place is named."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmrec.errors import InputError
from mmrec.io.parquet import INTEGER, open_parquet, read_numbers
from mmrec.io.sources import open_source, open_sources


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """400 rows in row groups of 100, with page checksums."""
    table = pa.table({"n": np.arange(400), "m": np.arange(400) * 7})
    pq.write_table(
        table,
        tmp_path / "a.parquet",
        row_group_size=100,
        compression="none",
        use_dictionary=False,
        write_page_checksum=True,
    )
    return tmp_path / "a.parquet"


def flip(path: Path, group: int, column: int) -> None:
    content = bytearray(path.read_bytes())
    place = pq.ParquetFile(path).metadata.row_group(group).column(column).data_page_offset
    content[place + 300] ^= 16
    path.write_bytes(content)


def test_what_an_open_file_is_known_to_be(path: Path) -> None:
    (source,) = open_sources(path)
    assert open_source(path) == source
    assert (source.name, source.num_rows, source.group_rows) == ("a.parquet", 400, (100,) * 4)
    assert source.size == path.stat().st_size
    assert source.schema.names == ["n", "m"]


def test_row_groups_and_columns_are_read_as_asked(path: Path) -> None:
    source = open_source(path)
    batches = list(source.read(["m"], groups=[3, 1], rows=60))
    assert [batch.schema.names for batch in batches] == [["m"]] * 4
    values = np.concatenate([batch.column(0).to_numpy() for batch in batches])
    assert values.tolist() == [7 * n for n in [*range(300, 400), *range(100, 200)]]


@pytest.mark.parametrize(("group", "column", "name"), [(2, 1, "m"), (0, 0, "n")])
def test_damage_is_named_with_row_group_and_column(
    path: Path, group: int, column: int, name: str
) -> None:
    flip(path, group, column)
    place = rf"a\.parquet is damaged: row group {group}, column {name}: .*"
    with pytest.raises(InputError, match=place):
        list(open_source(path).read(["n", "m"]))
    with pytest.raises(InputError, match=place):
        read_numbers(open_parquet(path, {name: INTEGER}), name)
    untouched = next(other for other in ("n", "m") if other != name)
    assert read_numbers(open_parquet(path, {untouched: INTEGER}), untouched)[-1] % 399 == 0


def test_a_file_that_was_replaced_since_is_refused(path: Path) -> None:
    source = open_source(path)
    path.write_bytes(path.read_bytes())
    with pytest.raises(InputError, match=r"a\.parquet was replaced or written to after"):
        next(source.read(["n"]))


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    """A pipe would wait for a writer for ever."""
    os.mkfifo(tmp_path / "pipe.parquet")
    os.symlink(tmp_path / "circle.parquet", tmp_path / "circle.parquet")
    for name in ("pipe.parquet", ""):
        with pytest.raises(InputError, match="is a directory or no regular file"):
            open_source(tmp_path / name)
    with pytest.raises(InputError, match=r"circle\.parquet cannot be opened: "):
        open_source(tmp_path / "circle.parquet")
    with pytest.raises(InputError, match=r"there is none \(any more\) at .*nowhere/a\.parquet$"):
        open_source(tmp_path / "nowhere" / "a.parquet")

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


def values(paths: object, column: str) -> list[object]:
    sources = open_sources(paths)
    return [v for s in sources for batch in s.read([column]) for v in batch.column(0).to_pylist()]


def write(path: Path, **columns: list[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


@pytest.mark.parametrize("pattern", ["", "/**/*.parquet"])
def test_links_are_followed_and_a_circle_is_entered_once(tmp_path: Path, pattern: str) -> None:
    write(tmp_path / "clicks" / "a.parquet", n=[1])
    write(tmp_path / "elsewhere" / "day2" / "b.parquet", n=[2])
    os.symlink(tmp_path / "elsewhere" / "day2", tmp_path / "clicks" / "day2")
    os.symlink(tmp_path / "clicks", tmp_path / "clicks" / "round")
    os.symlink(tmp_path / "elsewhere" / "day2" / "b.parquet", tmp_path / "clicks" / "z.parquet")
    assert values(f"{tmp_path}/clicks{pattern}", "n") == [1, 2, 2]


def test_a_broken_link_is_named(tmp_path: Path) -> None:
    write(tmp_path / "clicks" / "a.parquet", n=[1])
    os.symlink(tmp_path / "nowhere.parquet", tmp_path / "clicks" / "b.parquet")
    with pytest.raises(InputError, match=r"there is none \(any more\) at .*/b\.parquet"):
        open_sources(tmp_path / "clicks")


def test_hive_directories_are_columns(tmp_path: Path) -> None:
    for day, land, n in ((1, "de", 10), (12, "fr", 20), (2, "a%20b", 30)):
        write(tmp_path / f"day={day}" / f"land={land}" / "a.parquet", n=[n, n + 1])
    sources = open_sources(tmp_path)
    assert sources[0].schema.names == ["n", "day", "land"]
    assert values(tmp_path, "day") == [1, 1, 12, 12, 2, 2]
    assert values(tmp_path, "land") == ["de", "de", "fr", "fr", "a b", "a b"]
    (batch,) = sources[0].read(["day", "n"])
    assert batch.to_pydict() == {"day": [1, 1], "n": [10, 11]}
    write(tmp_path / "day=3" / "a.parquet", n=[1])
    with pytest.raises(InputError, match=r"hive directories of the same columns, .*\['day'\]"):
        open_sources(tmp_path)


def test_a_hive_value_that_is_missing_and_a_column_that_is_there(tmp_path: Path) -> None:
    write(tmp_path / "a" / "day=__HIVE_DEFAULT_PARTITION__" / "a.parquet", n=[1])
    write(tmp_path / "a" / "day=7" / "a.parquet", n=[2])
    assert values(tmp_path / "a", "day") == [7, None]
    write(tmp_path / "b" / "n=5" / "a.parquet", n=[1])
    assert values(tmp_path / "b", "n") == [1]


def test_storage_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused(Exception):
        """What a client of some storage raises."""

    def fail(self: object, path: str, **options: object) -> bool:
        raise Refused("no route\nto host")

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.exists", fail)
    with pytest.raises(InputError, match=r"a/b\.parquet cannot be reached: no route to host$"):
        open_sources("memory://a/b.parquet")

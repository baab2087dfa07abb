"""What is read and held: no row group twice on a repacked file, memory that stays flat."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mmrec.stream.stream
from mmrec.io import sources
from mmrec.io.sources import Source
from mmrec.stream.repack import repack
from mmrec.stream.stream import ParquetStream

WIDTH = 100


def clicks(rows: int) -> pa.Table:
    make = np.random.default_rng(0)
    flat = pa.array(make.integers(0, 91717, rows * WIDTH))
    return pa.table(
        {
            "history": pa.FixedSizeListArray.from_arrays(flat, WIDTH),
            "user": make.integers(0, 10**6, rows),
            "label": make.integers(0, 2, rows),
        }
    )


@pytest.fixture
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the bytes that Arrow asks the files for."""
    counted = [0]

    class Counting:
        def __init__(self, path: str) -> None:
            self._file = open(path, "rb")  # noqa: SIM115
            self.closed = False

        def read(self, size: int = -1) -> bytes:
            content = self._file.read(size)
            counted[0] += len(content)
            return content

        def seek(self, *arguments: int) -> int:
            return self._file.seek(*arguments)

        def tell(self) -> int:
            return self._file.tell()

        def close(self) -> None:
            self._file.close()
            self.closed = True

        def readable(self) -> bool:
            return True

        def seekable(self) -> bool:
            return True

        def writable(self) -> bool:
            return False

    monkeypatch.setattr(
        sources.pa, "OSFile", lambda path, _: pa.PythonFile(Counting(path), mode="r")
    )
    return counted


@pytest.fixture
def groups_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The row groups that are opened, one after the other."""
    opened: list[int] = []
    read = Source.read

    def counting(self: Source, *columns: Any, groups: list[int], **options: Any) -> Any:
        opened.extend(groups)
        return read(self, *columns, groups=groups, **options)

    monkeypatch.setattr(Source, "read", counting)
    return opened


def read_everywhere(
    path: Path, patch: pytest.MonkeyPatch, world: int, workers: int, **options: Any
) -> int:
    """Rows yielded over all ranks and workers."""
    rows: list[int] = []
    for rank in range(world):
        for worker in range(workers):
            stream = ParquetStream(path, shuffle=True, rank=rank, world_size=world, **options)
            info = SimpleNamespace(id=worker, num_workers=workers)
            patch.setattr(mmrec.stream.stream, "get_worker_info", lambda info=info: info)
            for batch in stream:
                rows.extend(batch["row"].tolist())
    assert len(rows) == len(set(rows))
    return len(rows)


@pytest.mark.parametrize(
    ("rows", "batch_size", "drop_last", "most_groups"),
    [
        (64 * 256, 128, False, 1.0),  # whole batches in every lane: each row group exactly once
        (64 * 750, 768, True, 1.0),
        (64 * 750, 256, False, 1.0625),  # a last, short batch needs rows of another worker's lanes
        (60_011, 256, False, 1.15),  # row groups of 937 and 938 rows
    ],
)
def test_four_ranks_with_two_workers_read_a_repacked_file_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bytes_read: list[int],
    groups_read: list[int],
    rows: int,
    batch_size: int,
    drop_last: bool,
    most_groups: float,
) -> None:
    """The bytes are at most 1.05 of the file: where a row group is opened again, only its start."""
    pq.write_table(clicks(rows), tmp_path / "a.parquet")
    done = repack(tmp_path / "a.parquet", tmp_path / "packed", row_groups=64)
    bytes_read[0] = 0
    groups_read.clear()
    yielded = read_everywhere(
        tmp_path / "packed",
        monkeypatch,
        world=4,
        workers=2,
        batch_size=batch_size,
        drop_last=drop_last,
    )
    assert yielded == (rows // batch_size * batch_size if drop_last else rows)
    assert 64 <= len(groups_read) <= 64 * most_groups
    assert bytes_read[0] <= 1.05 * done.bytes


def test_workers_that_do_not_fit_read_more_but_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups_read: list[int]
) -> None:
    pq.write_table(clicks(6400), tmp_path / "a.parquet")
    repack(tmp_path / "a.parquet", tmp_path / "packed", row_groups=64)
    groups = []
    for shape in ((1, 1), (1, 4), (4, 4), (1, 3), (3, 1)):
        groups_read.clear()
        assert read_everywhere(tmp_path / "packed", monkeypatch, *shape, batch_size=100) == 6400
        groups.append(len(groups_read))
    assert groups == [64, 64, 64, 192, 96]


def test_resuming_reads_little(tmp_path: Path, groups_read: list[int]) -> None:
    pq.write_table(clicks(6400), tmp_path / "a.parquet")
    repack(tmp_path / "a.parquet", tmp_path / "packed", row_groups=64)
    stream = ParquetStream(tmp_path / "packed", batch_size=100, shuffle=True, window=640)
    stream.seek(epoch=3, batch=60)
    groups_read.clear()
    assert sum(len(batch["row"]) for batch in stream) == 400
    assert 0 < len(groups_read) <= 2 * 16  # a window of each lane, not what was skipped


MEASURE = """
import json, sys
import psutil
from mmrec.stream.stream import ParquetStream

me, sizes = psutil.Process(), []
for path in sys.argv[1:]:
    stream = ParquetStream(path, batch_size=256, shuffle=True, window=4096)
    for epoch in range(3):
        stream.set_epoch(epoch)
        most = 0
        for number, batch in enumerate(stream):
            if number % 10 == 0:
                most = max(most, me.memory_info().rss)
        sizes.append(most)
print(json.dumps(sizes))
"""


def test_memory_is_flat_over_epochs_and_file_sizes(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{rows}.parquet") for rows in (9_600, 96_000)]
    for path, rows in zip(paths, (9_600, 96_000), strict=True):
        pq.write_table(clicks(rows), path, row_group_size=150)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *paths],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(mmrec.stream.stream.__file__).parents[2],
    )
    found = json.loads(done.stdout)
    assert max(found) <= 1.05 * min(found), found

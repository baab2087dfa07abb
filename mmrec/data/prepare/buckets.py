"""More rows than memory holds, dealt into files that it does hold, and finished steps kept.

A file of a bucket is parquet, in the order in which rows came.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmrec.io.files import write_json

Ints = NDArray[np.int64]
ROWS = 1 << 19  # read at a time
BINS = 1 << 16
_FACTS = "facts.json"


def step(root: Path, name: str, make: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """What a finished step left in its folder `root/name`; made now where it has not finished.

    Args:
        make: fills a folder and returns facts, JSON-able.
    """
    done, making = root / name, root / f".{name}"
    if not done.is_dir():
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        write_json(making / _FACTS, make(making))
        making.rename(done)
    facts: dict[str, Any] = json.loads((done / _FACTS).read_text())
    return facts


def frames(path: Path, columns: list[str] | None = None) -> Iterator[pl.DataFrame]:
    """The rows of a parquet file, so many at a time."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(ROWS, columns=columns):
            frame = pl.from_arrow(batch)
            assert isinstance(frame, pl.DataFrame)
            yield frame


class Buckets:
    """Files of a folder that rows are dealt to.

    Args:
        folder: which is there.
        name: of the files, before their number.
        count: of the files.
    """

    def __init__(self, folder: Path, name: str, count: int) -> None:
        self.folder, self.name, self.count = folder, name, count
        self._writers: dict[int, pq.ParquetWriter] = {}
        self._open = ExitStack()

    def __enter__(self) -> Buckets:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, frame: pl.DataFrame, bucket: Ints) -> None:
        """Deal rows to the bucket that each names, in their order."""
        order = np.argsort(bucket, kind="stable")
        ends = np.searchsorted(bucket[order], np.arange(self.count + 1))
        dealt = (frame if self.count == 1 else frame[order]).to_arrow()
        for number in np.flatnonzero(np.diff(ends)):
            part = dealt.slice(ends[number], ends[number + 1] - ends[number])
            self._writer(int(number), part.schema).write_table(part)

    def _writer(self, number: int, schema: pa.Schema) -> pq.ParquetWriter:
        if number not in self._writers:
            path = bucket_file(self.folder, self.name, number)
            writer = pq.ParquetWriter(path, schema, compression="lz4", use_dictionary=False)
            self._writers[number] = self._open.enter_context(writer)
        return self._writers[number]


def bucket_file(folder: Path, name: str, number: int) -> Path:
    """The file of one bucket; absent where no row came to it."""
    return folder / f"{name}{number:05}.parquet"


def read_bucket(folder: Path, name: str, number: int) -> pl.DataFrame | None:
    """All rows of one bucket; None where there are none."""
    path = bucket_file(folder, name, number)
    return pl.read_parquet(path) if path.exists() else None


def histogram(path: Path, column: str, low: int, high: int) -> tuple[Ints, int]:
    """How many of a column's integers lie in each bin of [low, high], and the width of a bin."""
    width = -(-(high - low + 1) // BINS)
    count = np.zeros(BINS, dtype=np.int64)
    for frame in frames(path, [column]):
        values = frame[column].to_numpy()
        values = values[(values >= low) & (values <= high)]
        count += np.bincount((values - low) // width, minlength=BINS)
    return count, width


def smallest_at(path: Path, column: str, rank: int, low: int, high: int) -> int:
    """The value of a column at `rank`, 0 being the least, by looking ever closer."""
    below = 0
    while low < high:
        count, width = histogram(path, column, low, high)
        total = below + np.cumsum(count)
        place = int(np.searchsorted(total, rank, side="right"))
        below = int(total[place] - count[place])
        low, high = low + place * width, min(high, low + (place + 1) * width - 1)
    return low


def edges(path: Path, column: str, low: int, high: int, buckets: int) -> Ints:
    """(buckets - 1,) values that cut a column into parts of much the same size."""
    count, width = histogram(path, column, low, high)
    total = np.cumsum(count)
    ranks = total[-1] * np.arange(1, buckets) // buckets
    return np.unique(low + (np.searchsorted(total, ranks, side="right") + 1) * width)

"""The row groups of many files in one numbering, and a reader of their rows in bounded memory.

G row groups, F files.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.fs as pafs

from mmrec.errors import InputError
from mmrec.io.parquet import Array, Column, Ints
from mmrec.io.sources import READ_ERRORS, Source, reason_of
from mmrec.stream.decode import TensorColumn, decode
from mmrec.stream.partition import GroupRows

_BIG_GROUP = 4 << 20  # bytes from which a row group is read bit by bit instead of whole
_DECODED_BYTES = 1 << 19  # decoded at a time: what stays in the cache
_DECODED_ROWS = 8192


@dataclass(frozen=True)
class RowGroups:
    """All row groups of all files, in reading order.

    Attributes:
        sources: the files.
        columns: what is read of them.
        file_of: (G,) the file of each row group.
        group_in_file: (G,) its number there.
        first_row: (G,) number in its file of its first row.
        file_start: (F,) number over all files of each file's first row.
        physical: (G,) its rows in the file.
        sizes: (G,) its rows that pass the filter; the same as `physical` without one.
        keep: for each row group the packed bits of the rows that pass; empty without a filter.
        checksums: verify page checksums where a file has them.
    """

    sources: Sequence[Source]
    columns: Sequence[TensorColumn]
    file_of: Ints
    group_in_file: Ints
    first_row: Ints
    file_start: Ints
    physical: Ints
    sizes: Ints
    keep: Sequence[npt.NDArray[np.uint8]] = field(repr=False)
    checksums: bool

    @classmethod
    def of(
        cls,
        sources: Sequence[Source],
        columns: Sequence[TensorColumn],
        row_filter: Any,
        checksums: bool,
    ) -> RowGroups:
        """Number the row groups; a filter (a pyarrow expression) is evaluated here, once."""
        counts = [len(source.group_rows) for source in sources]
        file_of = np.repeat(np.arange(len(sources)), counts)
        physical = np.array([n for s in sources for n in s.group_rows], dtype=np.int64)
        file_rows = np.array([source.num_rows for source in sources])
        file_start = np.cumsum(file_rows) - file_rows
        sizes, keep = physical, []
        if row_filter is not None:
            bits = [part for source in sources for part in _kept_rows(source, row_filter)]
            sizes = np.array([part.sum() for part in bits], dtype=np.int64)
            keep = [np.packbits(part) for part in bits]
        return cls(
            sources=sources,
            columns=columns,
            file_of=file_of,
            group_in_file=np.concatenate([np.arange(n) for n in counts]),
            first_row=np.cumsum(physical) - physical - file_start[file_of],
            file_start=file_start,
            physical=physical,
            sizes=sizes,
            keep=keep,
            checksums=checksums,
        )

    @property
    def num_rows(self) -> int:
        """Rows that pass the filter."""
        return int(self.sizes.sum())

    def kept(self, group: int) -> Ints | None:
        """Which rows of the row group pass the filter; None when there is none."""
        if not self.keep:
            return None
        bits = np.unpackbits(self.keep[group], count=int(self.physical[group]))
        return np.flatnonzero(bits)

    def arrays(self, rows: int) -> dict[str, Array]:
        """Empty arrays for `rows` rows of every column, and of the row numbers."""
        arrays: dict[str, Array] = {"row": np.empty(rows, dtype=np.int64)}
        for column in self.columns:
            shape = (rows,) if column.width is None else (rows, column.width)
            arrays[column.name] = np.empty(shape, dtype=column.stored)
        return arrays

    def decoded_rows(self) -> int:
        """Rows to decode at a time, a power of two: at most about 512 KiB of them."""
        row_bytes = sum((c.width or 1) * c.stored.itemsize for c in self.columns)
        rows = int(np.clip(_DECODED_BYTES // max(1, row_bytes), 256, _DECODED_ROWS))
        return 1 << (rows.bit_length() - 1)


def _kept_rows(source: Source, row_filter: Any) -> list[npt.NDArray[np.bool_]]:
    """One mask for each row group of the file; reads only the columns of the filter."""
    filesystem = source.filesystem
    if filesystem is not None:
        filesystem = pafs.PyFileSystem(pafs.FSSpecHandler(filesystem))
    try:
        import pyarrow.dataset as ds  # loads pandas where it is installed

        data = ds.dataset(source.location, filesystem=filesystem, format="parquet")
        if source.partition:
            found = [ds.field(name) == value for name, value in source.partition]
            fragment = data.format.make_fragment(
                source.location, data.filesystem, functools.reduce(operator.and_, found)
            )
            data = ds.FileSystemDataset([fragment], source.schema, data.format, data.filesystem)
        scanner = data.scanner(columns={"keep": row_filter}, use_threads=False, batch_readahead=1)
        kind = scanner.projected_schema.field(0).type
        if kind != pa.bool_():
            raise ValueError(f"it gives {kind}, not one truth value a row")
        parts = [
            batch.column(0).fill_null(False).to_numpy(zero_copy_only=False)
            for batch in scanner.to_batches()
        ]
        mask = np.concatenate([np.zeros(0, dtype=np.bool_), *parts])
        if len(mask) != source.num_rows:
            raise ValueError(f"it gives {len(mask)} truth values for {source.num_rows} rows")
    except READ_ERRORS as error:
        raise InputError(
            f"the row filter {row_filter} cannot be applied to {source.path}: {reason_of(error)}"
        ) from None
    return np.split(mask, np.cumsum(source.group_rows)[:-1]) if source.group_rows else []


class RowReader:
    """Decodes rows of row groups into arrays; goes forward as long as the rows asked for do.

    Args:
        groups: what to read from.
        at_once: rows decoded at a time.
        prefix: only the first rows of row groups are wanted, so no more bytes are read than needed.
    """

    def __init__(
        self, groups: RowGroups, *, at_once: int | None = None, prefix: bool = False
    ) -> None:
        self._groups, self._prefix = groups, prefix
        self._at_once = at_once or groups.decoded_rows()
        self._names = [column.name for column in groups.columns]
        self._file: Any = None
        self._opened: tuple[int, bool] | None = None  # which file, and whether buffered
        self._close_group()

    def _close_group(self) -> None:
        self._group = -1
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._batch: Any = None  # what is being decoded
        self._rows: Ints = np.zeros(0, dtype=np.int64)  # numbers in the file of the batch's rows
        self._low = self._high = 0  # the batch's rows, counted over the group's rows that pass
        self._next_row = 0  # number in the file of the row after the batch
        self._kept: Ints | None = None  # numbers in the file of the group's rows that pass

    def steps(
        self, wanted: Iterable[GroupRows], arrays: dict[str, Array], at: int
    ) -> Iterator[int]:
        """Fill the arrays from position `at` on with the wanted rows, some at a time: how many."""
        for group, start, last in wanted:
            if group != self._group or start < self._low:
                self._open(group)
            while start < last:
                while self._high <= start:
                    self._next_batch()
                stop = min(last, self._high)
                self._copy(start, stop, arrays, at)
                yield stop - start
                at += stop - start
                start = stop
            if self._high >= int(self._groups.sizes[group]) == last:
                self._close_group()

    def close(self) -> None:
        """Let go of the open file and what was decoded of it."""
        self._close_group()
        if self._file is not None:
            self._file.close(force=True)
        self._file = self._opened = None

    def _open(self, group: int) -> None:
        groups = self._groups
        self._close_group()
        index, number = int(groups.file_of[group]), int(groups.group_in_file[group])
        source = groups.sources[index]
        big = source.metadata.row_group(number).total_byte_size > _BIG_GROUP
        if self._opened != (index, self._prefix or big):
            self.close()
            self._file = source.open(buffered=self._prefix or big, checksums=groups.checksums)
            self._opened = index, self._prefix or big
        self._batches = source.read(
            self._names,
            groups=[number],
            rows=self._at_once,
            file=self._file,
            checksums=groups.checksums,
            threads=False,
        )
        self._group, self._next_row = group, int(groups.first_row[group])
        kept = groups.kept(group)
        self._kept = None if kept is None else kept + self._next_row

    def _next_batch(self) -> None:
        batch = next(self._batches)  # there is one: the source refuses a row group that ends early
        first, self._next_row = self._next_row, self._next_row + batch.num_rows
        self._low = self._high
        if self._kept is None:
            self._rows = np.arange(first, self._next_row, dtype=np.int64)
        else:
            until = int(np.searchsorted(self._kept, self._next_row))
            self._rows = self._kept[self._low : until]
            batch = batch.take(pa.array(self._rows - first))
        self._batch = batch
        self._high = self._low + len(self._rows)

    def _copy(self, start: int, stop: int, arrays: dict[str, Array], at: int) -> None:
        groups, first, count = self._groups, start - self._low, stop - start
        file = int(groups.file_of[self._group])
        rows = self._rows[first : first + count]
        np.add(rows, groups.file_start[file], out=arrays["row"][at : at + count])
        for column in groups.columns:
            array = self._batch.column(column.name).slice(first, count)
            read = Column(groups.sources[file].path, column.name, rows, array)
            decode(read, column, arrays[column.name][at : at + count])

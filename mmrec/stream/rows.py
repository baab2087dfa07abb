"""Row groups of many files as one table, and a reader of pieces of it in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.fs as pafs
import torch

from mmrec.errors import InputError
from mmrec.stream.decode import Array, BadColumn, Column, decode
from mmrec.stream.partition import Ints, Piece
from mmrec.stream.ring import Layout
from mmrec.stream.sources import READ_ERRORS, Source

_BIG_GROUP = 4 << 20  # bytes from which a row group is read bit by bit instead of whole
_FRAGMENT_BYTES = 1 << 19  # decoded at a time: what stays in the cache
_FRAGMENT_ROWS = 8192


@dataclass
class Reads:
    """What one process has read: row groups opened, and rows decoded of them."""

    row_groups: int = 0
    rows: int = 0


@dataclass(frozen=True)
class Table:
    """All row groups of all files, in reading order.

    Attributes:
        sources: the files.
        columns: what is read of them.
        file_of: (G,) the file of each row group.
        group_in_file: (G,) its number there.
        first_row: (G,) global number of its first row.
        physical: (G,) its rows in the file.
        sizes: (G,) its rows that pass the filter; the same as `physical` without one.
        keep: for each row group the packed bits of the rows that pass; empty without a filter.
        checksums: verify page checksums where a file has them.
        layout: the tensors of a batch; "row" is one of them.
    """

    sources: tuple[Source, ...]
    columns: tuple[Column, ...]
    file_of: Ints
    group_in_file: Ints
    first_row: Ints
    physical: Ints
    sizes: Ints
    keep: tuple[npt.NDArray[np.uint8], ...] = field(repr=False)
    checksums: bool
    layout: Layout

    @classmethod
    def of(
        cls, sources: Iterable[Source], columns: Iterable[Column], row_filter: Any, checksums: bool
    ) -> Table:
        """Lay the row groups out; a filter (a pyarrow expression) is evaluated here, once."""
        sources, columns = tuple(sources), tuple(columns)
        physical = np.array([n for s in sources for n in s.group_rows], dtype=np.int64)
        counts = [len(s.group_rows) for s in sources]
        keep: tuple[npt.NDArray[np.uint8], ...] = ()
        sizes = physical
        if row_filter is not None:
            bits = [part for source in sources for part in _kept_rows(source, row_filter)]
            sizes = np.array([int(part.sum()) for part in bits], dtype=np.int64)
            keep = tuple(np.packbits(part) for part in bits)
        return cls(
            sources=sources,
            columns=columns,
            file_of=np.repeat(np.arange(len(sources)), counts),
            group_in_file=np.concatenate([np.arange(n) for n in counts]).astype(np.int64),
            first_row=np.cumsum(physical) - physical,
            physical=physical,
            sizes=sizes,
            keep=keep,
            checksums=checksums,
            layout=Layout(_scalars(columns), _lists(columns)),
        )

    @property
    def num_rows(self) -> int:
        return int(self.sizes.sum())

    def kept(self, group: int) -> Ints | None:
        """Which rows of the row group pass the filter; None when there is none."""
        if not self.keep:
            return None
        bits = np.unpackbits(self.keep[group], count=int(self.physical[group]))
        return np.flatnonzero(bits)

    def blocks(self, rows: int) -> dict[str, Array]:
        """Empty buffers for `rows` rows of every column, and of the row numbers."""
        blocks: dict[str, Array] = {"row": np.empty(rows, dtype=np.int64)}
        for column in self.columns:
            shape = (rows,) if column.width is None else (rows, column.width)
            blocks[column.name] = np.empty(shape, dtype=column.stored)
        return blocks

    def fragment_rows(self) -> int:
        """Rows decoded at a time, a power of two, so that a fragment is at most about 512 KiB."""
        row_bytes = sum((c.width or 1) * c.stored.itemsize for c in self.columns)
        rows = int(np.clip(_FRAGMENT_BYTES // max(1, row_bytes), 256, _FRAGMENT_ROWS))
        return 1 << (rows.bit_length() - 1)


def _torch_type(column: Column) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, column.out.name)
    return dtype


def _scalars(columns: Iterable[Column]) -> tuple[tuple[torch.dtype, tuple[str, ...]], ...]:
    names: dict[torch.dtype, list[str]] = {torch.int64: ["row"]}
    for column in columns:
        if column.width is None:
            names.setdefault(_torch_type(column), []).append(column.name)
    return tuple((dtype, tuple(of_type)) for dtype, of_type in names.items())


def _lists(columns: Iterable[Column]) -> tuple[tuple[torch.dtype, str, int], ...]:
    return tuple((_torch_type(c), c.name, c.width) for c in columns if c.width is not None)


def _kept_rows(source: Source, row_filter: Any) -> list[npt.NDArray[np.bool_]]:
    """One mask for each row group of the file; reads only the columns of the filter."""
    filesystem = source.filesystem
    if filesystem is not None:
        filesystem = pafs.PyFileSystem(pafs.FSSpecHandler(filesystem))
    try:
        import pyarrow.dataset as ds  # loads pandas where it is installed

        data = ds.dataset(source.location, filesystem=filesystem, format="parquet")
        scanner = data.scanner(columns={"keep": row_filter}, use_threads=False, batch_readahead=1)
        kind = scanner.projected_schema.field(0).type
        if kind != pa.bool_():
            raise ValueError(f"it gives {kind}, not one truth value a row")
        parts = [
            batch.column(0).fill_null(False).to_numpy(zero_copy_only=False)
            for batch in scanner.to_batches()
        ]
    except READ_ERRORS as error:
        raise InputError(
            f"the row filter {row_filter} cannot be applied to {source.path}: {error}"
        ) from None
    mask = np.concatenate([np.zeros(0, dtype=np.bool_), *parts])
    if len(mask) != source.num_rows:
        raise InputError(
            f"a row filter must give one truth value a row, but {row_filter} gives "
            f"{len(mask)} for the {source.num_rows} rows of {source.path}"
        )
    return np.split(mask, np.cumsum(source.group_rows)[:-1]) if source.group_rows else []


class Buffers:
    """Blocks of rows that are used again by the next epoch instead of being allocated anew."""

    def __init__(self) -> None:
        self._spare: list[dict[str, Array]] = []

    def take(self, table: Table, rows: int) -> dict[str, Array]:
        """Blocks for at least `rows` rows."""
        while self._spare:
            blocks = self._spare.pop()
            if len(blocks["row"]) >= rows:
                return blocks
        return table.blocks(rows)

    def give_back(self, blocks: dict[str, Array]) -> None:
        """Keep the blocks for the next `take`."""
        self._spare[:] = [blocks]

    def __reduce__(self) -> tuple[type[Buffers], tuple[()]]:
        return Buffers, ()  # other processes have their own


class RowReader:
    """Reads pieces of row groups into blocks; goes on where it stands when a piece follows.

    Args:
        table: what to read from.
        fragment: rows decoded at a time.
        prefix: only the first rows of row groups are wanted, so no more bytes are read than needed.
    """

    def __init__(self, table: Table, *, fragment: int | None = None, prefix: bool = False) -> None:
        self.reads = Reads()
        self._table, self._prefix = table, prefix
        self._fragment = fragment or table.fragment_rows()
        self._names = [column.name for column in table.columns]
        self._file: Any = None
        self._file_key: tuple[int, bool] | None = None
        self._close_group()

    def _close_group(self) -> None:
        self._group = -1
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._batch: pa.RecordBatch | None = None
        self._rows: Ints = np.zeros(0, dtype=np.int64)  # physical numbers of the fragment's rows
        self._low = self._high = 0  # the fragment's rows, counted over the rows that pass
        self._decoded = 0
        self._kept: Ints | None = None

    def read(self, pieces: Iterable[Piece], blocks: dict[str, Array], at: int = 0) -> None:
        """Fill the blocks from position `at` on with the pieces' rows."""
        for _ in self.steps(pieces, blocks, at):
            pass

    def steps(
        self, pieces: Iterable[Piece], blocks: dict[str, Array], at: int = 0
    ) -> Iterator[int]:
        """As `read`, a fragment at a time; yields the rows of each."""
        for piece in pieces:
            if piece.group != self._group or piece.start < self._low:
                self._open(piece.group)
            start = piece.start
            while start < piece.stop:
                while self._high <= start:
                    self._next_fragment()
                stop = min(piece.stop, self._high)
                self._copy(start, stop, blocks, at)
                yield stop - start
                at += stop - start
                start = stop
            if self._high >= int(self._table.sizes[piece.group]) == piece.stop:
                self._close_group()

    def close(self) -> None:
        """Let go of the open file and what was decoded of it."""
        self._close_group()
        self._close_file()

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close(force=True)
        self._file = self._file_key = None

    def _open(self, group: int) -> None:
        table = self._table
        self._close_group()
        index = int(table.file_of[group])
        source, number = table.sources[index], int(table.group_in_file[group])
        source.check_unchanged()
        big = source.metadata.row_group(number).total_byte_size > _BIG_GROUP
        key = (index, self._prefix or big)
        self._group, self._kept = group, table.kept(group)
        try:
            if self._file_key != key:
                self._close_file()
                self._file = source.open(buffered=key[1], checksums=table.checksums)
                self._file_key = key
            self._batches = self._file.iter_batches(
                batch_size=self._fragment,
                row_groups=[number],
                columns=self._names,
                use_threads=False,
            )
        except READ_ERRORS as error:
            raise self._failure(error) from None
        self.reads.row_groups += 1

    def _next_fragment(self) -> None:
        physical = int(self._table.physical[self._group])
        try:
            batch = next(self._batches, None)
        except READ_ERRORS as error:
            raise self._failure(error) from None
        first, last = self._decoded, self._decoded + (batch.num_rows if batch is not None else 0)
        if batch is None or last > physical:
            raise self._failure(ValueError(f"{last} rows where the footer says {physical}"))
        self._decoded = last
        self.reads.rows += batch.num_rows
        self._low = self._high
        if self._kept is None:
            self._rows = np.arange(first, last, dtype=np.int64)
        else:
            until = int(np.searchsorted(self._kept, last))
            self._rows = self._kept[self._low : until]
            batch = batch.take(pa.array(self._rows - first))
        self._batch = batch
        self._high = self._low + len(self._rows)

    def _copy(self, start: int, stop: int, blocks: dict[str, Array], at: int) -> None:
        assert self._batch is not None
        first, count = start - self._low, stop - start
        rows = self._rows[first : first + count]
        np.add(rows, self._table.first_row[self._group], out=blocks["row"][at : at + count])
        for column in self._table.columns:
            array = self._batch.column(column.name).slice(first, count)
            try:
                decode(column, array, blocks[column.name][at : at + count])
            except BadColumn as bad:
                where = f", row {int(rows[bad.row])} of it" if bad.row is not None else ""
                raise InputError(
                    f"{self._place()}{where}, column {column.name!r}: {bad.reason}"
                ) from None

    def _place(self) -> str:
        table = self._table
        path = table.sources[int(table.file_of[self._group])].path
        return f"{path}: row group {int(table.group_in_file[self._group])}"

    def _failure(self, error: BaseException) -> InputError:
        """Find the column that cannot be read, by reading each alone."""
        table, reason = self._table, " ".join(str(error).split()) or type(error).__name__
        source = table.sources[int(table.file_of[self._group])]
        number = int(table.group_in_file[self._group])
        for name in self._names:
            try:
                batches = source.read_group(
                    number, [name], rows=self._fragment, checksums=table.checksums
                )
                if sum(batch.num_rows for batch in batches) != source.group_rows[number]:
                    raise ValueError("another number of rows than the footer says")
            except READ_ERRORS as alone:
                reason = " ".join(str(alone).split()) or type(alone).__name__
                return InputError(f"{self._place()}, column {name!r} cannot be read: {reason}")
        return InputError(f"{self._place()} cannot be read: {reason}")

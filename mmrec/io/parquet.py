"""Parquet columns as numpy arrays, whichever list type and number width the writer chose.

Every complaint is one sentence: the rule, what arrived, and the file, column and row (counted
from 0). Files are read in runs of rows, so memory does not grow with the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmrec.errors import InputError

types = pa.types

RUN = 8_192  # rows read at a time: 6.5 MB of int64 histories of length 100
FLOAT16_MAX = 65_504.0

Array = NDArray[Any]


def is_list(kind: pa.DataType) -> bool:
    """Whether `kind` is one of the three list types that parquet files come with."""
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind))


@dataclass(frozen=True)
class Kind:
    """What a column must hold: a name for the user and a test on the arrow type."""

    name: str
    accepts: Callable[[pa.DataType], bool]


INTEGER = Kind("integers", types.is_integer)
NUMBER = Kind("numbers", _is_number)
BOOLEAN = Kind("booleans", types.is_boolean)
TEXT = Kind("strings", _is_text)
INTEGERS = Kind("lists of integers", lambda t: is_list(t) and types.is_integer(t.value_type))
VECTOR = Kind("lists of floats", lambda t: is_list(t) and types.is_floating(t.value_type))


@dataclass(frozen=True)
class Column:
    """A run of consecutive rows of one column, and where it stands in which file."""

    path: Path
    name: str
    start: int
    array: pa.Array

    def refuse(self, index: int, rule: str, got: object) -> NoReturn:
        """Raise the sentence for the row at `index` of this run."""
        row = self.start + index
        raise InputError(f"{rule}, got {got} in {self.path}, column {self.name}, row {row}")

    def refuse_where(self, bad: Array, rule: str) -> None:
        """Raise for the first True of `bad` (rows,), showing the value; otherwise do nothing."""
        if bad.any():
            index = int(np.argmax(bad))
            self.refuse(index, rule, self.array[index].as_py())

    def refuse_null(self, rule: str = "every value must be there") -> None:
        """Raise for the first null."""
        if self.array.null_count:
            self.refuse(int(np.argmax(self.array.is_null().to_numpy(False))), rule, "null")

    def numbers(self) -> Array:
        """(rows,) in the file's own width; no nulls."""
        self.refuse_null()
        return np.asarray(self.array.to_numpy(zero_copy_only=False))

    def lists(self) -> tuple[Array, NDArray[np.int64]]:
        """All values end to end, and each row's length; neither lists nor values may be null."""
        self.refuse_null()
        lengths = np.asarray(pc.list_value_length(self.array)).astype(np.int64)
        values = self.array.flatten()
        if values.null_count:
            first = int(np.argmax(values.is_null().to_numpy(False)))
            self.refuse(row_of(first, lengths), "every value of a list must be there", "null")
        return np.asarray(values.to_numpy(zero_copy_only=False)), lengths

    def vectors(self, width: int | None, present: Array | None = None) -> Array:
        """(rows, width) vectors, finite and within float16; zeros where `present` is False.

        `width=None` takes the width of the first present row. Where `present` is False the file
        may hold anything, null included.
        """
        wanted = np.ones(len(self.array), dtype=np.bool_) if present is None else present
        rows = np.flatnonzero(wanted)
        absent = self.array.is_null().to_numpy(False)[rows]
        if absent.any():
            first = int(rows[np.argmax(absent)])
            self.refuse(first, "a vector that is not marked absent must be there", "null")
        # A null row counts as an empty list: `flatten` leaves its values out.
        lengths = np.asarray(pc.list_value_length(self.array).fill_null(0)).astype(np.int64)
        if width is None:
            width = int(lengths[rows[0]]) if len(rows) else 0
        odd = lengths[rows] != width
        if odd.any():
            first = int(rows[np.argmax(odd)])
            rule = f"all vectors of a column have one width, here {width}"
            self.refuse(first, rule, f"width {lengths[first]}")
        values = self.array.flatten()
        kept = np.repeat(wanted, lengths)
        if values.null_count:
            holes = np.flatnonzero(values.is_null().to_numpy(False)[kept])
            if holes.size:
                first = int(rows[holes[0] // width])
                self.refuse(first, "every value of a vector must be there", "null")
        vectors = np.asarray(values.to_numpy(zero_copy_only=False))[kept].reshape(len(rows), width)
        # NaN fails every comparison, and infinity is larger than any bound.
        fits = np.abs(vectors) <= FLOAT16_MAX
        if not fits.all():
            index, position = np.unravel_index(int(np.argmin(fits)), fits.shape)
            rule = f"vectors hold finite numbers up to {FLOAT16_MAX:.0f} (float16)"
            got = f"{vectors[index, position]} at position {position}"
            self.refuse(int(rows[index]), rule, got)
        out = np.zeros((len(self.array), width), dtype=np.float16)
        out[rows] = vectors
        return out


def row_of(position: int, lengths: NDArray[np.int64]) -> int:
    """Which list holds the value at `position` of the values laid end to end.

    >>> row_of(2, np.array([2, 0, 3]))
    2
    """
    return int(np.searchsorted(np.cumsum(lengths), position, side="right"))


def left_pad(values: Array, lengths: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Lists laid end to end as a (rows, width) matrix, each flush right; the newest are kept.

    >>> left_pad(np.array([7, 8, 9]), np.array([1, 0, 2]), 2)
    array([[0, 7],
           [0, 0],
           [8, 9]])
    """
    ends = np.cumsum(lengths)
    row = np.repeat(np.arange(len(lengths)), lengths)
    from_right = np.repeat(ends, lengths) - np.arange(len(values))  # 1 for the last of a list
    out = np.zeros((len(lengths), width), dtype=np.int64)
    kept = from_right <= width
    out[row[kept], width - from_right[kept]] = values[kept]
    return out


def first_repeat(ids: Array) -> int | None:
    """The first place whose value stood earlier already, or None.

    >>> first_repeat(np.array([4, 7, 4, 7]))
    2
    """
    order = np.argsort(ids, kind="stable")
    again = np.flatnonzero(ids[order][1:] == ids[order][:-1])
    return int(order[again + 1].min()) if again.size else None


def open_parquet(
    path: Path,
    columns: Mapping[str, Kind],
    *,
    optional: Mapping[str, Kind] | None = None,
    allow_empty: bool = False,
) -> pq.ParquetFile:
    """Open a file and check that it has these columns, of these kinds, and at least one row.

    `optional` columns may be missing, but if there are of the kind. Other columns are ignored.

    Raises:
        InputError: no such file, not parquet, a column missing, there twice or of a wrong type,
            or no rows (unless `allow_empty`).
    """
    if not path.exists():
        raise InputError(f"a parquet file is needed, there is none at {path}")
    if not path.is_file():
        raise InputError(f"a parquet file is needed, {path} is a directory or no regular file")
    try:
        # A buffered stream keeps memory flat also where one row group spans the whole file.
        file = pq.ParquetFile(path, buffer_size=1 << 20)
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"a parquet file is needed, {path} cannot be read as one: {error}"
        ) from None
    schema = file.schema_arrow
    for name, kind in {**columns, **(optional or {})}.items():
        places = schema.get_all_field_indices(name)
        if not places and name not in columns:
            continue
        if len(places) != 1:
            names = ", ".join(schema.names)
            rule = f"one column {name} is needed"
            raise InputError(f"{rule}, got {len(places)} among the columns of {path}: {names}")
        got = schema.field(places[0]).type
        if not kind.accepts(got):
            raise InputError(f"{kind.name} are needed, got {got} in {path}, column {name}")
    if file.metadata.num_rows == 0 and not allow_empty:
        raise InputError(f"at least one row is needed, there is none in {path}")
    return file


def runs(path: Path, file: pq.ParquetFile, columns: Iterable[str]) -> Iterator[dict[str, Column]]:
    """The named columns in file order, a run of rows at a time."""
    names = list(columns)
    start = 0
    try:
        for part in file.iter_batches(batch_size=RUN, columns=names):
            yield {name: Column(path, name, start, part.column(name)) for name in names}
            start += part.num_rows
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is damaged at or after row {start}: {error}") from None

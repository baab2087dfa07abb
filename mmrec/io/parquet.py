"""Parquet columns as numpy arrays, whichever list type and number width the writer chose.

Every complaint is one sentence: the rule, what arrived, and the file, column and row (counted
from 0). Files are read a batch of rows at a time, so memory does not grow with the file.
`sources.py` opens them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmrec.errors import InputError
from mmrec.io.files import replacing
from mmrec.io.paths import PathLike
from mmrec.io.sources import BATCH_ROWS, Source, open_source

types = pa.types

FLOAT16_MAX = 65_504.0
FLOAT32_MAX = float(np.finfo(np.float32).max)
GROUP_ROWS = 1 << 14  # of the files that we write
INT64_MAX = np.iinfo(np.int64).max

Array = NDArray[Any]
Ints = NDArray[np.int64]


def is_list(kind: pa.DataType) -> bool:
    """Whether `kind` is one of the three list types that parquet files come with."""
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def value_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values: of a list's, or of a dictionary's entries, or `kind` itself."""
    kind = kind.value_type if is_list(kind) else kind
    return kind.value_type if types.is_dictionary(kind) else kind


@dataclass(frozen=True)
class Kind:
    """What a column must hold: a name for the user and a test on the arrow type."""

    name: str
    accepts: Callable[[pa.DataType], bool]


def _is_number(kind: pa.DataType) -> bool:
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


INTEGER = Kind("integers", types.is_integer)
FLOAT = Kind("floats", types.is_floating)
NUMBER = Kind("numbers", _is_number)
BOOLEAN = Kind("booleans", types.is_boolean)
TEXT = Kind("strings", lambda t: types.is_string(t) or types.is_large_string(t))
KEY = Kind("integers or strings", lambda t: types.is_integer(t) or TEXT.accepts(t))
TIME = Kind("times", lambda t: types.is_temporal(t) or types.is_integer(t))
INTEGERS = Kind("lists of integers", lambda t: is_list(t) and types.is_integer(t.value_type))
NUMBERS = Kind("lists of numbers", lambda t: is_list(t) and _is_number(t.value_type))
VECTOR = Kind("lists of floats", lambda t: is_list(t) and types.is_floating(t.value_type))


def either(one: Kind, other: Kind) -> Kind:
    """A column of either kind."""
    return Kind(f"{one.name} or {other.name}", lambda t: one.accepts(t) or other.accepts(t))


def first_repeat(values: Array) -> int | None:
    """The first place of `values` (n,) whose value stood earlier already."""
    order = np.argsort(values, kind="stable")
    again = np.flatnonzero(values[order][1:] == values[order][:-1])
    return int(order[again + 1].min()) if again.size else None


@dataclass(slots=True)
class Column:
    """Some rows of one column, and where they stand in which file.

    Attributes:
        path: of the file, for messages.
        name: of the column.
        rows: number of each row in the file.
        array: the values.
    """

    path: PathLike
    name: str
    rows: Sequence[int] | Ints
    array: pa.Array

    def refuse(self, index: int, rule: str, got: object) -> NoReturn:
        """Raise the sentence for the row at `index` of these."""
        row = self.rows[index]
        raise InputError(f"{rule}, got {got} in {self.path}, column {self.name}, row {row}")

    def refuse_where(self, bad: Array, rule: str) -> None:
        """Raise for the first True of `bad` (rows,), showing the value; otherwise do nothing."""
        if bad.any():
            index = int(np.argmax(bad))
            self.refuse(index, rule, self.array[index].as_py())

    def refuse_null(self, rule: str = "every value must be there") -> None:
        """Raise for the first null."""
        if self.array.null_count:
            self.refuse(_first_null(self.array), rule, "null")

    def refuse_repeat(self, values: Array, rule: str) -> None:
        """Raise for the first of `values` (rows,), one a row, that stood earlier already."""
        again = first_repeat(values)
        if again is not None:
            self.refuse(again, rule, f"{self.array[again]} a second time")

    def numbers(self) -> Array:
        """(rows,) in the file's own width; no nulls, and nothing that int64 cannot hold."""
        self.refuse_null()
        return self._numbers(self.array, None)

    def lengths(self) -> Array:
        """(rows,) of each row's list; no nulls."""
        self.refuse_null()
        if isinstance(self.array, pa.FixedSizeListArray):
            return np.full(len(self.array), self.array.type.list_size)
        return np.diff(self.array.offsets.to_numpy())

    def floats(self) -> Array:
        """(rows,) float32; null becomes NaN, a missing number."""
        return self._floats(self.array, None)

    def lists(self, *, missing: bool = False) -> tuple[Array, Array]:
        """All values end to end, and each row's length; neither lists nor values may be null.

        `missing` allows null among the values, and gives them as float32 with NaN in its place.
        """
        lengths, array = self.lengths(), self.array
        if isinstance(array, pa.FixedSizeListArray):
            width = array.type.list_size
            values = array.values.slice(array.offset * width, len(array) * width)
        else:
            offsets = array.offsets.to_numpy()
            values = array.values.slice(offsets[0], offsets[-1] - offsets[0])
        return (self._floats if missing else self._numbers)(values, lengths), lengths

    def _numbers(self, values: pa.Array, lengths: Array | None) -> Array:
        if isinstance(values, pa.DictionaryArray):
            values = values.dictionary_decode()
        if values.null_count:
            self._refuse_at(_first_null(values), lengths, "every value of a list must be there")
        numbers: Array = values.to_numpy(zero_copy_only=False)
        if numbers.dtype == np.uint64 and numbers.size and numbers.max() > INT64_MAX:
            first = int(np.argmax(numbers > INT64_MAX))
            self._refuse_at(first, lengths, f"integers are at most {INT64_MAX}", numbers[first])
        if numbers.dtype == np.float64:
            self._refuse_large(numbers, lengths, finite=True)
        return numbers

    def _floats(self, values: pa.Array, lengths: Array | None) -> Array:
        if isinstance(values, pa.DictionaryArray):
            values = values.dictionary_decode()
        wide = values.cast(pa.float64(), safe=False) if values.null_count else values
        numbers = np.asarray(wide.to_numpy(zero_copy_only=False))
        if numbers.dtype != np.float64:
            return numbers.astype(np.float32, copy=False)
        self._refuse_large(numbers, lengths, finite=False)
        return numbers.astype(np.float32)

    def _refuse_large(self, numbers: Array, lengths: Array | None, *, finite: bool) -> None:
        """Refuse what float32 would make infinite; with `finite` not what is so already."""
        large = np.abs(numbers) > FLOAT32_MAX
        if finite and large.any():
            large &= np.isfinite(numbers)
        if large.any():
            first = int(np.argmax(large))
            rule = f"numbers lie within float32, {FLOAT32_MAX:.3g} at most"
            self._refuse_at(first, lengths, rule, numbers[first])

    def _refuse_at(
        self, position: int, lengths: Array | None, rule: str, got: object = "null"
    ) -> NoReturn:
        self.refuse(position if lengths is None else row_of(position, lengths), rule, got)

    def vectors(self, width: int | None, present: Array) -> Array:
        """(rows, width) vectors, finite and within float16; zeros where `present` is False.

        `width=None` takes the width of the first present row. Where `present` is False the file
        may hold anything, null included.
        """
        kept, wanted = self, np.flatnonzero(present)
        if len(wanted) < len(present):
            rows = np.asarray(self.rows)[wanted]
            kept = Column(self.path, self.name, rows, self.array.take(pa.array(wanted)))
        kept.refuse_null("a vector that is not marked absent must be there")
        values, lengths = kept.lists()
        width = int(lengths[0] if len(lengths) else 0) if width is None else width
        if len(lengths) and not width:
            kept.refuse(0, "a vector that is not marked absent holds a number or more", "none")
        odd = lengths != width
        if odd.any():
            first = int(np.argmax(odd))
            rule = f"all vectors of a column have one width, here {width}"
            kept.refuse(first, rule, f"width {lengths[first]}")
        vectors = values.reshape(len(wanted), width)
        # NaN fails every comparison, and infinity is larger than any bound.
        fits = np.abs(vectors) <= FLOAT16_MAX
        if not fits.all():
            index, position = np.unravel_index(int(np.argmin(fits)), fits.shape)
            rule = f"vectors hold finite numbers up to {FLOAT16_MAX:.0f} (float16)"
            kept.refuse(int(index), rule, f"{vectors[index, position]} at position {position}")
        out = np.zeros((len(present), width), dtype=np.float16)
        out[wanted] = vectors
        return out


def _first_null(array: pa.Array) -> int:
    return int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))


def row_of(position: int, lengths: Array) -> int:
    """Which list holds the value at `position` of the values laid end to end.

    >>> row_of(2, np.array([2, 0, 3]))
    2
    """
    return int(np.searchsorted(np.cumsum(lengths), position, side="right"))


def left_pad(
    values: Array, lengths: Array, width: int, out: Array | None = None, *, pad: int = 0
) -> Array:
    """Lists laid end to end as a (rows, width) matrix, each flush right; the newest are kept.

    Args:
        values: of all lists.
        lengths: (rows,) of each.
        width: of the matrix.
        out: the matrix to fill; by default a new one of int64.
        pad: what stands where there is no value.

    >>> left_pad(np.array([7, 8, 9]), np.array([1, 0, 2]), 2)
    array([[0, 7],
           [0, 0],
           [8, 9]])
    """
    if out is None:
        out = np.empty((len(lengths), width), dtype=np.int64)
    if len(lengths) and bool((lengths == lengths[0]).all()):
        length = int(lengths[0])
        free = max(0, width - length)
        out[:, :free] = pad
        out[:, free:] = values.reshape(len(lengths), length)[:, max(0, length - width) :]
        return out
    if bool((lengths > width).any()):
        from_right = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(values))
        values = values[from_right <= width]  # 1 for the last of a list
    out[...] = pad
    out[np.arange(width) >= (width - np.minimum(lengths, width))[:, None]] = values
    return out


def column_type(source: Source, name: str) -> pa.DataType:
    """The type of a column that must be there, once.

    Raises:
        InputError: it is not, or several times.
    """
    schema = source.schema
    places = schema.get_all_field_indices(name)
    if len(places) != 1:
        raise InputError(
            f"one column {name} is needed, got {len(places)} among the columns of "
            f"{source.path}: {', '.join(schema.names)}"
        )
    return schema.field(places[0]).type


def open_parquet(
    path: PathLike,
    columns: Mapping[str, Kind],
    *,
    optional: Mapping[str, Kind] | None = None,
    allow_empty: bool = False,
) -> Source:
    """Open a file and check that it has these columns, of these kinds, and at least one row.

    `optional` columns may be missing, but if there are of the kind. Other columns are ignored.

    Raises:
        InputError: no such file, not parquet, a column missing, there twice or of a wrong type,
            or no rows (unless `allow_empty`).
    """
    source = open_source(path)
    found = {name: kind for name, kind in (optional or {}).items() if name in source.schema.names}
    for name, kind in {**columns, **found}.items():
        got = column_type(source, name)
        if not kind.accepts(got):
            raise InputError(f"{kind.name} are needed, got {got} in {path}, column {name}")
    if not source.num_rows and not allow_empty:
        raise InputError(f"at least one row is needed, there is none in {path}")
    return source


def read_columns(source: Source, names: Iterable[str]) -> Iterator[dict[str, Column]]:
    """The named columns in file order, a batch of rows at a time."""
    names, start = list(names), 0
    for batch in source.read(names, rows=BATCH_ROWS):
        rows = range(start, start + batch.num_rows)
        yield {name: Column(source.path, name, rows, batch.column(name)) for name in names}
        start = rows.stop


def read_numbers(source: Source, name: str) -> Array:
    """A whole column of numbers, without nulls: (rows,) in the file's own width."""
    return np.concatenate([columns[name].numbers() for columns in read_columns(source, [name])])


def as_lists(matrix: Array) -> pa.Array:
    """(rows, width) as a list column; float16 as fixed-size lists."""
    flat = pa.array(matrix.ravel())
    if matrix.dtype == np.float16:
        return pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1])
    offsets = np.arange(len(matrix) + 1, dtype=np.int32) * np.int32(matrix.shape[1])
    return pa.ListArray.from_arrays(pa.array(offsets), flat)


def write_parquet(path: PathLike, table: pa.Table) -> Path:
    """Write a table, whole or not at all, in row groups small enough to be shuffled well."""
    with replacing(path) as temporary:
        pq.write_table(table, temporary, row_group_size=GROUP_ROWS)
    return Path(path)

"""From Arrow columns to numpy blocks of fixed width, with no Python per row.

n rows, W list width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as types

from mmrec.errors import InputError
from mmrec.stream.sources import Source

Array = npt.NDArray[Any]


class BadColumn(ValueError):
    """A column holds what no tensor can; whoever reads adds file and row group.

    `row` counts from the beginning of the array, or is None.
    """

    def __init__(self, column: str, reason: str, row: int | None = None) -> None:
        super().__init__(reason)
        self.column, self.reason, self.row = column, reason, row


@dataclass(frozen=True)
class Column:
    """How one column becomes a tensor.

    Attributes:
        name: in the file.
        width: of a list column, None for a scalar one.
        exact: lists may have no other length than `width` (it was read from the file, not asked).
        stored: dtype of the window's buffer, the narrowest that holds every file's values.
        out: dtype of the tensor: int64, float32 or bool.
    """

    name: str
    width: int | None
    exact: bool
    stored: np.dtype[Any]
    out: np.dtype[Any]


def _value_type(dtype: pa.DataType) -> tuple[pa.DataType, bool]:
    """(type of the values, whether it is a list column)."""
    if types.is_dictionary(dtype):
        return _value_type(dtype.value_type)
    if types.is_list(dtype) or types.is_large_list(dtype) or types.is_fixed_size_list(dtype):
        return dtype.value_type, True
    return dtype, False


def _kind(dtype: pa.DataType) -> str | None:
    value, is_list = _value_type(dtype)
    if types.is_integer(value):
        kind = "integers"
    elif types.is_floating(value):
        kind = "floats"
    elif types.is_boolean(value):
        kind = "booleans"
    else:
        return None
    return f"lists of {kind}" if is_list else kind


def plan_columns(
    sources: Sequence[Source], names: Sequence[str] | None, widths: Mapping[str, int]
) -> list[Column]:
    """How each column is read, checked over all files.

    Raises:
        InputError: naming file and column, for an absent column, a type that is no tensor, or a
            file whose column is something else than the first file's.
    """
    first = sources[0]
    chosen = list(first.schema.names) if names is None else list(names)
    for name in widths:
        if name not in chosen:
            raise InputError(f"list_widths names the column {name!r}, which is not read: {chosen}")
    if "row" in chosen:
        raise InputError("the key 'row' holds the row numbers; leave out the column of that name")
    return [_plan_column(sources, name, widths.get(name)) for name in chosen]


def _plan_column(sources: Sequence[Source], name: str, width: int | None) -> Column:
    stored: np.dtype[Any] | None = None
    first_kind = None
    exact = False
    for source in sources:
        schema = source.schema
        if schema.get_field_index(name) < 0:
            raise InputError(
                f"every file must have the column {name!r}, but {source.path} has {schema.names}"
            )
        dtype = schema.field(name).type
        kind = _kind(dtype)
        if kind is None:
            raise InputError(
                f"a column must hold numbers, booleans or lists of them, but {name!r} of "
                f"{source.path} is {dtype}; leave it out with columns=[…]"
            )
        if first_kind not in (None, kind):
            raise InputError(
                f"files must agree on their columns, but {name!r} holds {first_kind} in "
                f"{sources[0].path} and {kind} in {source.path}"
            )
        first_kind = kind
        value, is_list = _value_type(dtype)
        if is_list and width is None:
            width, exact = _infer_width(source, name, dtype), True
        if not is_list and width is not None:
            raise InputError(f"list_widths names {name!r}, which holds {kind} in {source.path}")
        wide = np.dtype(np.int64) if types.is_uint64(value) else np.dtype(value.to_pandas_dtype())
        stored = wide if stored is None else np.promote_types(stored, wide)
    if stored is None or first_kind is None:
        raise InputError("at least one parquet file is needed, got none")
    if width is not None and width < 1:
        raise InputError(f"a list width must be at least 1, got {width} for {name!r}")
    if first_kind.endswith("integers"):
        out: np.dtype[Any] = np.dtype(np.int64)
    elif first_kind.endswith("floats"):
        out, stored = np.dtype(np.float32), min(stored, np.dtype(np.float32))
    else:
        out = np.dtype(np.bool_)
    return Column(name, width, exact, stored, out)


def _infer_width(source: Source, name: str, dtype: pa.DataType) -> int | None:
    """The width of a fixed-size list, or of the first row's list; None for a file without rows."""
    if types.is_fixed_size_list(dtype):
        return int(dtype.list_size)
    if source.num_rows == 0:
        return None
    group = next(g for g, rows in enumerate(source.group_rows) if rows)
    batch = next(source.read_group(group, [name], rows=1, checksums=False))
    value = batch.column(0)[0].as_py()
    return max(1, len(value)) if value is not None else None


def decode(column: Column, array: pa.Array, out: Array) -> None:
    """Write the array's n values into `out`, (n,) or (n, W): padded with 0, or cut, on the left.

    Raises:
        BadColumn: for a null, an unsigned value past int64, or a list of another length where
            the width was not asked for.
    """
    if isinstance(array, pa.DictionaryArray):
        array = array.dictionary_decode()
    if array.null_count:
        raise BadColumn(column.name, "a null", _first_true(array.is_null()))
    if column.width is None:
        np.copyto(out, _numbers(column, array), casting="unsafe")
        return
    if isinstance(array, pa.FixedSizeListArray):
        length = array.type.list_size
        values = _numbers(column, array.flatten(), length).reshape(len(array), length)  # (n, W')
        if column.exact and length != column.width:
            raise BadColumn(column.name, _wrong_length(length, column.width), 0)
        _align(values, out)
        return
    offsets = array.offsets.to_numpy()  # (n + 1,)
    begin, end = int(offsets[0]), int(offsets[-1])
    flat = array.values.slice(begin, end - begin)
    lengths = np.diff(offsets)
    if flat.null_count:
        at = _first_true(flat.is_null()) + begin
        row = int(np.searchsorted(offsets, at, side="right")) - 1
        raise BadColumn(column.name, "a null in a list", row)
    values = _numbers(column, flat)
    if len(lengths) and bool((lengths == lengths[0]).all()):
        length = int(lengths[0])
        if column.exact and length != column.width:
            raise BadColumn(column.name, _wrong_length(length, column.width), 0)
        _align(values.reshape(len(array), length), out)
        return
    if column.exact:
        row = int((lengths != column.width).argmax())
        raise BadColumn(column.name, _wrong_length(int(lengths[row]), column.width), row)
    _pad_ragged(values, offsets - begin, lengths, out)


def _pad_ragged(values: Array, offsets: Array, lengths: Array, out: Array) -> None:
    """Lists of different lengths, the last W values of each, at the right end of each row."""
    width = out.shape[1]
    kept = np.minimum(lengths, width)
    if bool((lengths > width).any()):
        skipped = np.repeat(offsets[:-1] + lengths - kept, lengths)  # first position kept, a value
        values = values[np.arange(len(values)) >= skipped]
    mask = np.arange(width) >= (width - kept)[:, None]  # (n, W)
    out[...] = 0
    out[mask] = values


def _align(values: Array, out: Array) -> None:
    """(n, any width) to (n, W): the right ends meet."""
    width, length = out.shape[1], values.shape[1]
    if length < width:
        out[:, : width - length] = 0
        out = out[:, width - length :]
    np.copyto(out, values[:, max(0, length - width) :], casting="unsafe")


def _numbers(column: Column, array: pa.Array, per_row: int = 1) -> Array:
    if array.null_count:
        raise BadColumn(column.name, "a null in a list", _first_true(array.is_null()) // per_row)
    values: Array = array.to_numpy(zero_copy_only=False)
    if values.dtype == np.uint64 and len(values) and int(values.max()) > np.iinfo(np.int64).max:
        at = int(values.argmax())
        raise BadColumn(column.name, f"{values[at]}, which int64 cannot hold", at // per_row)
    return values


def _first_true(mask: pa.Array) -> int:
    return int(mask.to_numpy(zero_copy_only=False).argmax())


def _wrong_length(length: int, width: int | None) -> str:
    return (
        f"a list of {length} where the first row has {width}; for lists of different lengths "
        "say how wide they shall be with list_widths={…}"
    )

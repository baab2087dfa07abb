"""From Arrow columns to numpy arrays of fixed width, with no Python per row.

n rows, W list width.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow.types as types

from mmrec.errors import InputError, positive
from mmrec.io.parquet import (
    BOOLEAN,
    FLOAT,
    INTEGER,
    Array,
    Column,
    Kind,
    column_type,
    is_list,
    left_pad,
    value_type,
)
from mmrec.io.sources import Source

Type: TypeAlias = "np.dtype[Any]"

_TENSOR_TYPES: Mapping[Kind, Type] = {
    INTEGER: np.dtype(np.int64),
    FLOAT: np.dtype(np.float32),
    BOOLEAN: np.dtype(np.bool_),
}


@dataclass(frozen=True)
class TensorColumn:
    """How one column becomes a tensor.

    Attributes:
        name: in the file.
        width: of a list column, None for a scalar one.
        exact: lists may have no other length than `width` (it was read from the file, not asked).
        stored: dtype of the window's arrays, the narrowest that holds every file's values.
        out: dtype of the tensor: int64, float32 or bool.
        pad: what stands in a list column where there is no value.
        missing: nulls are NaN.
    """

    name: str
    width: int | None
    exact: bool
    stored: Type
    out: Type
    pad: int = 0
    missing: bool = False


def plan_columns(
    sources: Sequence[Source],
    names: Sequence[str] | None,
    widths: Mapping[str, int],
    pads: Mapping[str, int],
    missing: Collection[str],
) -> list[TensorColumn]:
    """How each column is read, checked over all files.

    Raises:
        InputError: naming file and column, for an absent column, a type that is no tensor, or a
            file whose column is something else than the first file's.
    """
    chosen = list(sources[0].schema.names if names is None else names)
    for name in chosen:
        if not isinstance(name, str):
            raise InputError(f"columns are named by strings, got {name!r}")
    named = {"list_widths": widths, "pads": pads, "missing": missing}
    for option, name in ((option, name) for option, names in named.items() for name in names):
        if name not in chosen:
            raise InputError(f"{option} names the column {name!r}, which is not read: {chosen}")
    for name, width in widths.items():
        positive(**{f"list_widths of {name}": width})
    if "row" in chosen:
        raise InputError("the key 'row' holds the row numbers; leave out the column of that name")
    return [
        _plan_column(sources, name, widths.get(name), pads.get(name, 0), name in missing)
        for name in chosen
    ]


def _plan_column(
    sources: Sequence[Source], name: str, width: int | None, pad: int, missing: bool
) -> TensorColumn:
    planned = [_held(source, name) for source in sources]
    (held, out, _), first = planned[0], sources[0].path
    for source, (other, _, _) in zip(sources, planned, strict=True):
        if other != held and not missing:
            raise InputError(
                f"files must agree on their columns, but {name!r} holds {held} in {first} and "
                f"{other} in {source.path}"
            )
    listed = is_list(column_type(sources[0], name))
    exact = listed and width is None
    if exact:
        widths = (_first_width(source, name) for source in sources)
        width = next((found for found in widths if found is not None), None)
    elif width is not None and not listed:
        raise InputError(f"list_widths names {name!r}, which holds {held} in {first}")
    if width is not None and width < 1:
        raise InputError(f"a list width must be at least 1, got {width} for {name!r}")
    stored = np.result_type(*(stored for _, _, stored in planned))
    if missing:
        stored = out = np.dtype(np.float32)
    elif out.kind == "f":
        stored = min(stored, out)
    elif out.kind == "i" and not np.iinfo(stored).min <= pad <= np.iinfo(stored).max:
        stored = out
    return TensorColumn(name, width, exact, stored, out, pad, missing)


def _held(source: Source, name: str) -> tuple[str, Type, Type]:
    """What a file's column holds, in words; the tensor's type, and the narrowest to store it as."""
    kind = column_type(source, name)
    value = value_type(kind)
    for held, out in _TENSOR_TYPES.items():
        if held.accepts(value):
            stored = out if types.is_uint64(value) else np.dtype(value.to_pandas_dtype())
            return f"lists of {held.name}" if is_list(kind) else held.name, out, stored
    raise InputError(
        f"a column must hold numbers, booleans or lists of them, but {name!r} of {source.path} "
        f"is {kind}; leave it out with columns=[…]"
    )


def _first_width(source: Source, name: str) -> int | None:
    """The width of a fixed-size list, or of the first row's list; None for a file without rows."""
    kind = column_type(source, name)
    if types.is_fixed_size_list(kind):
        return int(kind.list_size)
    groups = [group for group, rows in enumerate(source.group_rows) if rows]
    if not groups:
        return None
    batch = next(source.read([name], groups=groups[:1], rows=1, checksums=False))
    first = batch.column(0)[0].as_py()
    return None if first is None else max(1, len(first))


def decode(column: Column, tensor: TensorColumn, out: Array) -> None:
    """Write the column's n values into `out`, (n,) or (n, W): padded with 0, or cut, on the left.

    Raises:
        InputError: for a null, an unsigned value past int64, or a list of another length where
            the width was not asked for.
    """
    if tensor.width is None:
        values = column.floats() if tensor.missing else column.numbers()
        np.copyto(out, values, casting="unsafe")
        return
    values, lengths = column.lists(missing=tensor.missing)
    if not tensor.exact:
        left_pad(values, lengths, tensor.width, out, pad=tensor.pad)
        return
    wrong = lengths != tensor.width
    if wrong.any():
        first = int(wrong.argmax())
        column.refuse(
            first,
            f"lists whose width is not asked for (list_widths={{…}}) are as long as the first "
            f"row's, here {tensor.width}",
            f"a list of {lengths[first]}",
        )
    np.copyto(out, values.reshape(out.shape), casting="unsafe")

"""How repack stores a column: the narrowest integers, lists of one width, no nulls declared.

What holds nulls, or no numbers, is left as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

from mmrec.stream.decode import BadColumn, Column, decode

_INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")


def smallest_integer(low: int, high: int) -> pa.DataType:
    """The narrowest integer type that holds low..high, signed where both are as narrow.

    >>> smallest_integer(0, 91717), smallest_integer(-1, 11), smallest_integer(0, 200)
    (DataType(int32), DataType(int8), DataType(uint8))
    """
    for name in _INTEGERS:
        bounds = np.iinfo(name)
        if bounds.min <= low and high <= bounds.max:
            return getattr(pa, name)()
    raise ValueError(f"no integer type holds {low}..{high}")


def is_list(dtype: pa.DataType) -> bool:
    return bool(
        types.is_list(dtype) or types.is_large_list(dtype) or types.is_fixed_size_list(dtype)
    )


@dataclass
class Survey:
    """What one pass over a column has seen."""

    nulls: bool = False
    low: int | None = None
    high: int | None = None
    shortest: int | None = None
    longest: int | None = None

    def add(self, array: pa.Array) -> None:
        """Take in the next values of the column."""
        self.nulls = self.nulls or array.null_count > 0
        values = array
        if is_list(array.type):
            lengths = pc.min_max(pc.list_value_length(array)).as_py()
            self.shortest = _merge(min, self.shortest, lengths["min"])
            self.longest = _merge(max, self.longest, lengths["max"])
            values = array.flatten()
            self.nulls = self.nulls or values.null_count > 0
        if types.is_integer(values.type):
            bounds = pc.min_max(values).as_py()
            self.low = _merge(min, self.low, bounds["min"])
            self.high = _merge(max, self.high, bounds["max"])


def _merge(choose: Any, a: int | None, b: int | None) -> int | None:
    return choose(a, b) if a is not None and b is not None else (b if a is None else a)


def stored_type(dtype: pa.DataType, survey: Survey, width: int | None) -> pa.DataType:
    """The type that a column is stored as.

    Args:
        dtype: its type now.
        survey: of all its values.
        width: asked for with list_widths; None keeps lists of different lengths as they are.
    """
    listed = is_list(dtype)
    value = dtype.value_type if listed else dtype
    if types.is_integer(value):
        low, high = survey.low or 0, survey.high or 0
        value = smallest_integer(min(low, 0) if width else low, max(high, 0) if width else high)
    if not listed:
        return value
    element = pa.field("element", value, nullable=False)
    if width is None and survey.shortest == survey.longest and survey.longest:
        width = survey.longest
    return pa.list_(element, width) if width else pa.list_(element)


def stored_schema(
    schema: pa.Schema, surveys: dict[str, Survey], widths: dict[str, int]
) -> pa.Schema:
    """The schema of the repacked files; columns with nulls keep their type."""
    fields = []
    for field in schema:
        survey = surveys[field.name]
        if survey.nulls:
            fields.append(field.with_metadata(None))
            continue
        dtype = stored_type(field.type, survey, widths.get(field.name))
        fields.append(pa.field(field.name, dtype, nullable=False))
    return pa.schema(fields)


def convert(array: pa.Array, field: pa.Field) -> pa.Array:
    """The same values as `field` stores them.

    Raises:
        BadColumn: when a value does not fit (the file changed since it was surveyed).
    """
    if array.type == field.type:
        return array
    try:
        if not is_list(field.type):
            return array.cast(field.type)
        value = field.type.value_type
        if types.is_fixed_size_list(field.type):
            width = field.type.list_size
            dtype = np.dtype(value.to_pandas_dtype())
            block = np.empty((len(array), width), dtype=dtype)
            decode(Column(field.name, width, False, dtype, dtype), array, block)
            return pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), type=field.type)
        offsets = array.offsets.cast(pa.int32())
        offsets = pc.subtract(offsets, offsets[0])
        values = array.flatten().cast(value)
        return pa.ListArray.from_arrays(offsets, values, type=field.type)
    except pa.ArrowException as error:
        raise BadColumn(field.name, " ".join(str(error).split())) from None

"""How repack stores a column: the narrowest integers, lists of one width, no nulls declared.

What holds nulls, or no numbers, is left as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

from mmrec.io.parquet import Column, is_list, left_pad
from mmrec.io.sources import reason_of

Bounds: TypeAlias = "tuple[int, int] | None"

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


@dataclass
class Survey:
    """What one pass over a column has seen."""

    nulls: bool = False
    integers: Bounds = None  # smallest and largest
    lengths: Bounds = None  # of lists

    def add(self, array: pa.Array) -> None:
        """Take in the next values of the column."""
        self.nulls |= array.null_count > 0
        if is_list(array.type):
            self.lengths = _widened(self.lengths, pc.list_value_length(array))
            array = array.flatten()
            self.nulls |= array.null_count > 0
        if types.is_integer(array.type):
            self.integers = _widened(self.integers, array)


def _widened(bounds: Bounds, values: pa.Array) -> Bounds:
    low, high = pc.min_max(values).as_py().values()
    if low is None or bounds is None:
        return bounds if low is None else (low, high)
    return min(low, bounds[0]), max(high, bounds[1])


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
        low, high = survey.integers or (0, 0)
        value = smallest_integer(min(low, 0) if width else low, max(high, 0) if width else high)
    if not listed:
        return value
    element = pa.field("element", value, nullable=False)
    shortest, longest = survey.lengths or (0, 0)
    if width is None and shortest == longest:
        width = longest
    return pa.list_(element, width) if width else pa.list_(element)


def stored_schema(
    schema: pa.Schema, surveys: Mapping[str, Survey], widths: Mapping[str, int]
) -> pa.Schema:
    """The schema of the repacked files; columns with nulls keep their type."""
    fields = []
    for field in schema:
        survey = surveys[field.name]
        if survey.nulls:
            fields.append(field.with_metadata(None))
        else:
            dtype = stored_type(field.type, survey, widths.get(field.name))
            fields.append(pa.field(field.name, dtype, nullable=False))
    return pa.schema(fields)


def convert(column: Column, field: pa.Field) -> pa.Array:
    """The same values as `field` stores them.

    Raises:
        InputError: a value does not fit (the file changed since it was surveyed).
    """
    array, kind = column.array, field.type
    if array.type == kind:
        return array
    try:
        if not is_list(kind):
            return array.cast(kind)
        value = kind.value_type
        if types.is_fixed_size_list(kind):
            values, lengths = column.lists()
            block = np.empty((len(array), kind.list_size), dtype=value.to_pandas_dtype())
            left_pad(values, lengths, kind.list_size, block)
            return pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), type=kind)
        offsets = array.offsets.cast(pa.int32())
        offsets = pc.subtract(offsets, offsets[0])
        return pa.ListArray.from_arrays(offsets, array.flatten().cast(value), type=kind)
    except pa.ArrowException as error:
        column.refuse(0, f"values fit into {kind}, as when they were surveyed", reason_of(error))

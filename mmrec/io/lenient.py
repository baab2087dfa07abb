"""Parquet for somebody who reports what is wrong with a file; `parquet.py` is the strict reader.

Refused is only what `sources.py` cannot open or read. Of everything else the caller gets what
there is, and a value of its choice where there is nothing. n rows of a column.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmrec.errors import InputError
from mmrec.io.parquet import Ints, is_list
from mmrec.io.sources import Source

BATCH = 16_384  # rows: 13 MB of int64 histories of length 100

Floats = NDArray[np.float64]


def kinds_of(source: Source) -> dict[str, pa.DataType]:
    """Column to arrow type.

    Raises:
        InputError: two columns of one name.
    """
    schema = source.schema
    if len(set(schema.names)) < len(schema.names):
        raise InputError(f"each column needs its own name, {source.path} has {schema.names}")
    return {field.name: field.type for field in schema}


def batches(
    source: Source, columns: Sequence[str] | None = None, *, size: int = BATCH
) -> Iterator[dict[str, pa.Array]]:
    """The named columns (None: all) in file order, `size` rows at a time; no rows are one batch.

    Raises:
        InputError: a column is not there, or the file is damaged further on.
    """
    kinds = kinds_of(source)
    names = [*(kinds if columns is None else columns)]
    if not {*names} <= kinds.keys():
        raise InputError(f"columns {', '.join(names)} are needed, {source.path} has {[*kinds]}")
    for batch in source.read(names, rows=size):
        yield {name: batch.column(name) for name in names}
    pa.default_memory_pool().release_unused()  # arrow keeps up to half a GiB for the next file
    if not source.num_rows:
        yield {name: pa.array([], kinds[name]) for name in names}


def whole(source: Source, columns: Sequence[str]) -> dict[str, pa.Array]:
    """The named columns in one piece."""
    parts = list(batches(source, columns))
    return {name: pa.concat_arrays([part[name] for part in parts]) for name in columns}


def span(source: Source, column: str) -> tuple[int, int] | None:
    """Smallest and largest whole number of a column or of its lists; None where there is none.

    The values are read, as writers may leave statistics out.
    """
    ends: list[int] = []
    for batch in batches(source, [column]):
        array = batch[column]
        values = integers((array.flatten() if is_list(array.type) else array).drop_null())
        ends += [int(values.min()), int(values.max())] if len(values) else []
    return (min(ends), max(ends)) if ends else None


def is_scalar(kind: pa.DataType) -> bool:
    """Whether `floats` takes this type: a number, a boolean, a time, or null throughout."""
    types = pa.types
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    return bool(number or types.is_temporal(kind) or types.is_null(kind))


def floats(array: pa.Array) -> Floats:
    """(n,) float64, NaN where there is no value; times and dates grow with time."""
    kind = array.type
    if pa.types.is_date(kind):
        array = array.cast(pa.timestamp("ms"))
    if pa.types.is_temporal(kind):
        array = array.cast(pa.int32() if pa.types.is_time32(kind) else pa.int64())
    return np.asarray(pc.cast(array, pa.float64(), safe=False).to_numpy(False))


def integers(array: pa.Array, missing: int = 0) -> Ints:
    """(n,) int64 of any scalar column; `missing` where it is null, NaN or infinite."""
    if pa.types.is_integer(array.type):
        filled = pc.fill_null(array, missing) if array.null_count else array
        return np.asarray(filled).astype(np.int64, copy=False)
    values = floats(array)
    return np.where(np.isfinite(values), values, missing).astype(np.int64)


def lists(array: pa.Array) -> tuple[pa.Array, Ints]:
    """All values of lists end to end, and each row's length; a null list counts as empty."""
    lengths: Any = pc.list_value_length(array)
    return array.flatten(), integers(lengths)  # flatten leaves null lists out

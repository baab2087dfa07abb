"""Parquet for somebody who reports what is wrong with a file; `parquet.py` is the strict reader.

Only what cannot be read at all is refused. Of everything else the caller gets what there is, and
a value of its choice where there is nothing. n rows of a column.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmrec.errors import InputError
from mmrec.io.parquet import is_list

BATCH_ROWS = 16_384  # 13 MB of int64 histories of length 100

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Contents:
    """What a parquet file says of itself: its rows, and the arrow type of each column."""

    rows: int
    kinds: dict[str, pa.DataType]


def contents(path: Path) -> Contents:
    """Open a file and look at its schema.

    Raises:
        InputError: no regular file, no parquet, or two columns of one name.
    """
    with _opened(path) as file:
        rows, schema = int(file.metadata.num_rows), file.schema_arrow
    if len(set(schema.names)) < len(schema.names):
        raise InputError(f"each column needs its own name, got {schema.names} in {path}")
    return Contents(rows, {field.name: field.type for field in schema})


def _opened(path: Path) -> pq.ParquetFile:
    if not path.is_file():
        raise InputError(f"a parquet file is needed, {path} is no regular file")
    try:
        # A buffered stream keeps memory flat also where one row group spans the whole file.
        return pq.ParquetFile(path, buffer_size=1 << 20)
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"a parquet file is needed, {path} cannot be read as one: {error}"
        ) from None


def batches(
    path: Path, columns: Sequence[str] | None = None, *, size: int = BATCH_ROWS
) -> Iterator[dict[str, pa.Array]]:
    """The named columns (None: all) in file order, `size` rows at a time; no rows are one batch.

    Raises:
        InputError: what `contents` refuses, a column that is not there, or damage further on.
    """
    start, kinds = 0, contents(path).kinds
    if not kinds.keys() >= {*(columns or ())}:
        raise InputError(f"columns {', '.join(columns or ())} are needed, {path} has {[*kinds]}")
    with _opened(path) as file:
        try:
            for batch in file.iter_batches(batch_size=size, columns=columns):
                yield {name: batch.column(name) for name in batch.schema.names}
                start += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path} is damaged at or after row {start}: {error}") from None
    pa.default_memory_pool().release_unused()  # arrow keeps up to half a GiB for the next file
    if start == 0:
        yield {name: pa.array([], kinds[name]) for name in columns or kinds}


def whole(path: Path, columns: Sequence[str]) -> dict[str, pa.Array]:
    """The named columns in one piece."""
    parts = list(batches(path, columns))
    return {name: pa.concat_arrays([part[name] for part in parts]) for name in columns}


def span(path: Path, column: str) -> tuple[int, int] | None:
    """Smallest and largest whole number of a column or of its lists; None where there is none.

    The values are read, as writers may leave statistics out.
    """
    ends: list[int] = []
    for batch in batches(path, [column]):
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

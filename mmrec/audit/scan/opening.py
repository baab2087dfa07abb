"""What a click log is known to hold before its rows are read: columns, ranges, levels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmrec.audit.scan.chunk import is_scalar
from mmrec.data.schema import CONTEXT, HISTORY, LABEL, ROW_ID, TARGET, USER
from mmrec.errors import InputError
from mmrec.io.parquet import INTEGER, INTEGERS, NUMBER, is_list

RUN = 16_384  # rows read at a time: 13 MB of int64 histories of length 100
MOST_LEVELS = 256  # an integer column below this many values is a level, counted item by item
MOST_CELLS = 64_000_000


def open_clicks(path: Path) -> pq.ParquetFile:
    """Open a click log for an audit.

    Raises:
        InputError: not parquet, or no column for the item, or one of a type that cannot be read.
    """
    try:
        file = pq.ParquetFile(path, buffer_size=1 << 20)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"an audit needs parquet, {path} cannot be read: {error}") from None
    schema = file.schema_arrow
    if TARGET not in schema.names or not is_scalar(schema.field(TARGET).type):
        raise InputError(f"an audit needs a numeric column {TARGET}, {path} has {schema.names}")
    return file


def odd_types(schema: pa.Schema) -> dict[str, str]:
    """Columns of a type that the loaders refuse, and the type that they need."""
    kinds = dict.fromkeys((USER, TARGET, ROW_ID, *CONTEXT), INTEGER)
    kinds |= {HISTORY: INTEGERS, LABEL: NUMBER}
    return {
        name: f"{schema.field(name).type}, not {kind.name}"
        for name, kind in kinds.items()
        if name in schema.names and not kind.accepts(schema.field(name).type)
    }


def column_range(file: pq.ParquetFile, name: str) -> tuple[int, int] | None:
    """Smallest and largest integer of a column or of its lists; None where there is none.

    Taken from the file's own statistics where it has them, otherwise read.
    """
    places = [i for i in range(file.metadata.num_columns) if _leaf(file, i).split(".")[0] == name]
    low: list[int] = []
    high: list[int] = []
    for group in range(file.metadata.num_row_groups if len(places) == 1 else 0):
        statistics = file.metadata.row_group(group).column(places[0]).statistics
        if statistics is None or not statistics.has_min_max:
            if file.metadata.row_group(group).num_rows:
                break
            continue
        low.append(int(statistics.min))
        high.append(int(statistics.max))
    else:
        return (min(low), max(high)) if low else None
    low, high = [], []
    for batch in file.iter_batches(batch_size=RUN, columns=[name]):
        array = batch.column(0)
        values = (array.flatten() if is_list(array.type) else array).drop_null()
        if len(values):
            numbers = np.nan_to_num(values.to_numpy(zero_copy_only=False))
            low.append(int(numbers.min()))
            high.append(int(numbers.max()))
    return (min(low), max(high)) if low else None


def _leaf(file: pq.ParquetFile, index: int) -> str:
    return str(file.schema.column(index).path)


def level_columns(file: pq.ParquetFile, num_items: int) -> dict[str, int]:
    """Integer columns with few values, and how many, counted from 0."""
    found = {}
    for field_ in file.schema_arrow:
        if field_.name in (USER, TARGET, LABEL, ROW_ID) or not pa.types.is_integer(field_.type):
            continue
        span = column_range(file, field_.name)
        if span and span[0] >= 0 and span[1] < min(MOST_LEVELS, MOST_CELLS // num_items):
            found[field_.name] = span[1] + 1
    return found

"""A parquet file with one value changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def edit(path: Path, column: str, row: int, value: Any) -> None:
    """Put `value` at one place of the file."""
    table = pq.read_table(path)
    values = table[column].to_pylist()
    values[row] = value
    kind = table.schema.field(column).type
    place = table.schema.get_field_index(column)
    pq.write_table(table.set_column(place, column, pa.array(values, kind)), path)

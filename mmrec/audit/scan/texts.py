"""Titles of items: which are empty, which are the same."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mmrec.data.items import ITEM

TITLE = "item_title"


@dataclass(frozen=True)
class Titles:
    """Items with a row, with an empty title, and with the title of another item."""

    items: int
    empty: int
    repeated: int
    commonest: str
    commonest_items: int


def check_titles(path: Path) -> Titles | None:
    """Compare titles without regard to case and spaces; None where there is no such column."""
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        if TITLE not in schema.names or ITEM not in schema.names:
            return None
        kind = schema.field(TITLE).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            return None
        titles = file.read(columns=[TITLE])[TITLE].to_pylist()
    plain = [" ".join((title or "").lower().split()) for title in titles]
    times = Counter(title for title in plain if title)
    commonest, count = times.most_common(1)[0] if times else ("", 0)
    return Titles(
        items=len(plain),
        empty=sum(not title for title in plain),
        repeated=sum(count for count in times.values() if count > 1),
        commonest=commonest[:60],
        commonest_items=count,
    )

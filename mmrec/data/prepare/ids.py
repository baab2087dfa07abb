"""Names of users, items and values to dense numbers: maps of (key, id) that only ever grow.

Numbers begin with 1; 0 is no item, and a value that is missing. Next: `buckets.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

SCHEMA = {"key": pl.String, "id": pl.Int64}
Maps = Mapping[str, pl.DataFrame]
_INTEGERS = r"^-?(0|[1-9]\d{0,17})$"


def grown(known: pl.DataFrame | None, keys: pl.Series) -> pl.DataFrame:
    """A map with the keys that are new behind it: in order of number if all are, else of text.

    >>> grown(None, pl.Series(["10", "9", "10", None]))["key"].to_list()
    ['9', '10']
    """
    known = pl.DataFrame(schema=SCHEMA) if known is None else known
    new = pl.DataFrame({"key": keys.cast(pl.String)}).drop_nulls().unique()
    new = new.join(known, on="key", how="anti")
    if new["key"].str.contains(_INTEGERS).all():
        new = new.sort(pl.col("key").cast(pl.Int64))
    else:
        new = new.sort("key")
    start = known.height + 1
    ids = pl.int_range(start, start + new.height, dtype=pl.Int64, eager=True)
    return pl.concat([known, new.with_columns(id=ids)])


def keys_in(table: pl.LazyFrame, column: str) -> pl.Series:
    """The distinct values of a column."""
    found = table.select(pl.col(column).alias("key")).unique().collect(engine="streaming")
    return found["key"]


def numbered(table: pl.LazyFrame, column: str, made: str, ids: pl.DataFrame) -> pl.LazyFrame:
    """The table with numbers in the place of keys; 0 where there is no key."""
    mapped = ids.lazy().select(
        pl.col("key").alias("__key"), pl.col("id").cast(pl.Int32).fill_null(0).alias("__id")
    )
    joined = table.join(
        mapped, left_on=column, right_on="__key", how="left", maintain_order="left"
    ).drop(column)
    return joined.with_columns(pl.col("__id").fill_null(0).alias(made)).drop("__id")


def write_maps(maps: Maps, folder: Path) -> None:
    """One parquet a map, beside the data."""
    folder.mkdir(exist_ok=True)
    for name, ids in maps.items():
        ids.write_parquet(folder / f"{name}.parquet")


def read_maps(folder: Path) -> dict[str, pl.DataFrame]:
    """The maps of `write_maps`."""
    return {path.stem: pl.read_parquet(path) for path in sorted(folder.glob("*.parquet"))}

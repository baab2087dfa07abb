"""Small logs prepared by a test, and what came out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from mmrec.data.prepare import Catalogue, Log, Options, Plan, Prepared, prepare

LOG = Log(user="user", item="item", time="time", labels=("click",))
START = 1_700_000_000


def events(count: int = 40, **columns: Any) -> pl.DataFrame:
    """Events of four users and five items, an hour apart, every third a click."""
    made: dict[str, Any] = {
        "user": [f"u{n % 4}" for n in range(count)],
        "item": [f"i{n * 7 % 5}" for n in range(count)],
        "time": [START + 3600 * n for n in range(count)],
        "click": [int(n % 3 == 0) for n in range(count)],
    }
    return pl.DataFrame(made | columns)


def run(
    folder: Path,
    log: pl.DataFrame,
    items: pl.DataFrame | None = None,
    *,
    asked: Log = LOG,
    catalogue: Catalogue | None = None,
    name: str = "out",
    **plan: Any,
) -> Prepared:
    """Prepare tables, written as parquet, into `folder/name`."""
    folder.mkdir(exist_ok=True)
    log.write_parquet(folder / "events.parquet")
    if items is not None:
        items.write_parquet(folder / "items.parquet")
    options = Options(asked, catalogue or Catalogue(), replace(Plan(), **plan))
    table = None if items is None else folder / "items.parquet"
    return prepare(folder / "events.parquet", table, folder / name, options)


def rows(made: Prepared, *parts: str) -> list[dict[str, Any]]:
    """The rows of these parts, or of all, with names for users and items."""
    users, items = names(made, "user"), names(made, "item")
    found = []
    for part in parts or ("train", "valid", "test"):
        for row in pq.read_table(made.root / f"{part}.parquet").to_pylist():
            row["user"], row["item"] = users[row["user"]], items[row["item"]]
            row["history"] = [items[item] for item in row["history"]]
            found.append(row)
    return found


def names(made: Prepared, of: str) -> list[str | None]:
    """What each number of a map stands for."""
    return [None, *pq.read_table(made.root / "maps" / f"{of}.parquet")["key"].to_pylist()]

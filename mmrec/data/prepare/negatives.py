"""What a user did not click, drawn for logs that hold clicks only.

A pool holds (time, item) in order of time: every click, or, to draw evenly, each item's first one.
A row draws from what lies strictly before it, so from items that were alive by then, as popular as
they were by then; never what its user clicked, at any time. P entries of the pool, n clicks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mmrec.data.prepare.buckets import Buckets, edges, frames, read_bucket
from mmrec.data.prepare.options import Plan
from mmrec.data.prepare.past import Array, Ints

_ROUNDS = 30


@dataclass(frozen=True)
class Pool:
    """What negatives are drawn from: (P,) each, in order of time, on disk."""

    time: NDArray[Any]
    item: NDArray[Any]

    @classmethod
    def open(cls, folder: Path) -> Pool:
        """The pool that `write_pool` left."""
        time = np.memmap(folder / "time", dtype=np.int64, mode="r")
        return cls(time, np.memmap(folder / "item", dtype=np.int32, mode="r"))


def write_pool(
    folder: Path, log: Path, plan: Plan, since: pl.DataFrame, span: tuple[int, int]
) -> dict[str, int]:
    """The clicks of a log in order of time, by way of buckets of time.

    Args:
        since: (item, time) of when items could first be shown, for those where it is told.
        span: the first and last time of the log.
    """
    rows = pl.scan_parquet(log).select(pl.len()).collect().item()
    buckets = -(-rows // plan.events_in_memory)
    cuts = edges(log, "time", *span, buckets) if buckets > 1 else np.zeros(0, np.int64)
    with Buckets(folder, "t", len(cuts) + 1) as dealt:
        for frame in (since.select("time", "item"), *frames(log, ["time", "item"])):
            frame = frame.select(pl.col("time").cast(pl.Int64), pl.col("item").cast(pl.Int32))
            dealt.add(frame, np.searchsorted(cuts, frame["time"].to_numpy(), side="right"))
    seen = np.zeros(0, dtype=np.int32)
    size = 0
    with open(folder / "time", "wb") as times, open(folder / "item", "wb") as items:
        for number in range(len(cuts) + 1):
            part = read_bucket(folder, "t", number)
            if part is None:
                continue
            part = part.sort("time", "item")
            if plan.negatives_by == "uniform":
                part = part.unique("item", keep="first", maintain_order=True)
                part = part.filter(~pl.Series(np.isin(part["item"].to_numpy(), seen)))
                seen = np.append(seen, part["item"].to_numpy())
            part["time"].to_numpy().astype(np.int64).tofile(times)
            part["item"].to_numpy().astype(np.int32).tofile(items)
            size += part.height
    return {"pool": size}


def with_negatives(
    frame: pl.DataFrame, pool: Pool, plan: Plan, bucket: int
) -> tuple[pl.DataFrame, int]:
    """A sorted bucket with its clicks' negatives among them, and how many could not be drawn."""
    if "row_id" not in frame.columns:
        frame = frame.with_columns(row_id=pl.col("line").cast(pl.String))
    clicks = frame.filter(pl.col("part") >= 0).with_row_index("click")
    user, time = clicks["user"].to_numpy(), clicks["time"].to_numpy()
    taken = np.unique(_pairs(frame["user"].to_numpy(), frame["item"].to_numpy()))
    drawn = draw(user, time, taken, pool, plan, np.random.default_rng([plan.seed, bucket]))
    place, number = np.nonzero(drawn)
    rows = (
        clicks[place]
        .with_columns(
            pl.Series("item", drawn[place, number], dtype=frame.schema["item"]),
            pl.Series("number", number + 1),
            y0=pl.lit(0, dtype=pl.Int8),
            event=pl.lit(False),
        )
        .with_columns(row_id=pl.concat_str("row_id", "number", separator="#"))
    )
    both = pl.concat([frame, rows.select(frame.columns)])
    missing = clicks.height * plan.negatives - rows.height
    return both.sort("user", "time", "item", "line", "event", maintain_order=True), missing


def draw(
    user: Array, time: Ints, taken: Ints, pool: Pool, plan: Plan, rng: np.random.Generator
) -> Ints:
    """(n, negatives) items, 0 where none was found; those of a click are distinct.

    Args:
        user, time: (n,) of the clicks.
        taken: pairs of user and item that are not drawn, ascending.
    """
    drawn = np.zeros((len(user), plan.negatives), dtype=np.int64)
    alive = np.searchsorted(pool.time, time, side="left")
    for _ in range(_ROUNDS):
        place, number = np.nonzero((drawn == 0) & (alive > 0)[:, None])
        if not len(place):
            break
        some = pool.item[(rng.random(len(place)) * alive[place]).astype(np.int64)].astype(np.int64)
        pair = _pairs(user[place], some)
        at = np.minimum(np.searchsorted(taken, pair), len(taken) - 1)
        good = (taken[at] != pair) & ~(drawn[place] == some[:, None]).any(axis=1)
        # Of two equal draws of one click in one round the first stays.
        first = np.zeros(len(place), dtype=np.bool_)
        first[np.unique(place * (int(pool.item.max()) + 1) + some, return_index=True)[1]] = True
        good &= first
        drawn[place[good], number[good]] = some[good]
    return drawn


def _pairs(user: Array, item: Array) -> Ints:
    return user.astype(np.int64) << 32 | item.astype(np.int64)

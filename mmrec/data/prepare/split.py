"""Which rows are of train, valid and test: 0, 1, 2; -1 is an event that only others know of.

-2 is one of an item that train must not know. Next: `negatives.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from mmrec.data.prepare.buckets import smallest_at
from mmrec.data.prepare.options import Plan
from mmrec.data.prepare.past import Array, Bools, Ints, run_starts, uniform

_TINY = 1e-9  # 0.8 + 0.1 of ten rows are nine


def time_bounds(log: Path, rows: int, low: int, high: int, plan: Plan) -> tuple[int, int]:
    """From when on rows are of valid, and of test: all rows of one instant are of one part."""
    ranks = [int(rows * share + _TINY) for share in (plan.shares[0], sum(plan.shares[:2]))]
    valid, test = (
        smallest_at(log, "time", rank, low, high) if rank < rows else high + 1 for rank in ranks
    )
    return valid, test


def part_by_time(time: Ints, bounds: tuple[int, int]) -> Ints:
    """By two moments."""
    return (time >= bounds[0]).astype(np.int64) + (time >= bounds[1])


def part_by_user_time(user: Array, counts: Bools, plan: Plan) -> Ints:
    """Each user's first rows, next and last, of rows in order of user and time.

    Shares are rounded down, over those that count.
    """
    before = np.append(0, np.cumsum(counts))
    begin = run_starts(user)
    size = np.bincount(begin, counts, minlength=len(user)).astype(np.int64)[begin]
    rank = before[:-1] - before[begin]
    valid = np.floor(size * plan.shares[0] + _TINY)
    test = np.floor(size * (plan.shares[0] + plan.shares[1]) + _TINY)
    part: Ints = (rank >= valid).astype(np.int64) + (rank >= test)
    return part


def part_by_user(user: Array, plan: Plan) -> Ints:
    """Whole users, drawn."""
    drawn = uniform(user, plan.seed)
    part: Ints = (drawn >= plan.shares[0]).astype(np.int64) + (drawn >= sum(plan.shares[:2]))
    return part


def cold_items(num_items: int, plan: Plan) -> Bools:
    """(num_items,) those that train does not know, drawn."""
    cold = uniform(np.arange(num_items), plan.seed + 1) < plan.cold
    cold[0] = False
    return cold


@dataclass(frozen=True)
class Sorter:
    """Makes of a bucket of users their events in order, and says which are rows of which part.

    Attributes:
        plan: how.
        bounds: of `time_bounds`, where the split is by time.
        cold: (num_items,) items that train does not know.
        scoring: rows are those marked `new`, whether labelled or not, and of one part.
    """

    plan: Plan
    bounds: tuple[int, int]
    cold: Bools
    scoring: bool = False

    def sorted(self, bucket: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
        """The bucket by user, time, item, without repeats; columns `event` and `part` are made.

        An event counts in histories and statistics; where no label is known it does not.
        """
        # A new event may be one of the log that it is scored against: it comes out, counted once.
        loose = {"line", "new", "weight", "part"} if self.scoring else {"line"}
        content = [name for name in bucket.columns if name not in ("user", "time", "item", "line")]
        content = [name for name in content if name not in loose]
        frame = bucket.sort("user", "time", "item", *content, "new", "line")
        again = pl.all_horizontal(
            pl.col(name).eq_missing(pl.col(name).shift(1))
            for name in frame.columns
            if name not in loose
        )
        frame = frame.with_columns(again=again.fill_null(False))
        frame = frame.filter(~pl.col("again") | (pl.col("new") & self.scoring))
        labels = [name for name in frame.columns if re.fullmatch(r"y\d+", name)]
        known = pl.max_horizontal(*labels) >= 0
        frame = frame.with_columns(known=known, event=known & ~pl.col("again"))
        unlabelled, counted_before = int((~frame["known"]).sum()), int(frame["again"].sum())
        frame = frame.drop("again", "known")
        parts = self._parts(frame)
        frame = frame.with_columns(pl.Series("part", parts, dtype=pl.Int8))
        return frame, {
            "repeats": bucket.height - frame.height,
            "known_before": counted_before,
            "unlabelled": unlabelled,
            "cold": int((parts == -2).sum()),
        }

    def _parts(self, frame: pl.DataFrame) -> Ints:
        user, time = frame["user"].to_numpy(), frame["time"].to_numpy()
        event = frame["event"].to_numpy()
        if self.scoring:
            return np.where(frame["new"].to_numpy(), 0, -1)
        if self.plan.split == "time":
            parts = part_by_time(time, self.bounds)
        elif self.plan.split == "user-time":
            parts = part_by_user_time(user, event, self.plan)
        elif self.plan.split == "user":
            parts = part_by_user(user, self.plan)
        else:
            parts = frame["part"].to_numpy().astype(np.int64)
        parts = np.where(event, parts, -1)
        unknown_to_train = (parts == 0) & self.cold[frame["item"].to_numpy()]
        return np.where(unknown_to_train, -2, parts)

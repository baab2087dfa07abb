"""Rows and positives so far: of the item, of the user, of a category, and in the last days.

Rows go by in order of time, a bucket of time after the other, with one count a key carried along;
a window takes off what a second reading, so many days behind, has counted. So memory is a bucket
and the keys. n rows of a bucket, M counts (rows, positives of each label), K keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from mmrec.data.prepare.buckets import Buckets, read_bucket
from mmrec.data.prepare.options import ROWS, Options
from mmrec.data.prepare.past import Array, Floats, Ints, count_earlier, share
from mmrec.data.prepare.times import DAY
from mmrec.io.progress import Progress

LEVELS = 10
PRIOR = 4  # an item starts with that many imagined rows, half of them positive


@dataclass(frozen=True)
class Asked:
    """One statistic: of which key, in how many days (None = so far), of train's rows alone or all.

    Attributes:
        key: its column in a bucket.
        name: what its columns begin with.
        shares: whether shares of positives are told besides rows.
    """

    key: str
    name: str
    days: int | None = None
    train: bool = False
    shares: bool = True


def asked(options: Options) -> list[Asked]:
    """Every statistic that the options ask for."""
    keys = {"item": "item", "user": "user"}
    keys |= {name: f"c{place}" for place, name in enumerate(options.log.category_names)}
    found = [
        Asked(keys[name], name, days, shares=not rows_alone)
        for name, rows_alone, _ in (of.partition(ROWS) for of in options.plan.statistics)
        for days in (None, *options.plan.windows)
    ]
    return found + [Asked("item", "item", train=True)] * options.plan.levels


def key_columns(options: Options) -> list[str]:
    """Columns of a bucket by which statistics go."""
    return list(dict.fromkeys(one.key for one in asked(options)))


class Counter:
    """Counts of one statistic, advanced from bucket to bucket.

    Args:
        what: the statistic.
        keys: K.
        buckets: of time, which are read again for windows.
    """

    def __init__(self, what: Asked, keys: int, labels: int, buckets: TimeBuckets) -> None:
        self.what, self.buckets, self.labels = what, buckets, labels
        self.so_far = np.zeros((keys, 1 + labels), dtype=np.int64)
        self.behind = np.zeros_like(self.so_far) if what.days is not None else None

    def count(self, number: int, bucket: pl.DataFrame) -> Ints:
        """(n, M) of the rows of the next bucket."""
        key, time, weight = self._columns(bucket)
        out = self.so_far[key] + count_earlier(key, time, weight)
        _add(self.so_far, key, weight)
        if self.behind is not None:
            assert self.what.days is not None
            out -= self._older(number, key, time - self.what.days * DAY)
        return out

    def _older(self, number: int, key: Ints, since: Ints) -> Ints:
        """What lies before each row's window: before `since` (n,)."""
        assert self.behind is not None
        assert self.what.days is not None
        low, high = self.buckets.span(number)
        shift = self.what.days * DAY
        out = self.behind[key]
        found = [self._columns(part) for part in self.buckets.between(low - shift, high - shift)]
        if found:
            keys, times, weights = (np.concatenate(column) for column in zip(*found, strict=True))
            both = np.concatenate([weights, np.zeros((len(key), weights.shape[1]), np.int64)])
            earlier = count_earlier(np.append(keys, key), np.append(times, since), both)
            out = out + earlier[len(keys) :]
            _add(self.behind, keys, weights)
        return out

    def _columns(self, bucket: pl.DataFrame) -> tuple[Ints, Ints, Ints]:
        counted = bucket["event"].to_numpy()
        if self.what.train:
            counted = counted & (bucket["part"].to_numpy() == 0)
        labels = [bucket[f"y{place}"].to_numpy() == 1 for place in range(self.labels)]
        weight = np.stack([counted, *(counted & label for label in labels)], axis=1)
        key = bucket[self.what.key].to_numpy().astype(np.int64)
        return key, bucket["time"].to_numpy(), weight.astype(np.int64)


@dataclass(frozen=True)
class TimeBuckets:
    """Rows in buckets of time, in a folder.

    Attributes:
        cuts: (buckets - 1,) where the next one begins.
        low, high: of all times.
    """

    folder: Path
    cuts: Ints
    low: int
    high: int

    def __len__(self) -> int:
        return len(self.cuts) + 1

    def span(self, number: int) -> tuple[int, int]:
        """From when on, and before when, a bucket's rows are."""
        ends = [self.low, *self.cuts.tolist(), self.high + 1]
        return ends[number], ends[number + 1]

    def read(self, number: int) -> pl.DataFrame | None:
        """The rows of one bucket."""
        return read_bucket(self.folder, "t", number)

    def between(self, begin: int, end: int) -> Iterator[pl.DataFrame]:
        """All rows of begin ≤ time < end."""
        for number in range(len(self)):
            low, high = self.span(number)
            if low < end and high > begin:
                part = self.read(number)
                if part is not None:
                    yield part.filter((pl.col("time") >= begin) & (pl.col("time") < end))


def write_statistics(
    folder: Path, times: TimeBuckets, options: Options, sizes: dict[str, int], user_buckets: int
) -> dict[str, int]:
    """Deal each row's counts back to the bucket of its user: columns `place`, `s0…`.

    Args:
        sizes: key column -> K.
    """
    labels = len(options.log.label_names)
    counters = [Counter(one, sizes[one.key], labels, times) for one in asked(options)]
    with (
        Buckets(folder, "u", user_buckets) as dealt,
        Progress(total=len(times), desc="statistics", unit="bucket") as progress,
    ):
        for number in range(len(times)):
            bucket = times.read(number)
            if bucket is not None:
                counts = np.concatenate([one.count(number, bucket) for one in counters], axis=1)
                columns = {f"s{place}": column for place, column in enumerate(counts.T)}
                made = pl.DataFrame({"place": bucket["place"], **columns})
                made = made.cast(dict.fromkeys(columns, pl.Int32))
                dealt.add(made, bucket["bucket"].to_numpy())
            progress.update()
    return {"statistics": len(counters)}


def columns_of(counts: Ints, options: Options) -> tuple[dict[str, Floats], dict[str, Ints]]:
    """Numeric and categorical columns of a bucket's counts (n, all)."""
    numeric: dict[str, Floats] = {}
    levels: dict[str, Ints] = {}
    labels, begin = options.log.label_names, 0
    for one in asked(options):
        rows, positives = counts[:, begin], counts[:, begin + 1 : begin + 1 + len(labels)]
        begin += 1 + len(labels)
        if one.train:
            levels["item_share_level"] = share_level(positives[:, 0], rows)
            levels["item_rows_level"] = rows_level(rows)
            continue
        ending = "" if one.days is None else f"_{one.days}d"
        numeric[f"{one.name}_log_rows{ending}"] = np.log1p(rows).astype(np.float32)
        for place, label in enumerate(labels if options.log.labels and one.shares else ()):
            numeric[f"{one.name}_{label}_share{ending}"] = share(positives[:, place], rows)
    return numeric, levels


def rows_level(count: Ints) -> Ints:
    """1 + floor(log2(1 + count)), at most 10: 1 for an item never seen, 2 for one row.

    >>> rows_level(np.array([0, 1, 2, 3, 510, 511, 10**6])).tolist()
    [1, 2, 2, 3, 9, 10, 10]
    """
    bounds = 2 ** np.arange(1, LEVELS) - 1
    return np.searchsorted(bounds, count, side="right") + 1


def share_level(positives: Ints, count: Ints) -> Ints:
    """Smoothed share of positives in steps of 5 %: 1 below 30 %, 10 from 70 %, 6 of none.

    The share is (positives + 2) / (count + 4). Its steps are constants: quantiles of the data would
    let a row's level depend on its own label and on later rows.

    >>> share_level(np.array([0, 0, 10, 10]), np.array([0, 10, 10, 20])).tolist()
    [6, 1, 10, 6]
    """
    step = 20 * (positives + PRIOR // 2) // (count + PRIOR)
    level: Ints = np.clip(step - 4, 1, LEVELS)
    return level


def _add(total: Ints, key: Array, weight: Ints) -> None:
    for place in range(total.shape[1]):
        total[:, place] += np.bincount(key, weight[:, place], minlength=len(total)).astype(np.int64)

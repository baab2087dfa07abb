"""Dated ratings as rows that know only what came before them.

R ratings, in any order; columns are (R,) and stay in that order. L places of a history. "Before"
is strict everywhere: ratings of the same second do not see each other. `movielens_clicks.py`
writes what is made here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]

TRAIN, VALID, TEST = 0, 1, 2
LEVELS = 10
PRIOR_RATINGS = 4  # an item starts with that many imagined ratings, half of them likes
SECONDS_A_DAY = 86_400


@dataclass(frozen=True)
class Ratings:
    """Who rated what when (in seconds), and liked it or not: columns (R,).

    A user rates an item at most once.
    """

    user: Ints
    item: Ints
    time: Ints
    liked: Bools


@dataclass(frozen=True)
class History:
    """What rows know of their user's past: (rows, L) each, oldest first, flush right, 0 = padding.

    Attributes:
        item: int64, 0 where there is no rating.
        liked: int8, 1 where the user liked the item.
        days_ago: float32, days between that rating and the row's.
    """

    item: Ints
    liked: NDArray[np.int8]
    days_ago: Floats


def split_by_user(user: Ints, time: Ints, item: Ints) -> Ints:
    """0, 1, 2 for train, valid, test: each user's first 80 %, next 10 %, last 10 % in time.

    Shares are rounded down; ratings of the same second are ordered by item.

    >>> split_by_user(np.ones(10, int), np.arange(10)[::-1], np.arange(10)).tolist()
    [2, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    """
    order = np.lexsort((item, time, user))
    start, size = _groups(user[order])
    rank = np.arange(len(user)) - start
    split = (rank >= size * 8 // 10).astype(np.int64) + (rank >= size * 9 // 10)
    return _back(split, order)


def count_earlier(key: Ints, time: Ints, weight: Ints) -> Ints:
    """Sum of `weight` over the rows of the same key with an earlier time.

    >>> count_earlier(np.array([5, 5, 5, 6]), np.array([3, 1, 3, 9]), np.ones(4, int)).tolist()
    [1, 0, 1, 0]
    """
    order = np.lexsort((time, key))
    begin, _ = _groups(key[order])
    same_time, _ = _groups(key[order], time[order])
    total = np.concatenate([[0], np.cumsum(weight[order])])
    return _back(total[same_time] - total[begin], order)


def views_level(count: Ints) -> Ints:
    """1 + floor(log2(1 + count)), at most 10: 1 for an item never seen, 2 for one rating.

    >>> views_level(np.array([0, 1, 2, 3, 510, 511, 10**6])).tolist()
    [1, 2, 2, 3, 9, 10, 10]
    """
    bounds = 2 ** np.arange(1, LEVELS) - 1
    return np.searchsorted(bounds, count, side="right") + 1


def likes_level(likes: Ints, count: Ints) -> Ints:
    """Smoothed share of likes in steps of 5 %: 1 below 30 %, 10 from 70 %, 6 for an unseen item.

    The share is (likes + 2) / (count + 4). Its steps are constants: quantiles of the data would
    let a row's level depend on its own label and on later rows.

    >>> likes_level(np.array([0, 0, 10, 10]), np.array([0, 10, 10, 20])).tolist()
    [6, 1, 10, 6]
    """
    step = 20 * (likes + PRIOR_RATINGS // 2) // (count + PRIOR_RATINGS)
    level: Ints = np.clip(step - 4, 1, LEVELS)
    return level


def log_count(count: Ints) -> Floats:
    """log(1 + count), float32."""
    return np.log1p(count).astype(np.float32)


def share(part: Ints, count: Ints) -> Floats:
    """part / count, float32; NaN where there is nothing to count.

    >>> share(np.array([1, 0]), np.array([4, 0])).tolist()
    [0.25, nan]
    """
    out = np.full(len(count), np.nan, dtype=np.float32)
    return np.divide(part, count, out=out, where=count > 0, casting="same_kind")


class Past:
    """Each user's ratings in order of time; a row sees those before its own second.

    Ratings of one earlier second stand in order of their items.

    Args:
        ratings: all of them, R.
        kept: (R,) bool, which of them are remembered; None = all.
    """

    def __init__(self, ratings: Ratings, kept: Bools | None = None) -> None:
        kept = np.ones(len(ratings.user), dtype=np.bool_) if kept is None else kept
        order = np.lexsort((ratings.item, ratings.time, ratings.user))
        order = order[kept[order]]
        self._now = ratings.time
        self._first = np.searchsorted(ratings.user[order], ratings.user, side="left")
        # Place 0 is the padding, so the k-th in that order stands at k + 1.
        self._item = np.append(0, ratings.item[order])
        self._time = np.append(0, ratings.time[order])
        self._liked = np.append(0, ratings.liked[order]).astype(np.int8)
        self.count = count_earlier(ratings.user, ratings.time, kept.astype(np.int64))
        """(R,) how many ratings each row sees."""

    def like_share(self, length: int) -> Floats:
        """(R,) share of likes among the last `length` that a row sees; NaN where it sees none."""
        total = np.cumsum(self._liked, dtype=np.int64)
        end, count = self._first + self.count, np.minimum(self.count, length)
        return share(total[end] - total[end - count], count)

    def history(self, rows: Ints, length: int) -> History:
        """The last `length` ratings that these rows see."""
        back = np.arange(length, 0, -1)  # (L,), newest last
        there = back <= self.count[rows][:, None]  # (rows, L)
        newest = self._first[rows] + self.count[rows]
        place = np.where(there, newest[:, None] + 1 - back, 0)
        days = (self._now[rows][:, None] - self._time[place]) / SECONDS_A_DAY
        days[~there] = 0
        return History(self._item[place], self._liked[place], days.astype(np.float32))


def check_history(history: History, rows: Ints, ratings: Ratings, *, only_liked: bool) -> None:
    """Assert that histories hold, newest last, only what the user rated before the row's time.

    It looks every entry up among the ratings, by another way than `Past` took.
    """
    width = int(ratings.item.max()) + 1
    key = ratings.user * width + ratings.item
    order = np.argsort(key)
    real = history.item > 0  # (rows, L)
    wanted = (ratings.user[rows][:, None] * width + history.item)[real]
    found = order[np.minimum(np.searchsorted(key[order], wanted), len(key) - 1)]
    when = np.full(history.item.shape, np.iinfo(np.int64).min)
    when[real] = ratings.time[found]
    now = np.broadcast_to(ratings.time[rows][:, None], real.shape)
    days = ((now[real] - when[real]) / SECONDS_A_DAY).astype(np.float32)
    holds = (
        (history.item >= 0).all()
        and (key[found] == wanted).all()
        and (ratings.liked[found].all() or not only_liked)
        and (when < now).all()
        and (when[:, 1:] >= when[:, :-1]).all()  # padding has the earliest time: it comes first
        and (history.liked[real] == ratings.liked[found]).all()
        and (history.days_ago[real] == days).all()
        and not history.liked[~real].any()
        and not history.days_ago[~real].any()
    )
    if not holds:
        raise AssertionError("a history holds something else than earlier ratings of its user")


def _groups(*keys: Ints) -> tuple[Ints, Ints]:
    """For sorted rows, where the run of equal keys begins that each row is in, and its size."""
    new = np.ones(len(keys[0]), dtype=np.bool_)
    new[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    starts = np.flatnonzero(new)
    sizes = np.diff(np.append(starts, len(new)))
    return np.repeat(starts, sizes), np.repeat(sizes, sizes)


def _back(values: Ints, order: Ints) -> Ints:
    out = np.empty_like(values)
    out[order] = values
    return out

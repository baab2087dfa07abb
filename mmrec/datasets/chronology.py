"""Pure functions that turn dated ratings into rows that know only what came before them.

R ratings, in any order; every function takes columns (R,) and returns columns (R,) in the same
order. "Before" is strict everywhere: ratings of the same second do not see each other.
"""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

TRAIN, VALID, TEST = 0, 1, 2
LEVELS = 10
RECENT = 30  # ratings of a user that count for the level: taste and mood drift
PRIOR_RATINGS = 4  # an item or user starts with that many imagined ratings, half of them likes


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


def recent_earlier(
    *, user: Ints, time: Ints, item: Ints, kept: NDArray[np.bool_], weight: Ints, length: int
) -> tuple[Ints, Ints]:
    """Of each user's last `length` kept rows before the time: the sum of `weight`, and how many."""
    order, first, end = _earlier(user, time, item, kept)
    begin = np.maximum(end - length, first)
    total = np.concatenate([[0], np.cumsum(weight[order])])
    return total[end] - total[begin], end - begin


def user_level(likes: Ints, count: Ints) -> Ints:
    """Smoothed share of likes among a user's ratings in steps of 10 %: 1 below 10 %, 10 from 90 %.

    The share is (likes + 2) / (count + 4): level 6 for a user not seen yet.

    >>> user_level(np.array([0, 0, 30, 15]), np.array([0, 30, 30, 30])).tolist()
    [6, 1, 10, 6]
    """
    return 10 * (likes + PRIOR_RATINGS // 2) // (count + PRIOR_RATINGS) + 1


class Histories:
    """The items that each user liked, in order of time; asked for rows of (user, time).

    Args:
        user, time, item: the ratings (R,).
        liked: (R,) bool.
        length: L, entries of a history; older likes are cut off.
    """

    def __init__(
        self, *, user: Ints, time: Ints, item: Ints, liked: NDArray[np.bool_], length: int
    ) -> None:
        order, self._first, self._end = _earlier(user, time, item, liked)
        self._item = item[order]
        self._length = length

    def of(self, rows: Ints) -> Ints:
        """(len(rows), L) int64, left-padded with 0: what the user liked before that rating."""
        place = self._end[rows][:, None] - np.arange(self._length, 0, -1)  # (rows, L), newest last
        there = place >= self._first[rows][:, None]
        if not self._item.size:
            return np.zeros(place.shape, dtype=np.int64)
        return np.where(there, self._item[np.maximum(place, 0)], 0)


def check_histories(
    histories: Ints, rows: Ints, *, user: Ints, time: Ints, item: Ints, liked: NDArray[np.bool_]
) -> None:
    """Assert that histories hold, newest last, only likes of the user before the row's time.

    It looks every entry up among the ratings, by another way than `Histories` took. A user rates
    an item at most once.
    """
    width = int(item.max()) + 1
    key = user * width + item
    order = np.argsort(key)
    real = histories > 0  # (rows, L)
    wanted = (user[rows][:, None] * width + histories)[real]
    found = order[np.minimum(np.searchsorted(key[order], wanted), len(key) - 1)]
    when = np.full(histories.shape, np.iinfo(np.int64).min)
    when[real] = time[found]
    holds = (
        (histories >= 0).all()
        and (key[found] == wanted).all()
        and liked[found].all()
        and (when < time[rows][:, None]).all()
        and (when[:, 1:] >= when[:, :-1]).all()  # padding has the earliest time: it comes first
    )
    if not holds:
        raise AssertionError("a history holds something else than earlier likes of its user")


def _earlier(user: Ints, time: Ints, item: Ints, kept: NDArray[np.bool_]) -> tuple[Ints, ...]:
    """The kept rows by user and time; for every row, where its user's begin and its past ends."""
    order = np.lexsort((item, time, user))
    order = order[kept[order]]
    first = np.searchsorted(user[order], user, side="left")
    return order, first, first + count_earlier(user, time, kept.astype(np.int64))


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

"""Rows that know only what came before them: groups, counts and histories, strictly earlier.

"Before" is strict everywhere: rows of the same instant do not see each other. n rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrec.io.hashing import mix64

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]
Array = NDArray[Any]


def run_starts(*keys: Array) -> Ints:
    """(n,) where the run of equal keys begins that each row is in, of rows that lie in runs.

    >>> run_starts(np.array([4, 4, 9, 4])).tolist()
    [0, 0, 2, 3]
    """
    new = np.ones(len(keys[0]), dtype=np.bool_)
    if len(new) > 1:
        new[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    starts = np.flatnonzero(new)
    return np.repeat(starts, np.diff(np.append(starts, len(new))))


def by_key_and_time(key: Ints, time: Ints) -> Ints:
    """(n,) the order of rows by key, then time; by one sort where both fit into one number."""
    if not len(key):
        return np.zeros(0, dtype=np.int64)
    first, last = int(time.min()), int(time.max())
    if (int(key.max()) + 1) * (last - first + 1) < 2**62:
        return np.argsort(key * (last - first + 1) + (time - first))
    return np.lexsort((time, key))


def count_earlier(key: Ints, time: Ints, weight: Array) -> Ints:
    """Sums of `weight` (n,) or (n, M) over the rows of the same key with an earlier time.

    >>> count_earlier(np.array([5, 5, 5, 6]), np.array([3, 1, 3, 9]), np.ones(4, int)).tolist()
    [1, 0, 1, 0]
    """
    order = by_key_and_time(key, time)
    begin = run_starts(key[order])
    same_time = run_starts(key[order], time[order])
    total = np.zeros((len(key) + 1, *weight.shape[1:]), dtype=np.int64)
    np.cumsum(weight[order], axis=0, out=total[1:])
    out = np.empty_like(total[1:])
    out[order] = total[same_time] - total[begin]
    return out


@dataclass(frozen=True)
class Past:
    """What each of n rows knows of its user's earlier rows: the places of those.

    Attributes:
        place: (K,) rows that are remembered, in order.
        begin: (n,) the first of the row's user, in `place`.
        end: (n,) one behind the last that is earlier than the row.
    """

    place: Ints
    begin: Ints
    end: Ints

    @classmethod
    def of(cls, user: Array, time: Array, kept: Bools) -> Past:
        """Of rows in order of user and time, of which those `kept` are remembered."""
        before = np.append(0, np.cumsum(kept))
        return cls(
            place=np.flatnonzero(kept),
            begin=before[run_starts(user)],
            end=before[run_starts(user, time)],
        )

    def newest(self, rows: Ints, length: int) -> tuple[Ints, Ints]:
        """The last `length` places that these rows know, end to end, oldest first, and how many."""
        begin = np.maximum(self.begin[rows], self.end[rows] - length)
        sizes = self.end[rows] - begin
        offset = np.repeat(begin - np.append(0, np.cumsum(sizes)[:-1]), sizes)
        return self.place[offset + np.arange(len(offset))], sizes

    def share(self, good: Bools, length: int) -> Floats:
        """(n,) share of `good` among the last `length` that a row knows; NaN of none."""
        total = np.append(0, np.cumsum(good[self.place]))
        begin = np.maximum(self.begin, self.end - length)
        return share(total[self.end] - total[begin], self.end - begin)


def share(part: Ints, count: Ints) -> Floats:
    """part / count, float32; NaN where there is nothing to count.

    >>> share(np.array([1, 0]), np.array([4, 0])).tolist()
    [0.25, nan]
    """
    out = np.full(count.shape, np.nan, dtype=np.float32)
    return np.divide(part, count, out=out, where=count > 0, casting="same_kind")


def uniform(ids: Array, seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each id, the same for the same id and seed.

    >>> bool((uniform(np.arange(9), 0) == uniform(np.arange(9), 0)).all())
    True
    """
    bits: Array = mix64(ids.astype(np.uint64) ^ np.uint64(mix64(seed)))
    drawn: NDArray[np.float64] = (bits >> np.uint64(11)) * 2.0**-53
    return drawn

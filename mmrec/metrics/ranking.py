"""What the first k of each group's rows hold, in the order of their scores.

n rows, G groups (a user, a request). Equal scores stand in every order alike: each figure is its
mean over them, so the order of rows cannot matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmrec.errors import positive, require
from mmrec.metrics.inputs import Floats, Ints, checked


@dataclass(frozen=True)
class RankingAtK:
    """Means over the groups that have a click, all alike.

    Attributes:
        ndcg: Σ_{i ≤ k} y_i / log2(1 + i) over that of the best order.
        recall: share of the group's clicks that stand among the first k.
        mrr: 1 / place of the first click, 0 where it stands behind k.
        hit_rate: share of groups with a click among the first k.
        coverage: share of all groups that have a click.
    """

    ndcg: float
    recall: float
    mrr: float
    hit_rate: float
    coverage: float


def ranking_at_k(group: ArrayLike, label: ArrayLike, score: ArrayLike, *, k: int) -> RankingAtK:
    """NDCG, recall, reciprocal rank and hit rate of the first k rows of each group.

    Args:
        group: (n,) whose rows are ranked against each other, integers or strings.
        label: (n,) values in {0, 1}.
        score: (n,) finite numbers.

    Raises:
        InputError: no group has a click, or input that `auc` refuses.

    >>> found = ranking_at_k([7, 7, 7, 8, 8], [0, 1, 0, 1, 0], [3.0, 2.0, 1.0, 9.0, 4.0], k=2)
    >>> found.recall, found.mrr, round(found.ndcg, 4)
    (1.0, 0.75, 0.8155)
    """
    positive(k=k)
    labels, scores = checked(label, score)
    groups = np.asarray(group)
    require(
        groups.shape == labels.shape,
        f"group and label must have one shape, got {groups.shape}, {labels.shape}",
    )
    runs = _Runs.of(groups, labels, scores)
    clicks = runs.over_groups(runs.clicks)
    clicked = clicks > 0
    require(clicked.any(), f"ranking needs a group with a click, none of {len(clicks)} has one")
    inside = np.clip(k - runs.place, 0, runs.rows)  # rows of a run among the first k
    ideal = _discounts(k)[np.minimum(clicks, k)]
    begin, end = np.minimum(runs.place, k), np.minimum(runs.place + runs.rows, k)
    gain = runs.clicks / runs.rows * (_discounts(k)[end] - _discounts(k)[begin])
    mrr, hit = _first_click(runs, inside)
    found = {
        "ndcg": runs.over_groups(gain)[clicked] / ideal[clicked],
        "recall": runs.over_groups(runs.clicks / runs.rows * inside)[clicked] / clicks[clicked],
        "mrr": runs.over_groups(mrr)[clicked],
        "hit_rate": runs.over_groups(hit)[clicked],
        "coverage": clicked,
    }
    return RankingAtK(**{name: float(np.mean(values)) for name, values in found.items()})


@dataclass(frozen=True)
class _Runs:
    """Runs of equal scores within a group, best first: their rows, clicks and first place."""

    rows: Ints
    clicks: Ints
    place: Ints
    first_of_group: Ints
    opens: NDArray[np.bool_]  # the first run of its group with a click

    @classmethod
    def of(cls, groups: NDArray[np.generic], labels: Floats, scores: Floats) -> _Runs:
        _, group = np.unique(groups, return_inverse=True)
        order = np.lexsort((-scores, group))
        group, labels, scores = group[order], labels[order], scores[order]
        other = np.r_[True, group[1:] != group[:-1]]
        starts = np.flatnonzero(other | np.r_[True, scores[1:] != scores[:-1]])
        begins = np.flatnonzero(other)
        clicks = np.add.reduceat(labels, starts).astype(np.int64)
        first = np.searchsorted(starts, begins)
        runs = np.diff(np.r_[first, len(starts)])
        before = np.cumsum(clicks) - clicks
        before -= np.repeat(before[first], runs)  # ... within this group
        return cls(
            rows=np.diff(np.r_[starts, len(group)]),
            clicks=clicks,
            place=starts - np.repeat(begins, runs),
            first_of_group=first,
            opens=(clicks > 0) & (before == 0),
        )

    def over_groups(self, values: NDArray[Any]) -> NDArray[Any]:
        """(G,) sums."""
        total: NDArray[Any] = np.add.reduceat(values, self.first_of_group)
        return total


def _first_click(runs: _Runs, inside: Ints) -> tuple[Floats, Floats]:
    """Of each run, the mean of 1 / place of its first click, and the chance of one among k.

    Of n rows with c clicks the first stands at offset j in C(n-j-1, c-1) of C(n, c) orders.
    """
    opens = np.flatnonzero(runs.opens & (inside > 0))
    length = inside[opens]
    run = np.repeat(opens, length)
    offset = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    n, c = runs.rows[run], runs.clicks[run]
    possible = n - offset - 1 >= c - 1
    chance = np.zeros(len(run))
    factorial = np.r_[0.0, np.cumsum(np.log(np.arange(1, runs.rows.max() + 1)))]

    def chosen(n: Ints, c: Ints) -> Floats:
        """log C(n, c)"""
        return cast(Floats, factorial[n] - factorial[c] - factorial[n - c])

    n, c, j = n[possible], c[possible], offset[possible]
    chance[possible] = np.exp(chosen(n - j - 1, c - 1) - chosen(n, c))
    size = len(runs.rows)
    mrr: Floats = np.bincount(run, chance / (runs.place[run] + offset + 1), size).astype(np.float64)
    hit: Floats = np.minimum(np.bincount(run, chance, size), 1.0)
    return mrr, hit


def _discounts(k: int) -> Floats:
    """(k + 1,) what the first 0, 1, … k places are worth together."""
    return np.concatenate([np.zeros(1), np.cumsum(1 / np.log2(np.arange(k) + 2))])

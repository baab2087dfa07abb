"""Confidence intervals by resampling users, and paired differences of two models.

Rows of one user are not independent, so users are drawn with replacement, not rows. n rows,
U users, R replicates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmrec.errors import positive, require
from mmrec.metrics.auc import tie_starts, user_aucs
from mmrec.metrics.calibration import row_logloss
from mmrec.metrics.inputs import Floats, checked

# (U,) draws of each user -> the metric, NaN where it is undefined
Statistic = Callable[[NDArray[np.int64]], float]

METRICS = ("auc", "logloss", "gauc")


@dataclass(frozen=True)
class Interval:
    """A figure with its percentile interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Replicates:
    """A metric, and what it is in each of R resamplings of the users.

    Attributes:
        value: of the rows as they are.
        drawn: (R,) float64, NaN where a resampling has one class only.
    """

    value: float
    drawn: Floats

    def __sub__(self, other: Replicates) -> Replicates:
        """The difference of two models; both must come from the same users, seed and R."""
        return Replicates(self.value - other.value, self.drawn - other.drawn)

    def interval(self, level: float = 0.95) -> Interval:
        """The percentile interval that leaves (1 - level) / 2 of the resamplings on each side."""
        require(0 < level < 1, f"level must lie in (0, 1), got {level}")
        drawn = self.drawn[np.isfinite(self.drawn)]
        require(len(drawn), "no replicate has both classes: too few clicks for an interval")
        tail = (1 - level) / 2
        low, high = np.quantile(drawn, [tail, 1 - tail])
        return Interval(self.value, float(low), float(high))


def bootstrap(
    metric: str,
    user: ArrayLike,
    label: ArrayLike,
    score: ArrayLike,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> Replicates:
    """`metric` ("auc", "logloss" of logits, or "gauc") over R resamplings of the users.

    The same users and seed give the same resamplings, so the replicates of two models can be
    subtracted, averaged over training seeds and so on before an interval is taken. The difference
    of two models is told far better so than by an interval of each.

    Raises:
        InputError: an unknown metric, input that the metric refuses, or fewer than two users.
    """
    positive(replicates=replicates)
    unique, index = np.unique(np.asarray(user), return_inverse=True)
    users = len(unique)
    require(users >= 2, f"resampling users needs at least two of them, got {users}")
    statistic = _statistic(metric, index, label, score)
    rng = np.random.default_rng(seed)
    drawn = [
        statistic(np.bincount(rng.integers(0, users, users), minlength=users))
        for _ in range(replicates)
    ]
    return Replicates(statistic(np.ones(users, dtype=np.int64)), np.array(drawn))


def _statistic(
    metric: str, index: NDArray[np.int64], label: ArrayLike, score: ArrayLike
) -> Statistic:
    """`index`: each row's user as 0 … U - 1."""
    require(metric in METRICS, f"metric must be one of {METRICS}, got {metric!r}")
    labels, scores = checked(label, score)
    require(
        len(labels) == len(index),
        f"user and label must have one length, got {len(index)}, {len(labels)}",
    )
    if metric == "auc":
        return _weighted_auc(index, labels, scores)
    if metric == "logloss":
        sums: Floats = np.bincount(index, row_logloss(labels, scores)).astype(np.float64)
        return _mean_over_users(sums, np.bincount(index).astype(np.int64))
    values, rows, defined = user_aucs(index, labels, scores)
    return _mean_over_users(values * rows * defined, rows * defined)


def _mean_over_users(sums: Floats, rows: NDArray[np.int64]) -> Statistic:
    """Both metrics that are means over rows need only each user's sum and rows."""

    def mean(draws: NDArray[np.int64]) -> float:
        total = float(draws @ rows)
        return float(draws @ sums) / total if total else float("nan")

    return mean


def _weighted_auc(index: NDArray[np.int64], labels: Floats, scores: Floats) -> Statistic:
    """AUC where row i counts draws[index[i]] times; sorted once, then linear in n."""
    order = np.argsort(scores, kind="stable")
    starts = tie_starts(scores[order])
    user, clicked = index[order], labels[order]

    def auc(draws: NDArray[np.int64]) -> float:
        weights = draws[user].astype(np.float64)
        positives = np.add.reduceat(weights * clicked, starts)
        negatives = np.add.reduceat(weights, starts) - positives
        pairs = float(positives.sum() * negatives.sum())
        lower = np.cumsum(negatives) - negatives
        return float(positives @ (lower + negatives / 2)) / pairs if pairs else float("nan")

    return auc

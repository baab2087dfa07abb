"""The statistics of the audit: an AUC with its error, positive rates, and what is a finding.

n rows, n+ of them positive and n- negative, C clusters (users), N items.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrec.audit.scan.rows import FEWEST_USERS

Array = NDArray[Any]
Floats = NDArray[np.float64]

SMOOTHING = 10.0  # rows of the average that the positive rate of an item or user is mixed with
FAMILY_ERROR = 0.001  # chance that an audit of sound data raises any finding by these tests


@dataclass(frozen=True)
class Measured:
    """An estimate with two standard errors.

    Attributes:
        value: the estimate.
        error: standard error of the estimate, for its interval.
        null_error: standard error if there were nothing to find, for the test.
        rows: how many rows it rests on.
    """

    value: float
    error: float
    null_error: float
    rows: int

    def z(self, null: float = 0.5) -> float:
        """Distance from `null` in standard errors; 0 where there is nothing to measure."""
        distance = self.value - null
        if self.null_error > 0:
            return distance / self.null_error
        return 0.0 if distance == 0 else math.copysign(math.inf, distance)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Normal interval that covers the truth with probability `level`."""
        half = NormalDist().inv_cdf(0.5 + level / 2) * self.error
        return self.value - half, self.value + half

    def __format__(self, spec: str) -> str:
        """The estimate and its 95 % interval, each as `spec` says."""
        low, high = self.interval()
        return f"{self.value:{spec}} [{low:{spec}}, {high:{spec}}]"

    def to_json(self) -> dict[str, float | int]:
        """Estimate, 95 % interval and rows, for a report."""
        low, high = self.interval()
        return {
            "value": round(self.value, 5),
            "low": round(low, 5),
            "high": round(high, 5),
            "rows": self.rows,
        }


NOTHING = Measured(0.5, 0.0, 0.0, 0)


@dataclass(frozen=True)
class Standard:
    """When a difference is a finding: it must be real, and it must matter.

    Real: further from chance than `z` standard errors, the two-sided normal quantile of
    `FAMILY_ERROR / tests` (Bonferroni), so that the error of all tests together stays at
    `FAMILY_ERROR`. Matters: larger than `resolution`, the 95 % half-width of the AUC of a
    random score on the validation split, so that it can change what that split says.
    """

    z: float
    resolution: float

    @classmethod
    def of(cls, *, tests: int, positives: int, negatives: int) -> Standard:
        """The standard for `tests` tests and a validation split of so many rows."""
        z = NormalDist().inv_cdf(1 - FAMILY_ERROR / (2 * max(tests, 1)))
        if min(positives, negatives) < 1:
            return cls(z, 0.5)
        variance = (positives + negatives + 1) / (12 * positives * negatives)
        return cls(z, min(0.5, 1.96 * math.sqrt(variance)))

    def real(self, measured: Measured, null: float = 0.5) -> bool:
        """Whether chance is ruled out."""
        return abs(measured.z(null)) > self.z

    def found(self, measured: Measured) -> bool:
        """Whether an AUC is neither chance nor too small to matter."""
        return self.real(measured) and abs(measured.value - 0.5) > self.resolution

    def decides(self, measured: Measured, honest: float) -> bool:
        """Whether an AUC, in either direction, halves the error that `honest` leaves.

        The error is the share 1 - AUC of pairs put in the wrong order. A single column that
        surely orders half of the pairs which items and users get wrong is no ordinary feature.
        """
        strength = abs(measured.value - 0.5) + 0.5
        low = strength - self.z * measured.error
        return self.found(measured) and low > 0.5 + honest / 2

    def share(self, count: int, total: int) -> bool:
        """Whether a share of rows is surely larger than the resolution.

        Rows, a share s of all, take part in less than 2s of the pairs; putting them at random
        instead of right therefore moves the AUC by at most s.
        """
        return total > 0 and lower_share(count, total, self.z) > self.resolution


def lower_share(count: int, total: int, z: float) -> float:
    """Lower end of Wilson's interval for a share (Wilson 1927)."""
    share = count / total
    centre = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return float(max(0.0, (centre - half) / (1 + z * z / total)))


def clusters_of(users: Array) -> NDArray[np.int64]:
    """Each row's cluster: its user, or the row itself where users are too few to compare."""
    _, cluster = np.unique(users, return_inverse=True)
    if not len(cluster) or int(cluster.max()) + 1 < FEWEST_USERS:
        return np.arange(len(users), dtype=np.int64)
    return np.asarray(cluster, dtype=np.int64)


def clustered_error(influence: Floats, cluster: NDArray[np.int64]) -> float:
    """Standard error of a sum of per-row influences (n,) whose clusters are independent."""
    sums = np.bincount(cluster, weights=influence)
    size = int((np.bincount(cluster) > 0).sum())
    return math.sqrt(float(sums @ sums) * size / (size - 1)) if size > 1 else 0.0


def influence(label: Array, score: Array) -> tuple[float, Floats]:
    """AUC and each row's influence on it, which sum to 0 (DeLong et al. 1988).

    A positive counts with the share of negatives below it less the AUC, over n+; a negative
    with the share of positives above it less the AUC, over n-. Ties count one half.
    """
    positive = np.asarray(label) > 0
    values, place = np.unique(np.asarray(score), return_inverse=True)
    above = np.bincount(place, weights=positive, minlength=len(values))
    below = np.bincount(place, weights=~positive, minlength=len(values))
    n_pos, n_neg = above.sum(), below.sum()
    if n_pos == 0 or n_neg == 0:
        return 0.5, np.zeros(len(place))
    negatives_under = (np.cumsum(below) - below / 2) / n_neg
    positives_over = 1 - (np.cumsum(above) - above / 2) / n_pos
    auc = float(above @ negatives_under / n_pos)
    rows = np.where(
        positive, (negatives_under[place] - auc) / n_pos, (positives_over[place] - auc) / n_neg
    )
    return auc, rows


def measure(label: Array, score: Array, cluster: NDArray[np.int64]) -> Measured:
    """AUC of a score against a label, with errors that know rows of one user go together.

    The interval's error sums influences within clusters (Obuchowski 1997). The test's error is
    the larger of the same for a score without effect and of the Mann-Whitney variance with ties,
    because the first alone is too small when few rows differ from the rest.
    """
    positive = np.asarray(label) > 0
    n, n_pos = len(positive), int(positive.sum())
    n_neg = n - n_pos
    if n_pos == 0 or n_neg == 0:
        return Measured(0.5, 0.0, 0.0, n)
    auc, rows = influence(positive, score)
    _, place, ties = np.unique(np.asarray(score), return_inverse=True, return_counts=True)
    middle = (np.cumsum(ties) - (ties - 1) / 2)[place] - (n + 1) / 2  # mid-ranks, centred
    score_test = middle * (positive - n_pos / n) / (n_pos * n_neg)
    tied = float((ties.astype(float) ** 3 - ties).sum()) / (float(n) ** 3 - n)
    mann_whitney = math.sqrt(max(0.0, (n + 1) / (12 * n_pos * n_neg) * (1 - tied)))
    null_error = max(clustered_error(score_test, cluster), mann_whitney)
    return Measured(auc, clustered_error(rows, cluster), null_error, n)


def difference(label: Array, first: Array, second: Array, cluster: NDArray[np.int64]) -> Measured:
    """AUC of `first` less AUC of `second` on the same rows, with its paired error."""
    a, rows_a = influence(label, first)
    b, rows_b = influence(label, second)
    error = clustered_error(rows_a - rows_b, cluster)
    return Measured(a - b, error, error, len(rows_a))


def within(group: Array, flag: Array, label: Array, cluster: NDArray[np.int64]) -> float:
    """z of the association between a flag and the label inside groups, none between them.

    S = sum over rows of (flag - its group's mean) (label - its group's mean); groups of one row
    say nothing. The error is the larger of the clustered one and the stratified permutation's.
    """
    _, place = np.unique(group, return_inverse=True)
    size = np.bincount(place).astype(float)
    many = size[place] > 1
    if not many.any():
        return 0.0

    def centred(values: Array) -> Floats:
        mean = np.bincount(place, weights=values) / size
        return np.asarray(values - mean[place], dtype=np.float64)

    flag, label = centred(np.asarray(flag, float)), centred(np.asarray(label, float))
    correction = np.where(many, size[place] / np.maximum(size[place] - 1, 1), 0.0)
    spread = np.bincount(place, weights=label**2) / np.maximum(size - 1, 1)
    permuted = math.sqrt(float((flag**2 * spread[place])[many].sum()))
    clustered = clustered_error(flag * label * np.sqrt(correction), cluster)
    error = max(permuted, clustered)
    return float((flag * label)[many].sum()) / error if error > 0 else 0.0


def smoothed(positive: Array, rows: Array, prior: Array | float | None = None) -> Floats:
    """(positives + s prior) / (rows + s) of each group; the prior is their average unless given."""
    if prior is None:
        prior = positive.sum() / max(1.0, rows.sum())
    return np.asarray((positive + SMOOTHING * prior) / (rows + SMOOTHING), dtype=np.float64)


def item_means(targets: Array, folds: tuple[int, ...] = (0, 1)) -> Floats:
    """(N,) positive rate of each item in these halves of `targets` (2 halves, 2 labels, N)."""
    negative, positive = targets[list(folds)].sum(axis=0)
    return smoothed(positive, positive + negative)


def group_means(group: Array, label: Array, some: Array) -> Floats:
    """(n,) positive rate of each row's group, among the rows of the mask `some`."""
    _, place = np.unique(group, return_inverse=True)
    positive = np.bincount(place, weights=some & (label > 0))
    return smoothed(positive, np.bincount(place, weights=some))[place]


def list_means(codes: Array, label: Array, some: Array) -> Floats:
    """(n,) the mean over each row's values (n, W) of their positive rates, as `group_means`.

    Code 0 is no value; a row without any has the average of the rows of `some`.
    """
    values, place = np.unique(codes, return_inverse=True)
    row, _ = np.nonzero(codes)
    place = place.reshape(codes.shape)[codes != 0]
    average = float(label[some].mean()) if some.any() else 0.0
    positive = np.bincount(place, weights=(some & (label > 0))[row], minlength=len(values))
    rate = smoothed(positive, np.bincount(place, some[row], len(values)), average)
    size = np.bincount(row, minlength=len(codes))
    total = np.bincount(row, weights=rate[place], minlength=len(codes))
    return np.where(size > 0, total / np.maximum(size, 1), average)

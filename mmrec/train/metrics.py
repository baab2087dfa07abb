"""Ranking and calibration metrics of predicted clicks, in float64 numpy, usable alone.

n rows, U users. `score` is anything that ranks (logits or probabilities); `probability` lies in
[0, 1]. Intervals for all of them are in `mmrec.train.intervals`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmrec.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def auc(label: ArrayLike, score: ArrayLike) -> float:
    """Area under the ROC curve: P(score of a click > score of a non-click), ties counting half.

    Args:
        label: (n,) values in {0, 1}.
        score: (n,) finite numbers.

    Raises:
        InputError: all labels equal, a label outside {0, 1}, or a score that is not finite.

    >>> auc([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.8])
    0.875
    """
    labels, scores = checked(label, score)
    order = np.argsort(scores, kind="stable")
    positives, negatives = class_counts(labels[order], tie_starts(scores[order]))
    return auc_of_counts(positives, negatives)


def logloss(label: ArrayLike, probability: ArrayLike) -> float:
    """Mean of -[y log p + (1 - y) log(1 - p)]; p is kept eps away from 0 and 1.

    eps is the rounding of the array that came in (2.2e-16 for float64, 1.2e-7 for float32 and
    narrower), so that a prediction rounded to exactly 0 or 1 costs what its precision can tell.

    >>> round(logloss([1, 0], [0.5, 0.5]), 6)
    0.693147
    """
    labels, probabilities = checked(label, probability)
    _require_probability(probabilities)
    width = np.asarray(probability).dtype
    eps = float(
        np.finfo(np.float64 if width == np.float64 or width.kind != "f" else np.float32).eps
    )
    clipped = np.clip(probabilities, eps, 1 - eps)
    return float(-np.mean(labels * np.log(clipped) + (1 - labels) * np.log1p(-clipped)))


def logloss_of_logits(label: ArrayLike, logit: ArrayLike) -> float:
    """Mean of log(1 + e^z) - y z: the logloss of sigmoid(z), exact where sigmoid would round.

    >>> round(logloss_of_logits([1, 0], [0.0, 0.0]), 6)
    0.693147
    """
    return float(np.mean(row_logloss(label, logit)))


def row_logloss(label: ArrayLike, logit: ArrayLike) -> Floats:
    """(n,) log(1 + e^z) - y z, the loss of each row."""
    labels, logits = checked(label, logit)
    return np.logaddexp(0.0, logits) - labels * logits


@dataclass(frozen=True)
class GroupAUC:
    """AUC inside each user, averaged over users by their rows.

    Attributes:
        auc: mean over users that have both classes, weighted by rows.
        user_coverage: share of all users that have both classes.
        row_coverage: share of all rows that belong to such users.
    """

    auc: float
    user_coverage: float
    row_coverage: float


def gauc(user: ArrayLike, label: ArrayLike, score: ArrayLike) -> GroupAUC:
    """Row-weighted mean of per-user AUC, with the share of users and rows it covers.

    A user whose rows are all clicked, or all not, has no AUC and is left out: say the coverage
    beside the figure.

    Raises:
        InputError: no user has both classes, or input that `auc` refuses.

    >>> gauc([1, 1, 2, 2, 3], [0, 1, 1, 0, 1], [0.1, 0.2, 0.3, 0.4, 0.5])
    GroupAUC(auc=0.5, user_coverage=0.6666666666666666, row_coverage=0.8)
    """
    values, rows, defined = user_aucs(user, label, score)
    covered = int(rows[defined].sum())
    if covered == 0:
        raise InputError(f"gAUC needs a user with both classes, none of {len(rows)} users has both")
    mean = float(np.sum(values[defined] * rows[defined]) / covered)
    return GroupAUC(mean, float(np.mean(defined)), covered / int(rows.sum()))


def user_aucs(
    user: ArrayLike, label: ArrayLike, score: ArrayLike
) -> tuple[Floats, Ints, NDArray[np.bool_]]:
    """By ascending user id: AUC (0 where undefined), rows, and whether it is defined."""
    labels, scores = checked(label, score)
    users = np.asarray(user)
    if users.shape != labels.shape:
        raise InputError(f"user and label must have one shape, got {users.shape}, {labels.shape}")
    order = np.lexsort((scores, users))
    users, labels, scores = users[order], labels[order], scores[order]
    first_of_user = np.flatnonzero(np.r_[True, users[1:] != users[:-1]])
    starts = np.flatnonzero(np.r_[True, (users[1:] != users[:-1]) | (scores[1:] != scores[:-1])])
    positives, negatives = class_counts(labels, starts)  # per (user, score) group
    group_of_user = np.searchsorted(starts, first_of_user)
    all_positives = np.add.reduceat(positives, group_of_user)
    all_negatives = np.add.reduceat(negatives, group_of_user)
    lower = np.cumsum(negatives) - negatives  # negatives before this group, over all users
    groups = np.diff(np.r_[group_of_user, len(starts)])
    lower = lower - np.repeat(lower[group_of_user], groups)  # ... within this user
    wins = np.add.reduceat(positives * (lower + negatives / 2), group_of_user)
    pairs = all_positives * all_negatives
    defined = pairs > 0
    values = np.where(defined, wins / np.maximum(pairs, 1), 0.0)
    return values, (all_positives + all_negatives).astype(np.int64), defined


def calibration_error(label: ArrayLike, probability: ArrayLike, *, bins: int = 20) -> float:
    """Equal-mass expected calibration error: Σ_b (n_b / n) |mean p in b - mean y in b|.

    Bins hold equally many rows (arXiv:1904.01685); rows of one predicted value share their mean
    label, so that the order of ties cannot matter.

    >>> round(calibration_error([0, 1], [0.5, 0.5], bins=1), 6)
    0.0
    """
    predicted, observed, rows = calibration_curve(label, probability, bins=bins)
    return float(np.sum(rows / rows.sum() * np.abs(predicted - observed)))


def calibration_curve(
    label: ArrayLike, probability: ArrayLike, *, bins: int = 20
) -> tuple[Floats, Floats, Ints]:
    """Mean prediction, click rate and rows of each equal-mass bin, by ascending prediction."""
    labels, probabilities = checked(label, probability)
    _require_probability(probabilities)
    if bins < 1:
        raise InputError(f"bins must be at least 1, got {bins}")
    order = np.argsort(probabilities, kind="stable")
    p, y = probabilities[order], labels[order]
    starts = tie_starts(p)
    ties = np.diff(np.r_[starts, len(p)])
    y = np.repeat(np.add.reduceat(y, starts) / ties, ties)
    edges = np.unique(np.linspace(0, len(p), bins + 1).round().astype(np.int64))
    rows = np.diff(edges)
    return np.add.reduceat(p, edges[:-1]) / rows, np.add.reduceat(y, edges[:-1]) / rows, rows


def predicted_over_observed(label: ArrayLike, probability: ArrayLike) -> float:
    """Σ p / Σ y: above 1 the model promises more clicks than came.

    >>> predicted_over_observed([1, 0, 0, 0], [0.5, 0.25, 0.0, 0.25])
    1.0
    """
    labels, probabilities = checked(label, probability)
    _require_probability(probabilities)
    clicks = float(labels.sum())
    if clicks == 0:
        raise InputError(f"predicted/observed needs a click, all {len(labels)} labels are 0")
    return float(probabilities.sum()) / clicks


def checked(label: ArrayLike, score: ArrayLike) -> tuple[Floats, Floats]:
    """Both as float64 vectors of one length; labels in {0, 1}, scores finite."""
    labels: Floats = np.asarray(label, dtype=np.float64)
    scores: Floats = np.asarray(score, dtype=np.float64)
    if labels.shape != scores.shape or labels.ndim != 1:
        raise InputError(
            f"label and score must be vectors of one length, got {labels.shape}, {scores.shape}"
        )
    if len(labels) == 0:
        raise InputError("metrics need at least one row, got none")
    _require(np.isfinite(scores), scores, "scores must be finite")
    _require((labels == 0) | (labels == 1), labels, "labels must be 0 or 1")
    return labels, scores


def tie_starts(ordered: NDArray[Any]) -> Ints:
    """Positions in a sorted vector where a new value begins."""
    return np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]).astype(np.int64)


def class_counts(ordered_labels: Floats, starts: Ints) -> tuple[Floats, Floats]:
    """Clicks and non-clicks in each run of equal scores."""
    sizes = np.diff(np.r_[starts, len(ordered_labels)])
    positives: Floats = np.add.reduceat(ordered_labels, starts)
    return positives, sizes - positives


def auc_of_counts(positives: Floats, negatives: Floats) -> float:
    """AUC from (weighted) clicks and non-clicks per distinct score, ascending."""
    all_positives, all_negatives = float(positives.sum()), float(negatives.sum())
    if all_positives == 0 or all_negatives == 0:
        rows = all_positives + all_negatives
        raise InputError(
            f"AUC needs both classes, all {rows:.0f} labels are {int(all_positives > 0)}"
        )
    lower = np.cumsum(negatives) - negatives
    return float(np.sum(positives * (lower + negatives / 2)) / all_positives / all_negatives)


def _require(good: NDArray[np.bool_], values: Floats, rule: str) -> None:
    if not good.all():
        at = int(np.argmin(good))
        raise InputError(f"{rule}, got {values[at]} at position {at} of {len(values)}")


def _require_probability(values: Floats) -> None:
    _require((values >= 0) & (values <= 1), values, "probabilities must lie in [0, 1]")

"""Area under the ROC curve, over all rows and within users.

n rows, U users. `score` is anything that ranks (logits or probabilities).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmrec.errors import require
from mmrec.metrics.inputs import Floats, Ints, checked


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
    clicks, others = float(positives.sum()), float(negatives.sum())
    require(
        clicks and others, f"AUC needs both classes, all {len(labels)} labels are {int(clicks > 0)}"
    )
    lower = np.cumsum(negatives) - negatives
    return float(np.sum(positives * (lower + negatives / 2)) / clicks / others)


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
    require(covered, f"gAUC needs a user with both classes, none of {len(rows)} users has both")
    mean = float(np.sum(values[defined] * rows[defined]) / covered)
    return GroupAUC(mean, float(np.mean(defined)), covered / int(rows.sum()))


def user_aucs(
    user: ArrayLike, label: ArrayLike, score: ArrayLike
) -> tuple[Floats, Ints, NDArray[np.bool_]]:
    """By ascending user id: AUC (0 where undefined), rows, and whether it is defined."""
    labels, scores = checked(label, score)
    users = np.asarray(user)
    require(
        users.shape == labels.shape,
        f"user and label must have one shape, got {users.shape}, {labels.shape}",
    )
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


def tie_starts(ordered: NDArray[Any]) -> Ints:
    """Positions in a sorted vector where a new value begins."""
    return np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]).astype(np.int64)


def class_counts(ordered_labels: Floats, starts: Ints) -> tuple[Floats, Floats]:
    """Clicks and non-clicks in each run of equal scores."""
    sizes = np.diff(np.r_[starts, len(ordered_labels)])
    positives: Floats = np.add.reduceat(ordered_labels, starts)
    return positives, sizes - positives

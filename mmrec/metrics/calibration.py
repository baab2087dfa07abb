"""How well probabilities are met by clicks: logloss, calibration curve and its error.

n rows. `probability` lies in [0, 1].
"""

import numpy as np
from numpy.typing import ArrayLike

from mmrec.errors import positive, require
from mmrec.metrics.auc import tie_starts
from mmrec.metrics.inputs import Floats, Ints, checked, require_probability


def logloss(label: ArrayLike, probability: ArrayLike) -> float:
    """Mean of -[y log p + (1 - y) log(1 - p)]; p is kept eps away from 0 and 1.

    eps is the rounding of the array that came in (2.2e-16 for float64, 1.2e-7 for float32 and
    narrower), so that a prediction rounded to exactly 0 or 1 costs what its precision can tell.

    >>> round(logloss([1, 0], [0.5, 0.5]), 6)
    0.693147
    """
    labels, probabilities = checked(label, probability)
    require_probability(probabilities)
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
    require_probability(probabilities)
    positive(bins=bins)
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
    require_probability(probabilities)
    clicks = float(labels.sum())
    require(clicks, f"predicted/observed needs a click, all {len(labels)} labels are 0")
    return float(probabilities.sum()) / clicks

"""What every metric asks of its input, in float64.

Next: `auc.py`, `calibration.py`.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmrec.errors import InputError, require

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def checked(label: ArrayLike, score: ArrayLike) -> tuple[Floats, Floats]:
    """Both as float64 vectors of one length; labels in {0, 1}, scores finite."""
    try:
        labels: Floats = np.asarray(label, dtype=np.float64)
        scores: Floats = np.asarray(score, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise InputError(f"label and score must be vectors of numbers: {error}") from None
    require(
        labels.shape == scores.shape and labels.ndim == 1,
        f"label and score must be vectors of one length, got {labels.shape}, {scores.shape}",
    )
    require(len(labels), "metrics need at least one row, got none")
    _require(np.isfinite(scores), scores, "scores must be finite")
    _require((labels == 0) | (labels == 1), labels, "labels must be 0 or 1")
    return labels, scores


def _require(good: NDArray[np.bool_], values: Floats, rule: str) -> None:
    if not good.all():
        at = int(np.argmin(good))
        raise InputError(f"{rule}, got {values[at]} at position {at} of {len(values)}")


def require_probability(values: Floats) -> None:
    _require((values >= 0) & (values <= 1), values, "probabilities must lie in [0, 1]")

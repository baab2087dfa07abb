"""Metrics of predicted clicks: numbers in, numbers out, numpy alone.

Read `auc.py` first, then `calibration.py` and `intervals.py` (what a difference is worth);
`inputs.py` checks what comes in.
"""

from mmrec.metrics.auc import GroupAUC, auc, gauc, user_aucs
from mmrec.metrics.calibration import (
    calibration_curve,
    calibration_error,
    logloss,
    logloss_of_logits,
    predicted_over_observed,
)
from mmrec.metrics.intervals import Interval, Replicates, bootstrap

__all__ = [
    "GroupAUC",
    "Interval",
    "Replicates",
    "auc",
    "bootstrap",
    "calibration_curve",
    "calibration_error",
    "gauc",
    "logloss",
    "logloss_of_logits",
    "predicted_over_observed",
    "user_aucs",
]

"""Metrics of predicted clicks: numbers in, numbers out, numpy alone.

Read `auc.py` first, then `ranking.py` (the first k of a group), `calibration.py` and `intervals.py`
(what a difference is worth); `inputs.py` checks what comes in.
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
from mmrec.metrics.ranking import RankingAtK, ranking_at_k

__all__ = [
    "GroupAUC",
    "Interval",
    "RankingAtK",
    "Replicates",
    "auc",
    "bootstrap",
    "calibration_curve",
    "calibration_error",
    "gauc",
    "logloss",
    "logloss_of_logits",
    "predicted_over_observed",
    "ranking_at_k",
    "user_aucs",
]

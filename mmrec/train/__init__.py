"""Training: `fit`, its settings, checkpoints, metrics and what ranks tell each other."""

from mmrec.train.batch_size import largest_batch_size
from mmrec.train.checkpoint import Checkpoint, load_checkpoint, load_weights, save_checkpoint
from mmrec.train.config import TrainConfig
from mmrec.train.distributed import World, current_world, from_first, process_group
from mmrec.train.evaluate import Scores, evaluate, score
from mmrec.train.guard import Diverged
from mmrec.train.interrupt import Interrupted
from mmrec.train.intervals import (
    Interval,
    Replicates,
    bootstrap,
    interval,
    paired_difference,
)
from mmrec.train.loaders import BatchLoader
from mmrec.train.log import read_log
from mmrec.train.metrics import (
    GroupAUC,
    auc,
    calibration_curve,
    calibration_error,
    gauc,
    logloss,
    logloss_of_logits,
    predicted_over_observed,
)
from mmrec.train.progress import FitResult
from mmrec.train.trainer import fit

__all__ = [
    "BatchLoader",
    "Checkpoint",
    "Diverged",
    "FitResult",
    "GroupAUC",
    "Interrupted",
    "Interval",
    "Replicates",
    "Scores",
    "TrainConfig",
    "World",
    "auc",
    "bootstrap",
    "calibration_curve",
    "calibration_error",
    "current_world",
    "evaluate",
    "fit",
    "from_first",
    "gauc",
    "interval",
    "largest_batch_size",
    "load_checkpoint",
    "load_weights",
    "logloss",
    "logloss_of_logits",
    "paired_difference",
    "predicted_over_observed",
    "process_group",
    "read_log",
    "save_checkpoint",
    "score",
]

"""Training: `fit`, its settings, checkpoints and what ranks tell each other.

Read `trainer.py` first, then `step/` (one training step) and `state/` (what a run leaves on disk).
`loaders.py` says what a loader must do and brings its batches to the device, `evaluate.py` scores
them; `callback.py` is what hears of a run, `interrupt.py` is for signals, `randomness.py` for the
caller's generators, `distributed.py` for several ranks, and `batch_size.py` finds the largest batch
that fits.
"""

from mmrec.config import TrainConfig
from mmrec.train.batch_size import largest_batch_size, settled_batch_size
from mmrec.train.callback import Callback, TensorBoard, numbers
from mmrec.train.distributed import World, current_world, from_first, process_group
from mmrec.train.evaluate import Scores, score
from mmrec.train.interrupt import Interrupted
from mmrec.train.loaders import BatchLoader
from mmrec.train.state.checkpoint import Checkpoint, load_checkpoint, load_weights, save_checkpoint
from mmrec.train.state.log import read_log
from mmrec.train.state.progress import FitResult
from mmrec.train.step.guard import Diverged
from mmrec.train.step.stepper import HasAuxiliary
from mmrec.train.trainer import fit

__all__ = [
    "BatchLoader",
    "Callback",
    "Checkpoint",
    "Diverged",
    "FitResult",
    "HasAuxiliary",
    "Interrupted",
    "Scores",
    "TensorBoard",
    "TrainConfig",
    "World",
    "current_world",
    "fit",
    "from_first",
    "largest_batch_size",
    "load_checkpoint",
    "load_weights",
    "numbers",
    "process_group",
    "read_log",
    "save_checkpoint",
    "score",
    "settled_batch_size",
]

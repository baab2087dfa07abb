"""The checkpoints of one run: which are kept, and whose they are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mmrec.io.identity import require_same
from mmrec.io.provenance import provenance
from mmrec.train.distributed import World, barrier
from mmrec.train.state.checkpoint import (
    Checkpoint,
    Kind,
    checkpoint_files,
    checkpoint_path,
    newest_checkpoint,
    prune,
    save_checkpoint,
)


class Store:
    """`out/checkpoints` of one run. Only the first rank writes; all ranks read.

    Args:
        identity: name -> what the run is made of (recipe, settings, data); it goes into every
            checkpoint, and a checkpoint with another is refused.
        keep_last: newest checkpoints kept besides the best.
    """

    def __init__(
        self, out: Path, *, identity: Mapping[str, Any], keep_last: int, world: World
    ) -> None:
        self.directory = out / "checkpoints"
        self.identity, self.keep_last, self.world = dict(identity), keep_last, world

    def open(self, *, restart: bool) -> Checkpoint | None:
        """The newest complete checkpoint of this very run; `restart` removes all there are."""
        if restart and self.world.is_first:
            prune(self.directory, "last", keep=())
            prune(self.directory, "best", keep=())
        barrier()
        found = newest_checkpoint(self.directory, "last")
        barrier()
        if found is not None:
            stored = {what: found.content[what] for what in self.identity}
            remedy = "put it back, or start from scratch (--restart)"
            require_same(stored, self.identity, where=found.path, remedy=remedy)
        return found

    def write(
        self, kind: Kind, step: int, *, tensors: Mapping[str, Tensor], content: Mapping[str, Any]
    ) -> None:
        """Write one."""
        if self.world.is_first:
            body = {**self.identity, **content, "written_by": provenance()}
            save_checkpoint(self.directory, kind, step, tensors=tensors, content=body)

    def retain(self, *, best_step: int | None) -> None:
        """After a new `last`: drop old ones, and every `best` that this one does not know.

        Only now, so that a run killed between the two still finds the best its `last` speaks of.
        """
        if self.world.is_first:
            newest = checkpoint_files(self.directory, "last")[: self.keep_last]
            prune(self.directory, "last", keep=newest)
            prune(self.directory, "best", keep=[] if best_step is None else [self.best(best_step)])

    def best(self, step: int) -> Path:
        """Where the best checkpoint of that step is."""
        return checkpoint_path(self.directory, "best", step)

    def last(self) -> Path | None:
        """The newest `last` checkpoint."""
        return next(iter(checkpoint_files(self.directory, "last")), None)

"""What a run says: `log.jsonl`, TensorBoard where asked for."""

import json
from pathlib import Path
from typing import Any

from mmrec.errors import InputError, require
from mmrec.io.files import replacing


class RunLog:
    """One JSON object a line. A resumed run first drops the lines its checkpoint does not know,
    so that every event stands in the file once; TensorBoard is told to hide what came after `step`.

    Events: "train" (mean loss of the last `log_every` steps, learning rate, rows per second,
    share of time spent waiting for data), "valid" (metrics, and whether they are the best so far),
    "skipped" (a step that went wrong, with its row numbers). `epochs` is how many lie behind.
    """

    def __init__(self, out: Path, *, keep: int, step: int, active: bool, tensorboard: bool) -> None:
        self.path = out / "log.jsonl"
        self.lines = keep
        self._active = active
        self._board: Any = None
        if not active:
            return
        lines = self.path.read_text().splitlines(keepends=True) if self.path.exists() else []
        with replacing(self.path) as temporary:
            temporary.write_text("".join(lines[:keep]))
        if tensorboard:
            self._board = _summary_writer(out / "tensorboard", step)

    def write(self, event: str, step: int, **values: Any) -> None:
        """Append one line; numbers also go to TensorBoard as `event/name`."""
        self.lines += 1
        if not self._active:
            return
        with open(self.path, "a") as handle:
            handle.write(json.dumps({"event": event, "step": step, **values}) + "\n")
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(f"{event}/{name}", value, step)

    def close(self) -> None:
        """Flush what is buffered."""
        if self._board is not None:
            self._board.close()


def read_log(out: Path) -> list[dict[str, Any]]:
    """The events of a run, in order."""
    path = out / "log.jsonl"
    require(path.exists(), f"no training log at {path}")
    return [json.loads(line) for line in path.read_text().splitlines()]


def _summary_writer(directory: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError as error:
        raise InputError(
            "TensorBoard is not installed: pip install 'mmrec[tensorboard]'"
        ) from error
    return SummaryWriter(str(directory), purge_step=step + 1)

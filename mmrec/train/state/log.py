"""What a run says: `log.jsonl`, and a callback where there is one."""

import json
from pathlib import Path
from typing import Any

from mmrec.errors import require
from mmrec.io.files import replacing
from mmrec.train.callback import Callback


class RunLog:
    """One JSON object a line. A resumed run first drops the lines its checkpoint does not know,
    so that every event stands in the file once.

    Events: "train" (mean loss of the last `log_every` steps, learning rate, rows per second,
    share of time spent waiting for data), "valid" (metrics, and whether they are the best so far),
    "skipped" (a step that went wrong, with its row numbers). `epochs` is how many lie behind.

    A callback is told of them by `tell`, apart from `write`: it may raise where the trainer is
    between two steps, never in the midst of one. Before them it hears "start", behind them "end".
    """

    def __init__(self, out: Path, *, keep: int, active: bool, callback: Callback | None) -> None:
        self.path = out / "log.jsonl"
        self.lines = keep
        self._active = active
        self._callback = callback if active else None
        self._untold: list[tuple[str, int, dict[str, Any]]] = []
        if not active:
            return
        lines = self.path.read_text().splitlines(keepends=True) if self.path.exists() else []
        with replacing(self.path) as temporary:
            temporary.write_text("".join(lines[:keep]))

    def write(self, event: str, step: int, **values: Any) -> None:
        """Append one line."""
        self.lines += 1
        if not self._active:
            return
        with open(self.path, "a") as handle:
            handle.write(json.dumps({"event": event, "step": step, **values}) + "\n")
        self.note(event, step, **values)

    def note(self, event: str, step: int, **values: Any) -> None:
        """For the callback alone."""
        if self._callback is not None:
            self._untold.append((event, step, values))

    def tell(self) -> None:
        """Hand what is new to the callback. One that raises is called no more."""
        while self._untold and (callback := self._callback) is not None:
            self._callback = None
            callback(*self._untold.pop(0))
            self._callback = callback


def read_log(out: Path) -> list[dict[str, Any]]:
    """The events of a run, in order."""
    path = out / "log.jsonl"
    require(path.exists(), f"no training log at {path}")
    return [json.loads(line) for line in path.read_text().splitlines()]

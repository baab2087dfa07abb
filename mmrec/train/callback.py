"""What hears of a run while it goes on: a callback of `fit`, and TensorBoard as one of them.

Next: `state/log.py`, which tells a callback what it writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmrec.errors import InputError

# (event, step, values): see `fit`.
Callback = Callable[[str, int, Mapping[str, Any]], object]


def numbers(event: str, values: Mapping[str, Any]) -> dict[str, float]:
    """What a curve can be drawn of, by the names `event/name`.

    >>> numbers("train", {"loss": 0.5, "epoch": 1, "rows": [3, 4], "missing": None})
    {'train/loss': 0.5, 'train/epoch': 1.0}
    """
    return {
        f"{event}/{name}": float(value)
        for name, value in values.items()
        if isinstance(value, int | float)
    }


class TensorBoard:
    """A callback of `fit` that writes events for TensorBoard (extra `tensorboard`).

    A resumed run hides what an earlier one wrote after the step that it resumes from.

    Args:
        directory: where, e.g. `out / "tensorboard"`.

    Raises:
        InputError: TensorBoard is not installed.
    """

    def __init__(self, directory: str | Path) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise InputError(
                "TensorBoard is not installed: pip install 'mmrec[tensorboard]'"
            ) from error
        self.directory = Path(directory)
        self._open: Callable[..., Any] = SummaryWriter
        self._writer: Any = None

    def __call__(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        """Write the numbers among the values."""
        if event == "start":
            self._writer = self._open(str(self.directory), purge_step=step + 1)
        elif event == "end":
            self._writer.close()
        else:
            for name, value in numbers(event, values).items():
                self._writer.add_scalar(name, value, step)

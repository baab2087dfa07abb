"""Where a run stands: plain numbers that go into the checkpoint's JSON."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmrec.config import TrainConfig


@dataclass
class Sums:
    """Training loss summed over healthy steps, in float64 and in step order."""

    loss: float = 0.0
    rows: int = 0

    @property
    def mean(self) -> float | None:
        """Mean loss per row, None before the first healthy step."""
        return self.loss / self.rows if self.rows else None

    def add(self, loss: float, rows: int) -> None:
        """One step."""
        self.loss += loss
        self.rows += rows


@dataclass
class Progress:
    """Position, counters and the best so far.

    Attributes:
        epoch, batch: the next batch to train on; batch == the loader's length before the
            evaluation that ends the epoch.
        step: optimizer steps taken.
        evaluated: the step of the latest evaluation, -1 before the first.
        best: metrics, step and epoch of the best evaluation.
        waited: evaluations since then.
        bad_steps, bad_in_a_row: skipped steps, all and lately.
        window, in_epoch: training loss since the last log line, and in this epoch.
        history: every evaluation.
        plateau: what the "plateau" schedule has come down to.
        log_lines: lines of `log.jsonl` that belong to this state.
        finished: why the run ended, None while it has not.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    evaluated: int = -1
    best: dict[str, Any] | None = None
    waited: int = 0
    bad_steps: int = 0
    bad_in_a_row: int = 0
    window: Sums = field(default_factory=Sums)
    in_epoch: Sums = field(default_factory=Sums)
    history: list[dict[str, Any]] = field(default_factory=list)
    plateau: float = 1.0
    log_lines: int = 0
    finished: str | None = None

    def note(self, found: dict[str, Any], config: TrainConfig) -> bool:
        """Take in an evaluation; returns whether it is the best so far."""
        sign = 1 if config.metric == "auc" else -1
        best = self.best
        improved = best is None or sign * found[config.monitor] > sign * best[config.monitor]
        self.evaluated = self.step
        self.history.append(found)
        if improved:
            self.best, self.waited = found, 0
            return True
        self.waited += 1
        if self.waited % (config.plateau_patience + 1) == 0:
            self.plateau *= config.plateau_factor
        if config.patience is not None and self.waited >= config.patience:
            self.finished = "early stopping"
        return False


@dataclass(frozen=True)
class FitResult:
    """What `fit` returns; the model then holds the best weights.

    Attributes:
        best: {"auc", "logloss", "train_loss", "epoch", "step"} of the best evaluation; of several
            tasks also "task/auc", "task/logloss" of each.
        history: the same for every evaluation, in order.
        steps, epochs: optimizer steps taken, epochs completed.
        finished: "epochs" or "early stopping".
        bad_steps: steps skipped because their loss or gradient was not finite.
        best_path: the best checkpoint.
        seconds: of this call (not of earlier ones that it continued).
    """

    best: dict[str, Any]
    history: list[dict[str, Any]]
    steps: int
    epochs: int
    finished: str
    bad_steps: int
    best_path: Path
    seconds: float

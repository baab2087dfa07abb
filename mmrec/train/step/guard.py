"""Steps that went wrong: found on the device, judged by the host now and then."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmrec.errors import InputError

# No click model that can still learn pays this many nats per row: its weights have exploded.
LOSS_LIMIT = 1e3


class Diverged(InputError):
    """Too many steps in a row had a loss or gradient that was not finite."""


@dataclass(frozen=True)
class StepRecord:
    """What one step left behind.

    Attributes:
        loss: summed over the global batch's rows.
        rows: in the global batch.
        skipped: the weights were left as they were.
        norm: of the mean loss's gradient, before clipping.
        row: this rank's row numbers, one tensor per batch.
    """

    loss: float
    rows: int
    skipped: bool
    norm: float
    row: list[Tensor]


class StepRecords:
    """The latest steps' outcomes, on the device until `take` brings them over.

    Per step it costs a few tiny asynchronous copies; the host waits only in `take`.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[Tensor, list[Tensor]]] = []

    def add(self, *values: Tensor, row: list[Tensor]) -> None:
        """Remember one step: the scalars loss, rows, skipped and norm, on the device."""
        self._kept.append((torch.stack([value.double() for value in values]), row))

    def take(self) -> list[StepRecord]:
        """All since the last call; this is where the host waits for the device."""
        kept, self._kept = self._kept, []
        values = torch.stack([v for v, _ in kept]).tolist() if kept else []
        return [
            StepRecord(loss, int(rows), bool(skipped), norm, row)
            for (loss, rows, skipped, norm), (_, row) in zip(values, kept, strict=True)
        ]


def healthy(loss: Tensor, rows: Tensor, norm: Tensor) -> Tensor:
    """Scalar bool on the device: finite gradient, loss below `LOSS_LIMIT` per row."""
    return torch.isfinite(norm) & (loss < LOSS_LIMIT * rows)  # NaN < x is False


def is_overflow(record: StepRecord) -> bool:
    """A skipped step whose loss was fine: with loss scaling, the scale was too high."""
    return math.isfinite(record.loss) and record.loss < LOSS_LIMIT * record.rows


def diverged(
    record: StepRecord,
    *,
    step: int,
    in_a_row: int,
    rows: list[int],
    learning_rate: float,
    last: Path | None,
) -> Diverged:
    """The sentence that ends a run after too many bad steps."""
    shown = ", ".join(str(row) for row in rows[:10])
    shown += f", … {len(rows)} in all" if len(rows) > 10 else ""
    return Diverged(
        f"loss and gradient must be finite and the loss below {LOSS_LIMIT:g} per row, got loss "
        f"{record.loss / record.rows:.3g} per row and gradient norm {record.norm:.3g} at step "
        f"{step}, the last of {in_a_row} such steps in a row, on rows {shown}: look at these "
        f"rows, or lower the learning rate (now {learning_rate:g}) and start from scratch; the "
        f"last good checkpoint is {last or 'none yet'}"
    )


def out_of_memory(data: Mapping[str, Any], accumulate: int) -> InputError:
    """The sentence that says what to lower."""
    return InputError(
        "training ran out of memory: lower the batch size (now "
        f"{data.get('batch_size', 'unknown')}) and raise accumulate (now {accumulate}) by as much, "
        "which computes the same; or take a smaller recipe, or bfloat16"
    )

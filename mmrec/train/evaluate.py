"""Scores of a whole loader, gathered over ranks, and the metrics of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmrec.batch import Batch
from mmrec.errors import InputError
from mmrec.metrics.auc import auc
from mmrec.metrics.calibration import logloss_of_logits
from mmrec.train.distributed import gather_rows
from mmrec.train.loaders import BatchLoader, rewound
from mmrec.train.prefetch import on_device
from mmrec.train.step.precision import autocast, resolve_device, resolve_precision


@dataclass(frozen=True)
class Scores:
    """What a model says of n rows, in ascending row order, the same on every rank.

    Attributes:
        row: (n,) int64 row numbers.
        user: (n,) int64 user ids.
        label: (n,) float32, or None where the loader has none.
        logit: (n,) float32.
    """

    row: NDArray[np.int64]
    user: NDArray[np.int64]
    label: NDArray[np.float32] | None
    logit: NDArray[np.float32]

    @property
    def probability(self) -> NDArray[np.float64]:
        """sigmoid(logit) in float64, without overflow."""
        logit = self.logit.astype(np.float64)
        small = np.exp(-np.abs(logit))
        return np.where(logit >= 0, 1.0, small) / (1.0 + small)

    def metrics(self) -> dict[str, float]:
        """AUC and logloss.

        Raises:
            InputError: no labels, one class only, or a logit that is not finite.
        """
        if self.label is None:
            raise InputError("metrics need labels, the loader gives none")
        if not np.isfinite(self.logit).all():
            row = int(self.row[np.argmin(np.isfinite(self.logit))])
            raise InputError(f"logits must be finite, the model gives another for row {row}")
        return {
            "auc": auc(self.label, self.logit),
            "logloss": logloss_of_logits(self.label, self.logit),
        }


def score(
    model: nn.Module,
    loader: BatchLoader,
    *,
    device: str | torch.device = "auto",
    precision: str = "auto",
    each_batch: Callable[[int], None] | None = None,
) -> Scores:
    """Run `model` in evaluation mode over one pass of `loader`.

    Under torchrun each rank scores its slice and all of them receive the whole. Scores stay on
    the device until the end, so that nothing waits in between.

    Args:
        each_batch: called after every batch with the number of its rows (progress, interrupts).

    Raises:
        InputError: the loader gives nothing, a row twice, or the model's output is not (B,).
    """
    device = resolve_device(device) if isinstance(device, str) else device
    dtype = resolve_precision(precision, device)
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor | None]] = []
    was_training = model.training
    model.to(device).eval()
    try:
        with torch.inference_mode():
            for batch, _ in on_device(rewound(loader), device):
                if len(batch) == 0:
                    continue
                with autocast(device, dtype):
                    logit = model(batch)
                check_logits(logit, batch)
                # Copies: what a loader's workers send holds an open file each until it is freed.
                label = None if batch.label is None else batch.label.clone()
                parts.append((batch.row.clone(), batch.user.clone(), logit.float(), label))
                if each_batch is not None:
                    each_batch(len(batch))
    finally:
        model.train(was_training)
    return _gathered(parts, device)


def check_logits(logit: Tensor, batch: Batch) -> None:
    """Refuse a model whose output is not one number a row."""
    if logit.shape != batch.target.shape:
        raise InputError(
            f"a model must return logits of shape ({len(batch)},), got {tuple(logit.shape)}"
        )


def _gathered(
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor | None]], device: torch.device
) -> Scores:
    def whole(tensors: list[Tensor], dtype: torch.dtype) -> NDArray[Any]:
        joined = torch.cat(tensors) if tensors else torch.empty(0, dtype=dtype, device=device)
        return gather_rows(joined).cpu().numpy()

    row = whole([part[0] for part in parts], torch.int64)
    user = whole([part[1] for part in parts], torch.int64)
    logit = whole([part[2] for part in parts], torch.float32)
    label = whole([part[3] for part in parts if part[3] is not None], torch.float32)
    if len(row) == 0:
        raise InputError("the loader gives no rows to score")
    order = np.argsort(row, kind="stable")
    row = row[order]
    doubled = np.flatnonzero(row[1:] == row[:-1])
    if len(doubled):
        raise InputError(f"every row must come once, row {row[doubled[0]]} came more than once")
    return Scores(
        row=row,
        user=user[order],
        label=label[order] if len(label) == len(row) else None,
        logit=logit[order],
    )

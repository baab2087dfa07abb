"""Scores of a whole loader, gathered over ranks, and the metrics of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmrec.batch import Batch
from mmrec.errors import InputError, require
from mmrec.metrics.auc import auc
from mmrec.metrics.calibration import logloss_of_logits
from mmrec.train.distributed import gather_objects
from mmrec.train.loaders import BatchLoader, on_device, rewound
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
        return np.asarray(torch.from_numpy(self.logit).double().sigmoid(), dtype=np.float64)

    def metrics(self) -> dict[str, float]:
        """AUC and logloss.

        Raises:
            InputError: no labels, or one class only.
        """
        if self.label is None:
            raise InputError("metrics need labels, the loader gives none")
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
    each_batch: Callable[[int], object] | None = None,
) -> Scores:
    """Run `model` in evaluation mode over one pass of `loader`.

    Under torchrun each rank scores its slice and all of them receive the whole. Scores stay on
    the device until the end, so that nothing waits in between.

    Args:
        each_batch: called after every batch with the number of its rows (progress, interrupts).

    Raises:
        InputError: the loader gives nothing or a row twice, the model's output is not (B,), or a
            logit is not finite.
    """
    device = resolve_device(device)
    dtype = resolve_precision(precision, device)
    parts: list[tuple[Tensor, ...]] = []
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
                label = logit[:0] if batch.label is None else batch.label
                # Copies: what a loader's workers send holds an open file each until it is freed.
                parts.append((batch.row.clone(), batch.user.clone(), label.clone(), logit.float()))
                if each_batch is not None:
                    each_batch(len(batch))
    finally:
        model.train(was_training)
    mine = [torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)]
    return _joined([columns for columns in gather_objects(mine) if columns])


def check_logits(logit: Tensor, batch: Batch) -> None:
    """Refuse a model whose output is not one number a row."""
    if logit.shape != batch.target.shape:
        raise InputError(
            f"a model must return logits of shape ({len(batch)},), got {tuple(logit.shape)}"
        )


def _joined(ranks: list[list[NDArray[Any]]]) -> Scores:
    """Row, user, label and logit of every rank that had rows, as one; by row number."""
    require(ranks, "the loader gives no rows to score")
    row, user, label, logit = (np.concatenate(column) for column in zip(*ranks, strict=True))
    order = np.argsort(row, kind="stable")
    row, logit = row[order], logit[order]
    doubled, bad = row[1:][row[1:] == row[:-1]], row[~np.isfinite(logit)]
    if len(doubled):
        raise InputError(f"every row must come once, row {doubled[0]} came more than once")
    if len(bad):
        raise InputError(f"logits must be finite, the model gives another for row {bad[0]}")
    labels = label[order] if len(label) == len(row) else None
    return Scores(row=row, user=user[order], label=labels, logit=logit)

"""Scores of a whole loader, gathered over ranks, and the metrics of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmrec.batch import Batch
from mmrec.devices import resolve_device
from mmrec.errors import InputError, require
from mmrec.metrics.auc import auc
from mmrec.metrics.calibration import logloss_of_logits
from mmrec.train.distributed import gather_objects
from mmrec.train.loaders import BatchLoader, on_device, rewound
from mmrec.train.step.precision import autocast, resolve_precision


@runtime_checkable
class HasTasks(Protocol):
    """A model that names its labels, in the order of its logits (B, T)."""

    tasks: Sequence[str]


@dataclass(frozen=True)
class Scores:
    """What a model says of n rows, in ascending row order, the same on every rank.

    Attributes:
        row: (n,) int64 row numbers.
        user: (n,) int64 user ids.
        label: float32, NaN where a task has none; None where the loader has none.
        logit: float32. Both are (n,) of one task, (n, T) of several.
        tasks: names of the T tasks.
    """

    row: NDArray[np.int64]
    user: NDArray[np.int64]
    label: NDArray[np.float32] | None
    logit: NDArray[np.float32]
    tasks: tuple[str, ...] = ("label",)

    @property
    def probability(self) -> NDArray[np.float64]:
        """sigmoid(logit) in float64, without overflow."""
        return np.asarray(torch.from_numpy(self.logit).double().sigmoid(), dtype=np.float64)

    def of_task(self, task: str) -> Scores:
        """Scores (m,) of one task, of the rows that have its label."""
        require(task in self.tasks, f"a task is one of {', '.join(self.tasks)}, got {task!r}")
        if self.logit.ndim == 1:
            return self
        at = self.tasks.index(task)
        label, logit = None if self.label is None else self.label[:, at], self.logit[:, at]
        if label is None:
            return Scores(self.row, self.user, None, logit, (task,))
        there = ~np.isnan(label)
        return Scores(self.row[there], self.user[there], label[there], logit[there], (task,))

    def metrics(self, *, unranked: Collection[str] = ()) -> dict[str, float]:
        """AUC and logloss; of several tasks their means, and each as "task/auc", "task/logloss".

        Args:
            unranked: tasks whose AUC is left out, since they have one class.

        Raises:
            InputError: no labels, or one class only.
        """
        if self.label is None:
            raise InputError("metrics need labels, the loader gives none")
        if self.logit.ndim == 1:
            there = ~np.isnan(self.label)
            label, logit = self.label[there], self.logit[there]
            ranked = {} if self.tasks[0] in unranked else {"auc": auc(label, logit)}
            return ranked | {"logloss": logloss_of_logits(label, logit)}
        each = {task: self.of_task(task).metrics(unranked=unranked) for task in self.tasks}
        values = {n: [of[n] for of in each.values() if n in of] for n in ("auc", "logloss")}
        means = {name: fmean(some) for name, some in values.items() if some}
        return means | {f"{task}/{name}": v for task, of in each.items() for name, v in of.items()}


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
        InputError: the loader gives nothing or a row twice, the model's output is neither (B,)
            nor (B, T), or a logit is not finite.
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
                # Copies: what a loader's workers send holds an open file each until it is freed.
                own = batch.row.clone(), batch.user.clone(), batch.labels.clone()
                parts.append((*own, logit.float().reshape(len(batch), -1)))
                if each_batch is not None:
                    each_batch(len(batch))
    finally:
        model.train(was_training)
    mine = [torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)]
    return _joined([columns for columns in gather_objects(mine) if columns], model)


def check_labels(model: nn.Module, loader: BatchLoader, monitor: str) -> frozenset[str]:
    """Tasks that have one class in `loader`, and so no AUC; looked for no further than needed.

    Raises:
        InputError: there are no rows or no labels, or `monitor` is such an AUC.
    """
    seen, rows = torch.zeros(2, 0), 0
    for batch in rewound(loader):
        labels, rows = batch.labels, rows + len(batch)
        require(labels.shape[1], "validation needs labels, the loader gives none")
        if not seen.shape[1]:
            seen = torch.zeros(2, labels.shape[1])
        seen += torch.stack([(labels == 0).sum(0), (labels == 1).sum(0)]).cpu()
        if seen.all():
            break
    counts = gather_objects((rows, seen.tolist() if seen.shape[1] else None))
    require(sum(count for count, _ in counts), "the validation loader gives no rows")
    both = np.sum([some for _, some in counts if some is not None], axis=0) > 0  # (2, T)
    tasks = task_names(model, both.shape[1])
    for task, some in zip(tasks, both.any(axis=0), strict=True):
        require(some, f"validation needs labels, those of {task} are all missing")
    unranked = frozenset(t for t, zero, one in zip(tasks, *both, strict=True) if not (zero and one))
    task, _, metric = monitor.rpartition("/")
    lacking = sorted(unranked & ({task} if task else set(tasks)))
    if metric == "auc" and lacking:
        raise InputError(
            f"labels of validation must be both 0 and 1 for monitor {monitor!r}, those of "
            f"{', '.join(lacking)} are all alike: monitor logloss, or validate on other rows"
        )
    return unranked


def check_logits(logit: Tensor, batch: Batch) -> None:
    """Refuse a model whose output is not one number a row, or one a row and label."""
    rows, tasks = batch.labels.shape
    good = logit.shape == (rows,) if logit.ndim == 1 else logit.ndim == 2 and len(logit) == rows
    if logit.numel() and tasks:
        good = good and logit.numel() == rows * tasks
    if not good:
        shape = f"({rows}, {tasks})" if tasks > 1 else f"({rows},)"
        raise InputError(f"a model must return logits of shape {shape}, got {tuple(logit.shape)}")


def task_names(model: nn.Module, tasks: int) -> tuple[str, ...]:
    """What the model calls its tasks; else "label", or "0", "1", … of several."""
    if isinstance(model, HasTasks) and len(model.tasks) == tasks:
        return tuple(model.tasks)
    return ("label",) if tasks == 1 else tuple(map(str, range(tasks)))


def _joined(ranks: list[list[NDArray[Any]]], model: nn.Module) -> Scores:
    """Row, user, label and logit of every rank that had rows, as one; by row number."""
    require(ranks, "the loader gives no rows to score")
    row, user, label, logit = (np.concatenate(column) for column in zip(*ranks, strict=True))
    order = np.argsort(row, kind="stable")
    row, logit = row[order], logit[order]
    doubled, bad = row[1:][row[1:] == row[:-1]], row[~np.isfinite(logit).all(axis=1)]
    if len(doubled):
        raise InputError(f"every row must come once, row {doubled[0]} came more than once")
    if len(bad):
        raise InputError(f"logits must be finite, the model gives another for row {bad[0]}")
    tasks = task_names(model, logit.shape[1])
    labels = label[order] if label.shape[1] else None
    if len(tasks) == 1:
        logit, labels = logit[:, 0], None if labels is None else labels[:, 0]
    return Scores(row=row, user=user[order], label=labels, logit=logit, tasks=tasks)

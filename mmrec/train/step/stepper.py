"""One optimizer step: forward, backward, clip, guard, update; the host waits for none of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmrec.batch import Batch
from mmrec.config import TrainConfig
from mmrec.errors import InputError, require
from mmrec.io.hashing import FULL, GOLDEN, mix64
from mmrec.train.distributed import current_world, parallel, sum_over_ranks
from mmrec.train.evaluate import HasTasks, check_logits
from mmrec.train.step.ema import EMA
from mmrec.train.step.guard import StepRecords, healthy
from mmrec.train.step.optimizer import (
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
    set_learning_rates,
)
from mmrec.train.step.precision import LossScale, autocast, resolve_precision
from mmrec.train.step.recompute import matching_modules, recomputing

RowLoss = Callable[[Tensor, Batch], Tensor]


@runtime_checkable
class HasAuxiliary(Protocol):
    """A model whose forward leaves a loss of its own: a scalar tensor, a mean over the batch.

    It is added to the mean loss of the rows; None adds nothing. The logged loss is that of the
    rows alone.
    """

    auxiliary: Tensor | None


@dataclass(frozen=True)
class ClickLoss:
    """w_i Σ_t v_t BCE(logit_it, y_it) of each row i, over the tasks t whose label y_it is there.

    w is the row's weight where the batch has weights, else 1.

    Args:
        weights: v (T,); empty = 1 for each.
    """

    weights: tuple[float, ...] = ()

    def __call__(self, logit: Tensor, batch: Batch) -> Tensor:
        """Float32 logits (B,) or (B, T) -> (B,).

        Raises:
            InputError: the batch has no labels.
        """
        labels = batch.labels
        require(labels.shape[1], "training needs labels, the loader gives none")
        there = ~labels.isnan()
        logit = logit.reshape(labels.shape)
        loss = F.binary_cross_entropy_with_logits(
            logit, torch.where(there, labels, 0.0), reduction="none"
        )
        loss = torch.where(there, loss, 0.0)
        if self.weights:  # as numbers: a tensor of them would wait for the device
            parts = zip(loss.unbind(dim=1), self.weights, strict=True)
            loss = torch.stack([part * weight for part, weight in parts], dim=1)
        loss = loss.sum(dim=1)
        return loss * batch.weight.squeeze(1) if batch.weight.shape[1] else loss


click_loss = ClickLoss()


def described(loss: RowLoss) -> str:
    """What a loss is called, with its settings where it is a dataclass."""
    if is_dataclass(loss):
        return repr(loss)
    named = loss if hasattr(loss, "__qualname__") else type(loss)
    return f"{named.__module__}.{named.__qualname__}"


def task_weights(model: nn.Module, config: TrainConfig) -> tuple[float, ...]:
    """The config's weight of each task of the model; empty where it gives none.

    Raises:
        InputError: `task_weights` or `monitor` name another.
    """
    tasks = tuple(model.tasks) if isinstance(model, HasTasks) else ()
    require_tasks(tasks, config)
    return tuple(config.task_weights.get(task, 1.0) for task in tasks if config.task_weights)


def require_tasks(tasks: Sequence[str], config: TrainConfig) -> None:
    """Refuse a config that names other tasks."""
    named = [*config.task_weights, *([config.monitor.rpartition("/")[0]] * ("/" in config.monitor))]
    for task in named:
        require(
            task in tasks,
            f"task_weights and monitor name tasks of the model, {', '.join(tasks) or 'none'}, "
            f"got {task!r}",
        )


class Stepper:
    """Holds what changes with every step: weights, optimizer, loss scale, EMA.

    The gradient is that of the mean loss over all rows of the global batch, however they are cut
    into ranks and accumulated batches: losses are summed in the backward pass and the division
    by the number of rows, the loss scale and the clipping factor are one number, applied by the
    fused optimizer kernel. The same kernel leaves everything as it is where the guard says so.
    The loss of a model that `HasAuxiliary` is added.
    """

    def __init__(
        self, model: nn.Module, config: TrainConfig, device: torch.device, loss: RowLoss
    ) -> None:
        self.model = model.to(device)
        self.config, self.device, self.loss = config, device, loss
        self.dtype = resolve_precision(config.precision, device)
        self.optimizer = make_optimizer(model, config)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.scale = LossScale(self.dtype, device)
        self.ema = EMA(model, config.ema_decay) if config.ema_decay is not None else None
        self.records = StepRecords()
        self._recomputed = matching_modules(model, config.speed.recompute)
        compiled: nn.Module = torch.compile(model) if config.compile else model  # type: ignore[assignment]
        self._forward = parallel(compiled, device)
        self._world = current_world()
        self._spare: Batch | None = None

    def step(self, group: list[tuple[Batch, Tensor]], *, step: int, factor: float) -> None:
        """Step number `step` (from 0) on a group of accumulated batches.

        Randomness (dropout) depends on (seed, step, rank) alone, so a resumed run needs no
        generator states and no loader can disturb them.
        """
        # `torch.manual_seed` for the devices in use; it would queue one for every other kind.
        seed = _mixed(self.config.seed, step, self._world.rank)
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

        total = torch.zeros(2, dtype=torch.float32, device=self.device)  # summed loss, rows
        for position, (batch, _) in enumerate(group):
            last = position == len(group) - 1
            total[0] += self._backward(batch, synchronise=last)
        total[1].fill_(sum(len(batch) for batch, _ in group))
        sum_over_ranks(total)
        loss, rows = total[0], total[1]

        divisor = self.scale.scale * rows / self._world.size
        grads = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads) / divisor
        if self.config.clip_norm is not None:
            divisor = divisor * (norm / self.config.clip_norm).clamp(min=1.0)
        skipped = (~healthy(loss, rows, norm)).float()
        self._update(divisor, skipped, factor)
        self.scale.update(skipped)
        if self.ema is not None:
            self.ema.update(step + 1)
        self.records.add(loss, rows, skipped, norm, row=[row.clone() for _, row in group])

    def _backward(self, batch: Batch, *, synchronise: bool) -> Tensor:
        """Add the gradient of the batch's summed loss; returns that loss, detached."""
        weight = 1.0
        if len(batch) == 0:  # the end of an epoch can leave a rank without rows: take part idly
            if self._spare is None:
                raise InputError("the first batch of a rank is empty: more ranks than rows?")
            batch, weight = self._spare, 0.0
        elif self._world.size > 1:
            self._spare = batch
        if isinstance(self._forward, nn.parallel.DistributedDataParallel):
            self._forward.require_backward_grad_sync = synchronise
        with autocast(self.device, self.dtype), recomputing(self._recomputed):
            logit = self._forward(batch)
        check_logits(logit, batch)
        loss = self.loss(logit.float(), batch).sum() * weight
        extra = self.model.auxiliary if isinstance(self.model, HasAuxiliary) else None
        # A mean over the batch by contract: times its rows it joins the sum.
        total = loss if extra is None else loss + extra.float() * (weight * len(batch))
        (total * self.scale.scale).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _update(self, divisor: Tensor, skipped: Tensor, factor: float) -> None:
        optimizer: Any = self.optimizer
        set_learning_rates(optimizer, factor)
        optimizer.grad_scale, optimizer.found_inf = divisor, skipped
        optimizer.step()
        optimizer.grad_scale = optimizer.found_inf = None
        optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """Everything a checkpoint keeps, by name."""
        parts = {
            "model": self.model.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer),
            "scaler": self.scale.state_dict() if self.scale.enabled else {},
            "ema": self.ema.shadow if self.ema is not None else {},
        }
        return {f"{part}/{k}": v for part, values in parts.items() for k, v in values.items()}

    def load(self, tensors: Callable[[str], dict[str, Tensor]]) -> None:
        """The inverse of `tensors`, all but the model, from a checkpoint's `part`."""
        load_optimizer_tensors(self.optimizer, tensors("optimizer"))
        if self.ema is not None:
            self.ema.load(tensors("ema"))
        if self.scale.enabled and (kept := tensors("scaler")):
            self.scale.load_state_dict(kept)


def _mixed(seed: int, step: int, rank: int) -> int:
    """A 63-bit seed in which neighbouring arguments share nothing."""
    value = (seed - 1) * GOLDEN + step * 0xD1B54A32D192ED03 + rank + 1
    return mix64(value & FULL) >> 1

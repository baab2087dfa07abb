"""Adam over parameter groups (embedding tables, dense weights, what a pattern names), its rates."""

import math
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from mmrec.config import TrainConfig
from mmrec.errors import require


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """One optimizer group per distinct (learning rate, weight decay), in order of appearance.

    Embedding tables are recognised by their module's type; weight decay falls on tensors of two
    or more dimensions only. Each group carries `base_lr` (what schedules multiply) and `names`.
    """
    tables = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
        for parameter in module.parameters(recurse=False)
    }
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    unused = set(config.groups)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate, decay = config.learning_rate, config.weight_decay
        if id(parameter) in tables and config.embedding_learning_rate is not None:
            rate = config.embedding_learning_rate
        if id(parameter) in tables and config.embedding_weight_decay is not None:
            decay = config.embedding_weight_decay
        for pattern, options in config.groups.items():
            if fnmatchcase(name, pattern):
                rate = options.get("learning_rate", rate)
                decay = options.get("weight_decay", decay)
                unused.discard(pattern)
                break
        if parameter.ndim < 2:
            decay = 0.0
        group = groups.setdefault(
            (rate, decay),
            {"params": [], "names": [], "lr": rate, "base_lr": rate, "weight_decay": decay},
        )
        group["params"].append(parameter)
        group["names"].append(name)
    require(not unused, f"no parameter of the model matches {sorted(unused)}")
    require(groups, "the model has no trainable parameter")
    return list(groups.values())


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Adam or AdamW, always the fused kernel: it skips a bad step and unscales on the device."""
    kind = torch.optim.AdamW if config.decoupled else torch.optim.Adam
    return kind(
        parameter_groups(model, config),
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.eps,
        fused=True,
    )


def rate_factor(config: TrainConfig, step: int, *, total_steps: int, plateau: float = 1.0) -> float:
    """warm-up(step) · shape(step), for the step that follows `step` finished ones.

    Args:
        plateau: what evaluations without a better monitor have brought the rate down to, the shape
            of the schedule "plateau".

    >>> config = TrainConfig(schedule="cosine", warmup_steps=2)
    >>> [round(rate_factor(config, step, total_steps=12), 2) for step in (0, 1, 2, 7, 12)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    if config.schedule == "plateau":
        return warm * plateau
    if config.schedule == "constant" or step < config.warmup_steps:
        return warm
    span = max(1, total_steps - config.warmup_steps)
    share = min(1.0, (step - config.warmup_steps) / span)
    low = config.final_lr_share
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * share))


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Each group's rate becomes its base rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as `parameter name/quantity` -> tensor, whatever the grouping."""
    return {
        f"{name}/{key}": value
        for group in optimizer.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`, onto each parameter's device."""
    by_name = {
        name: parameter
        for group in optimizer.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
    }
    for key, value in tensors.items():
        name, quantity = key.rsplit("/", 1)
        optimizer.state[by_name[name]][quantity] = value.to(by_name[name].device)

"""The choices that `choices.py` times: what is switched on and off, in which model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from mmrec.config import Speed, TrainConfig
from mmrec.models import Recipe, light, reference_fused, small
from mmrec.train.step.optimizer import parameter_groups, set_learning_rates
from mmrec.train.step.stepper import Stepper


class LoopStepper(Stepper):
    """torch's AdamW one tensor at a time, after a pass that scales the gradients."""

    foreach = False

    def __init__(self, model: Any, config: TrainConfig, *rest: Any) -> None:
        super().__init__(model, config, *rest)
        groups = parameter_groups(model, config)
        self.optimizer = torch.optim.AdamW(
            groups, betas=config.betas, eps=config.eps, foreach=self.foreach
        )

    def _update(self, divisor: Tensor, skipped: Tensor, factor: float) -> None:
        set_learning_rates(self.optimizer, factor)
        if not skipped:
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad.div_(divisor)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


class ForeachStepper(LoopStepper):
    """torch's AdamW, one operation after the other over all tensors."""

    foreach = True


@dataclass(frozen=True)
class Case:
    """A model, the widths of image and text vectors, and how long histories are."""

    recipe: Recipe
    widths: tuple[int, int] = (1280, 384)
    history: str = "typical"  # or "full", or "cut": typical, to the longest of its batch


@dataclass(frozen=True)
class Side:
    """With a choice or without: what differs from the defaults."""

    speed: Speed = field(default_factory=Speed)
    compile: bool = False
    stepper: type[Stepper] = Stepper
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """Rows of the table, one a case; `group` is the name on the command line."""

    group: str
    name: str
    against: str
    cases: tuple[str, ...]
    on: Side = Side()
    off: Side = Side()


READY = {"items.fusion": {"name": "precomputed", "learn_absent": False}}
READY_CASE = Case(light().changed(READY), (128, 0))
WIDE = READY_CASE.recipe.changed({"interaction.bottleneck": 4096})
QUARTER = reference_fused().changed(
    {
        "items.id_dim": 16,
        "items.tag_dim": 16,
        "items.content_dim": 32,
        "context.dim": 16,
        "history.encoder.ff_dim": 64,
        "interaction.mlp": (256, 128, 64),
        "interaction.head": (16, 8),
    }
)
CASES = {
    "light": Case(light()),
    "light, full": Case(light(), history="full"),
    "light, cut": Case(light(), history="cut"),
    "light, ready": READY_CASE,
    "light, ready, full": replace(READY_CASE, history="full"),
    "light, ready, wide": replace(READY_CASE, recipe=WIDE),
    "reference/4": Case(QUARTER),
    "reference/4, full": Case(QUARTER, history="full"),
    "small": Case(small().changed({"history.newest": None}), (512, 512)),
}
FOUR = ("light", "light, full", "reference/4", "reference/4, full")
PAGED = ("light, ready", "reference/4", "light, ready, wide")
HUGE = {"THP_MEM_ALLOC_ENABLE": "1"}
KEPT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
PADDED = Side(Speed(compact=False, deduplicate=False))
CHOICES = [
    Choice(
        *("deduplicate", "each item encoded once", "at every position"),
        tuple(name for name in CASES if name.startswith("light") and "wide" not in name),
        off=Side(Speed(deduplicate=False)),
    ),
    Choice("compact", "padding left out", "masked", FOUR, off=Side(Speed(compact=False))),
    Choice("fused", "fused AdamW", "for-loop", FOUR[::2], off=Side(stepper=LoopStepper)),
    Choice("fused", "fused AdamW", "foreach", FOUR[::2], off=Side(stepper=ForeachStepper)),
    Choice(
        *("recompute", "layers recomputed", "activations kept", FOUR[:2]),
        on=Side(Speed(recompute=("sequence*.layers.*",))),
    ),
    Choice("compile", "compiled", "eager", ("small",), on=Side(compile=True)),
    Choice(
        *("compile", "compiled", "eager, padding computed", ("small",)),
        on=Side(compile=True),
        off=PADDED,
    ),
    Choice("pages", "huge pages", "4 KB pages", PAGED, on=Side(environment=HUGE)),
    Choice("pages", "memory kept by glibc", "given back", PAGED[2:], on=Side(environment=KEPT)),
]
ROWS = [(choice, case) for choice in CHOICES for case in choice.cases]

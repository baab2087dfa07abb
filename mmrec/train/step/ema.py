"""Exponential moving average of the weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """shadow ← d · shadow + (1 - d) · weight after each step, d = min(decay, (1 + t) / (10 + t)).

    The rising d keeps the random start out of the EMA.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.shadow = {name: p.detach().clone() for name, p in self.weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After step number `step` (counted from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        weights: list[Tensor] = list(self.weights.values())
        torch._foreach_lerp_(list(self.shadow.values()), weights, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model holds the EMA."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in self.weights.items():
            kept = weight.detach().clone()
            weight.copy_(self.shadow[name])
            self.shadow[name].copy_(kept)

    def load(self, shadow: dict[str, Tensor]) -> None:
        """Take over what a checkpoint kept of `shadow`."""
        for name, kept in self.shadow.items():
            kept.copy_(shadow[name])

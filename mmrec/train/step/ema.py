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
        self.names = [name for name, p in model.named_parameters() if p.requires_grad]
        self.weights = [p for p in model.parameters() if p.requires_grad]
        self.shadow = [p.detach().clone() for p in self.weights]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After step number `step` (counted from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.shadow, list(self.weights), 1 - decay)

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
        for weight, shadow in zip(self.weights, self.shadow, strict=True):
            kept = weight.detach().clone()
            weight.copy_(shadow)
            shadow.copy_(kept)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return dict(zip(self.names, self.shadow, strict=True))

    def load(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `tensors`."""
        for name, shadow in zip(self.names, self.shadow, strict=True):
            shadow.copy_(tensors[name])

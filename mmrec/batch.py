"""The batch: what travels from disk to the model. Ids only, never features.

B rows, L history length, C context columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """B rows of the click log.

    Attributes:
        user: (B,) int64, the user id as it stands in the file.
        history: (B, L) int64 item ids, left-padded with 0, newest last.
        target: (B,) int64, the item whose click is predicted.
        context: (B, C) int64, small categorical columns (likes_level, views_level).
        label: (B,) float32 in {0, 1}, or None where there is none (test).
        row: (B,) int64, the row's number in the data set, counted over its files in order.

    >>> ids = torch.tensor([[0, 3, 1]])
    >>> one = torch.tensor([1])
    >>> Batch(user=one, history=ids, target=one, context=ids[:, :2], label=None, row=one).valid
    tensor([[False,  True,  True]])
    """

    user: Tensor
    history: Tensor
    target: Tensor
    context: Tensor
    label: Tensor | None
    row: Tensor

    @property
    def valid(self) -> Tensor:
        """(B, L) bool, True where the history holds a real item."""
        return self.history != 0

    def __len__(self) -> int:
        return self.target.shape[0]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The same batch on `device`."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory (called by `DataLoader(pin_memory=True)`)."""
        return self.map(Tensor.pin_memory)

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with `change` made to each of its tensors."""
        return Batch(
            user=change(self.user),
            history=change(self.history),
            target=change(self.target),
            context=change(self.context),
            label=None if self.label is None else change(self.label),
            row=change(self.row),
        )

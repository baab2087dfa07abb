"""The batch: what travels from disk to the model: ids and numbers of a row, no item features.

B rows, L history length, T tasks, C categories, F numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

B = TypeVar("B", bound="Batch")


@dataclass(frozen=True)
class Batch:
    """B rows of the click log, by role; what a data set has none of has width zero.

    Tensors of one's own ride along in `extra` or as fields of a subclass.

    Attributes:
        history: (B, L) int64 item ids, left-padded with 0, newest last.
        target: (B,) int64, the item whose click is predicted.
        labels: (B, T) float32 in {0, 1}, NaN where a task has none; (B, 0) without labels.
        user: (B,) int64, the user as in the file; the row's number where there are no users.
        row: (B,) int64, the row's number in the data set, counted over its files in order.
        categorical: (B, C) int64, as in the file; a column of lists takes as many places as its
            longest list, flush right, `mmrec.schema.ABSENT` where there is no value.
        numeric: (B, F) float32, NaN = missing.
        history_categorical: (B, L, C) int64, of each history item.
        history_numeric: (B, L, F) float32, NaN = missing.
        weight: (B, 1) float32, of the row in the loss; (B, 0) = all alike.
        group: (B, 1) int64, rows ranked against each other; (B, 0) = none.
        padding: that many first columns of `history` are padding in every row, as far as is known;
            a model may leave them out. A number on the host: a device is not asked for it.

    >>> batch = Batch.of(history=torch.tensor([[0, 3, 1]]), target=torch.tensor([2]))
    >>> batch.valid, batch.numeric.shape
    (tensor([[False,  True,  True]]), torch.Size([1, 0]))
    """

    history: Tensor
    target: Tensor
    labels: Tensor
    user: Tensor
    row: Tensor
    categorical: Tensor
    numeric: Tensor
    history_categorical: Tensor
    history_numeric: Tensor
    weight: Tensor
    group: Tensor
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    padding: int = 0

    @classmethod
    def of(cls: type[B], *, history: Tensor, target: Tensor, **roles: Any) -> B:
        """A batch with the roles that are named, all others empty; `user` and `row` count up."""
        rows, length = history.shape
        counted = torch.arange(rows, device=history.device)
        empty: dict[str, Tensor] = {
            "labels": history.new_empty((rows, 0), dtype=torch.float32),
            "user": counted,
            "row": counted,
            "categorical": history.new_empty((rows, 0)),
            "numeric": history.new_empty((rows, 0), dtype=torch.float32),
            "history_categorical": history.new_empty((rows, length, 0)),
            "history_numeric": history.new_empty((rows, length, 0), dtype=torch.float32),
            "weight": history.new_empty((rows, 0), dtype=torch.float32),
            "group": history.new_empty((rows, 0)),
        }
        return cls(history=history, target=target, **{**empty, **roles})

    @property
    def valid(self) -> Tensor:
        """(B, L) bool, True where the history holds a real item."""
        return self.history != 0

    def __len__(self) -> int:
        return self.target.shape[0]

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor that travels."""
        for part in fields(self):
            value = getattr(self, part.name)
            values = value.values() if isinstance(value, Mapping) else [value]
            yield from (tensor for tensor in values if isinstance(tensor, Tensor))

    def map(self: B, change: Callable[[Tensor], Tensor]) -> B:
        """The same batch, each of its tensors changed."""

        def changed(value: Any) -> Any:
            if isinstance(value, Mapping):
                return {name: changed(part) for name, part in value.items()}
            return change(value) if isinstance(value, Tensor) else value

        return replace(self, **{f.name: changed(getattr(self, f.name)) for f in fields(self)})

    def to(self: B, device: torch.device | str, *, non_blocking: bool = False) -> B:
        """The same batch on `device`."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self: B) -> B:
        """The same batch in page-locked memory (called by `DataLoader(pin_memory=True)`)."""
        return self.map(Tensor.pin_memory)

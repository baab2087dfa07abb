"""Columns of a click log to a `Batch`, by their roles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmrec.batch import Batch
from mmrec.schema import Clicks


@dataclass(frozen=True)
class ToBatch:
    """What a stream's `collate` does for a schema.

    Attributes:
        clicks: the roles.
        lists: the columns of lists.
        labelled: whether the rows have labels (and what goes with them: weight and group).
        extra: columns that ride along.
        change: made to every batch.

    >>> one = torch.tensor([1])
    >>> collate = ToBatch(Clicks("seen", "item", ("bought",), numeric=("price",)), ("seen",))
    >>> batch = collate({"seen": torch.tensor([[0, 2]]), "item": one, "row": one,
    ...                  "price": torch.tensor([0.5]), "bought": torch.tensor([1.0])})
    >>> batch.numeric, batch.labels, batch.categorical.shape
    (tensor([[0.5000]]), tensor([[1.]]), torch.Size([1, 0]))
    """

    clicks: Clicks
    lists: tuple[str, ...]
    labelled: bool = True
    extra: tuple[str, ...] = ()
    change: Callable[[Batch], Batch] | None = None

    @classmethod
    def of(cls, clicks: Clicks, widths: Mapping[str, int], *, labelled: bool) -> ToBatch:
        """For logs whose list columns are those of `widths`."""
        return cls(clicks, tuple(widths), labelled)

    def with_more(self, extra: Sequence[str], change: Callable[[Batch], Batch] | None) -> ToBatch:
        """With columns that ride along, and a change of every batch."""
        return replace(self, extra=tuple(extra), change=change)

    @property
    def lists_of_categories(self) -> list[str]:
        """Columns with any number of categories a row."""
        return [c.name for c in self.clicks.categorical if c.name in self.lists]

    @property
    def numbers(self) -> list[str]:
        """Columns whose values may be missing."""
        labels = self.clicks.labels if self.labelled else ()
        return [*self.clicks.numeric, *self.clicks.history_numeric, *labels, *self._weight]

    @property
    def columns(self) -> list[str]:
        """Every column that is read."""
        clicks = self.clicks
        names = [clicks.history, clicks.target, *self.numbers, *self._group, *self.extra]
        names += [c.name for c in (*clicks.categorical, *clicks.history_categorical)]
        return names if clicks.user is None else [clicks.user, *names]

    @property
    def _weight(self) -> list[str]:
        return [self.clicks.weight] if self.labelled and self.clicks.weight is not None else []

    @property
    def _group(self) -> list[str]:
        return [self.clicks.group] if self.labelled and self.clicks.group is not None else []

    def __call__(self, columns: Mapping[str, Tensor]) -> Batch:
        """File columns of B rows, and their row numbers."""
        clicks = self.clicks
        history, row = columns[clicks.history], columns["row"]

        def beside(names: Sequence[str], like: Tensor, dtype: torch.dtype) -> Tensor:
            """(…, K) of K columns (…), or of columns of lists."""
            if not names:
                return like.new_empty((*like.shape, 0), dtype=dtype)
            parts = [columns[name] for name in names]
            parts = [part.to(dtype) for part in parts]
            if all(part.ndim == like.ndim for part in parts):
                return torch.stack(parts, dim=-1)
            wide = [part if part.ndim > like.ndim else part.unsqueeze(-1) for part in parts]
            return torch.cat(wide, dim=-1)

        ids, number = torch.int64, torch.float32
        labels = clicks.labels if self.labelled else ()
        batch = Batch(
            history=history,
            target=columns[clicks.target],
            labels=beside(labels, row, number),
            user=row if clicks.user is None else columns[clicks.user],
            row=row,
            categorical=beside([c.name for c in clicks.categorical], row, ids),
            numeric=beside(clicks.numeric, row, number),
            history_categorical=beside([c.name for c in clicks.history_categorical], history, ids),
            history_numeric=beside(clicks.history_numeric, history, number),
            weight=beside(self._weight, row, number),
            group=beside(self._group, row, ids),
            extra={name: columns[name] for name in self.extra},
        )
        return batch if self.change is None else self.change(batch)

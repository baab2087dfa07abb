"""Everything that serving needs of an item, computed once and kept as one row of a table.

A ranker's item encoder comes in; what goes out is read by `network.py`. What only candidates need
stands in a second table.

N items, D item width, E width of the interaction's first map, M spaces, W their widths together,
T tasks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmrec.models.ranker import Ranker
from mmrec.nn.features import FrozenFeatures, TagSets
from mmrec.nn.item_encoder import ItemEncoder

_AT_ONCE = 8192  # items encoded
_ROOM = 1 << 28  # bytes that the table may take for what only saves time


@dataclass(frozen=True)
class Rows:
    """Of the items that were asked for, (…) each.

    Attributes:
        vectors: (…, D).
        units: of each space (…, W_m); none where the ranker compares nothing.
        there: (…, M), 1 where the item has a vector in the space, else 0.
        bias: (…, T), added to the logits; T = 0 where there is none.
    """

    vectors: Tensor
    units: tuple[Tensor, ...]
    there: Tensor
    bias: Tensor


class ItemRows(nn.Module):
    """ids (…) int64 -> `Rows`.

    Args:
        ranker: whose items they are.
        entry: (E, D) the interaction's first map of an item's vector; None = there is none.
        dtype: in which rows are kept; None = that of the ranker.
    """

    table: Tensor
    entries: Tensor | None
    entry: Tensor | None

    def __init__(
        self, ranker: Ranker, *, entry: Tensor | None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        compared = ranker.affinity is not None
        self.num_spaces = len(ranker.items.spaces) if compared else 0
        units = [_unit(space).shape[1] for space in ranker.items.spaces] if compared else []
        self.dtype = next(ranker.heads.parameters()).dtype
        size = ranker.items.num_items * self.dtype.itemsize
        keeps = entry is not None and len(entry) * size <= _ROOM
        self.register_buffer("entry", entry if keeps else None, persistent=False)
        bias = 0 if ranker.wide is None else len(ranker.tasks)
        self.widths = [ranker.items.out_dim, self.num_spaces, bias, *units]
        self.item_bias = None if ranker.wide is None else ranker.wide.item
        found = self.encoded(ranker.items, bias=self.item_bias)
        entries = self._entries(found)
        kept = self.dtype if dtype is None else dtype
        self.register_buffer("table", found.to(kept), persistent=False)
        entries = None if entries is None else entries.to(kept)
        self.register_buffer("entries", entries, persistent=False)

    @torch.no_grad()
    def encoded(self, items: ItemEncoder, *, bias: nn.Embedding | None) -> Tensor:
        """(N, width) rows of all items; without `bias` theirs is zero."""
        every = torch.arange(items.num_items, device=items.tags.device)
        training = items.training
        items.eval()
        try:
            return torch.cat([self._rows(items, ids, bias) for ids in torch.split(every, _AT_ONCE)])
        finally:
            items.train(training)

    def _rows(self, items: ItemEncoder, ids: Tensor, bias: nn.Embedding | None) -> Tensor:
        vectors = items(ids).to(self.dtype)
        parts = [vectors]
        spaces = items.spaces if self.num_spaces else []
        parts += [space.present[ids].unsqueeze(1) for space in spaces]
        if self.item_bias is not None:
            width = self.item_bias.embedding_dim
            parts.append(vectors.new_zeros(len(ids), width) if bias is None else bias(ids))
        parts += [_unit(space)[ids] for space in spaces]
        return torch.cat([part.to(self.dtype) for part in parts], dim=1)

    def _entries(self, rows: Tensor) -> Tensor | None:
        """(N, E) of (N, width) rows; None = not kept."""
        if self.entry is None:
            return None
        return rows[:, : self.widths[0]] @ self.entry.to(self.dtype).T

    def forward(self, ids: Tensor) -> Rows:
        found = self._chosen(self.table, ids)
        vectors, there, bias, *units = torch.split(found, self.widths, dim=-1)
        return Rows(vectors, tuple(units), there, bias)

    def entered(self, ids: Tensor) -> Tensor | None:
        """(…, E) the share of these items in the interaction's first map; None = not kept."""
        return None if self.entries is None else self._chosen(self.entries, ids)

    def _chosen(self, table: Tensor, ids: Tensor) -> Tensor:
        found = table.index_select(0, ids.reshape(-1)).to(self.dtype)
        return found.view(*ids.shape, found.shape[-1])

    def append(self, items: ItemEncoder) -> None:
        """Take in the items of another encoder, but for its padding."""
        more = self.encoded(items, bias=None)[1:]
        entries = self._entries(more)
        self.table = torch.cat([self.table, more.to(self.table)])
        if self.entries is not None and entries is not None:
            self.entries = torch.cat([self.entries, entries.to(self.entries)])

    def __len__(self) -> int:
        return len(self.table)


def _unit(space: FrozenFeatures | TagSets) -> Tensor:
    return space.unit

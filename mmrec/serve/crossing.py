"""The interaction and the heads, of candidates that have much in common.

Parts of a row come in from `network.py`; logits go out.

U users, N candidates a user, X width of all parts, A of those alike for all candidates, E width of
the interaction's first maps, T tasks.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrec.models.ranker import Ranker
from mmrec.nn.cross import CrossNetV2
from mmrec.nn.interaction import CrossAndDeep
from mmrec.nn.mlp import MLP


class Crossing(nn.Module):
    """Parts (U, N or 1, ·) of rows -> logits (U, N, T), equal to `head_t(interaction([parts]))`.

    The parts that come first and are alike for all candidates, (U, 1, ·), go through the first maps
    once; what the item's vector gives there may be known beforehand. Of the last cross layer,
    x ⊙ (W h + b) read by the rows r of linear heads, the columns a that are alike become one row a
    task:

        r_aᵀ (x_a ⊙ (W_a h + b_a)) = (W_aᵀ (r_a ⊙ x_a))ᵀ h + (r_a ⊙ x_a)ᵀ b_a
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, ranker: Ranker) -> None:
        super().__init__()
        self.interaction = copy.deepcopy(ranker.interaction)
        self.heads = copy.deepcopy(ranker.heads)
        crossed = self.interaction
        entry = crossed.entry() if isinstance(crossed, CrossAndDeep) else None
        weight, bias = (None, None) if entry is None else entry
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.folds = _ends_in_a_cross(crossed) and all(_is_linear(head) for head in self.heads)

    def entry_of(self, begin: int, width: int) -> Tensor | None:
        """(E, width) the share of those columns in the first maps; None = there are no such."""
        return None if self.weight is None else self.weight[:, begin : begin + width].clone()

    def forward(self, parts: Sequence[Tensor], item: int, entries: Tensor | None) -> Tensor:
        """Logits.

        Args:
            item: the place of the item's vector among the parts.
            entries: (U, N, E) what the first maps give of it, which is written over; None = not
                known.
        """
        users, count = parts[item].shape[:2]
        x = torch.cat([part.expand(users, count, part.shape[-1]) for part in parts], dim=-1)
        if self.weight is None or self.bias is None:
            return self._read(cast(Tensor, self.interaction(x)))
        first_own = next((at for at, p in enumerate(parts) if not _is_one(p.shape[1])), item)
        alike = torch.cat([x.new_empty(users, 1, 0), *parts[:first_own]], dim=-1)  # (U, 1, A)
        # What all candidates have alike is one more column of what each has of its own.
        constant = F.linear(alike, self.weight[:, : alike.shape[-1]], self.bias)  # (U, 1, E)
        own, by, begin = [], [], alike.shape[-1]
        for place, part in enumerate(parts[first_own:], first_own):
            end = begin + part.shape[-1]
            if place != item or entries is None:
                own.append(part.expand(users, count, -1))
                by.append(self.weight[:, begin:end].mT.expand(users, -1, -1))
            begin = end
        mine = torch.cat([*own, x.new_ones(users, count, 1)], dim=-1)
        weight = torch.cat([*by, constant], dim=1)  # (U, ·, E)
        first = mine @ weight if entries is None else entries.baddbmm_(mine, weight)
        if self.folds and first_own:
            return self._folded(x, first, alike)
        return self._read(cast(CrossAndDeep, self.interaction).entered(x, first))

    def _read(self, crossed: Tensor) -> Tensor:
        return torch.cat([head(crossed) for head in self.heads], dim=-1)

    def _folded(self, x: Tensor, first: Tensor, alike: Tensor) -> Tensor:
        """The equation above, and what the heads read besides."""
        crosses, *deeps = cast(Any, self.interaction).parts
        entered = torch.split(first, [part.entry.out_features for part in (crosses, *deeps)], -1)
        hidden, layer = crosses.before_last(x, entered[0]), crosses.layers[-1]
        linear = [head.layers[0] for head in cast(Any, self.heads)]
        reads = torch.cat([one.weight for one in linear])  # (T, ·)
        constant = torch.cat([one.bias for one in linear])
        read, *of_deeps = torch.split(reads, [part.out_dim for part in (crosses, *deeps)], 1)
        a = alike.shape[-1]
        row = alike * read[:, :a]  # (U, T, A)
        by = (row @ layer.weight[:a] + read).mT  # (U, X, T): x_{depth-1} itself is read as well
        logits = torch.baddbmm((row @ layer.bias[:a] + constant).unsqueeze(1), hidden, by)
        own = x[..., a:] * F.linear(hidden, layer.weight[a:], layer.bias[a:])
        logits = logits + F.linear(own, read[:, a:])
        for deep, one, of_deep in zip(deeps, entered[1:], of_deeps, strict=True):
            logits = logits + F.linear(deep.entered(x, one), of_deep)
        return logits


def _ends_in_a_cross(interaction: nn.Module) -> bool:
    """Whether its first part is a CrossNetV2 of some depth, and nothing stands before it."""
    if not isinstance(interaction, CrossAndDeep) or interaction.squeeze is not None:
        return False
    first = interaction.parts[0]
    return (
        isinstance(first, CrossNetV2) and len(first.layers) > 1 and interaction.entry() is not None
    )


def _is_linear(head: nn.Module) -> bool:
    return isinstance(head, MLP) and len(head.layers) == 1


def _is_one(size: Any) -> bool:
    """Whether a size is 1 and stays so: one that is free in an exported program is not."""
    return type(size) is int and size == 1

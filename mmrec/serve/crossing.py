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
from mmrec.nn.interaction import CrossAndDeep, one_class
from mmrec.nn.mlp import MLP


class Crossing(nn.Module):
    """Parts (U, N or 1, ·) of rows -> logits (U, N, T), equal to `head_t(interaction([parts]))`.

    The parts that come first and are alike for all candidates, (U, 1, ·), go through the first maps
    once; what the item's vector gives there may be known beforehand. Where all parts before the
    item's are alike, so that they are A columns a, and linear heads read the last cross layer,
    x ⊙ (W h + b), by rows r, those columns become one row a task:

        r_aᵀ (x_a ⊙ (W_a h + b_a)) = gᵀ h + (r_a ⊙ b_a)ᵀ x_a, g = W_aᵀ (r_a ⊙ x_a)

    Args:
        ranker: whose interaction and heads they are.
        begin: A, the width of what stands before the item's vector.
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, ranker: Ranker, *, begin: int) -> None:
        super().__init__()
        self.interaction = _without_dropout(copy.deepcopy(ranker.interaction))
        self.heads = copy.deepcopy(ranker.heads)
        self.begin = begin
        entry = _entry(self.interaction)
        weight, bias = (None, None) if entry is None else entry
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        ends = entry is not None and begin > 0 and _ends_in_a_cross(self.interaction)
        self.last = None
        if ends and all(_is_linear(head) for head in self.heads):
            self.last = LastCross(self.interaction, self.heads, alike=begin)

    def entry_of(self, width: int) -> Tensor | None:
        """(E, width) the share of the item's vector in the first maps; None = there are no such."""
        end = self.begin + width
        return None if self.weight is None else self.weight[:, self.begin : end].clone()

    def forward(self, parts: Sequence[Tensor], place: int, entries: Tensor | None) -> Tensor:
        """Logits.

        Args:
            place: of the item's vector among the parts.
            entries: (U, N, E) what the first maps give of it, which is written over; None = not
                known.
        """
        users, count = parts[place].shape[:2]
        x = torch.cat([part.expand(users, count, part.shape[-1]) for part in parts], dim=-1)
        if self.weight is None:
            return self._read(cast(Tensor, self.interaction(x)))
        alone = next((at for at, p in enumerate(parts) if not _is_one(p.shape[1])), place)
        alike = torch.cat([x.new_empty(users, 1, 0), *parts[:alone]], dim=-1)  # (U, 1, A)
        first = self._entered(parts, place, entries, alike=alike, alone=alone)
        if self.last is not None and alike.shape[-1] == self.begin:
            logits: Tensor = self.last(x, first, alike)
            return logits
        return self._read(cast(CrossAndDeep, self.interaction).entered(x, first))

    def _entered(
        self,
        parts: Sequence[Tensor],
        place: int,
        entries: Tensor | None,
        *,
        alike: Tensor,
        alone: int,
    ) -> Tensor:
        """(U, N, E) of the first maps; the parts from `alone` on are of each candidate."""
        weight = cast(Tensor, self.weight)
        users, count = parts[place].shape[:2]
        constant = F.linear(alike, weight[:, : alike.shape[-1]], self.bias)  # (U, 1, E)
        own, by, begin = [], [], alike.shape[-1]
        for at, part in enumerate(parts[alone:], alone):
            end = begin + part.shape[-1]
            if at != place or entries is None:
                own.append(part.expand(users, count, -1))
                by.append(weight[:, begin:end])
            begin = end
        if _is_one(users):
            # What all candidates have alike is one more column of what each has of its own.
            mine = torch.cat([*own, constant.new_ones(1, count, 1)], dim=-1)
            rows = torch.cat([*(columns.mT.unsqueeze(0) for columns in by), constant], dim=1)
            return mine @ rows if entries is None else entries.baddbmm_(mine, rows)
        first = constant if entries is None else entries.add_(constant)
        return first + F.linear(torch.cat(own, dim=-1), torch.cat(by, dim=1)) if own else first

    def _read(self, crossed: Tensor) -> Tensor:
        return torch.cat([head(crossed) for head in self.heads], dim=-1)


class LastCross(nn.Module):
    """x (U, N, X), its first maps (U, N, E) and what is alike (U, 1, A) -> logits (U, N, T).

    See `Crossing`; what does not depend on the user is multiplied beforehand.
    """

    def __init__(self, interaction: nn.Module, heads: nn.ModuleList, *, alike: int) -> None:
        super().__init__()
        self.crosses, *deep = cast(Any, interaction).parts
        self.deep = deep[0] if deep else None
        self.alike, self.tasks = alike, len(heads)
        self.widths = [part.entry.out_features for part in (self.crosses, *deep)]
        linear = [cast(Any, head).layers[0] for head in heads]
        reads = torch.cat([one.weight.detach() for one in linear])  # (T, ·)
        read = reads[:, : self.crosses.out_dim]
        layer = self.crosses.layers[-1]
        weight, bias = layer.weight.detach(), layer.bias.detach()
        # (T, X, A) W_aᵀ r_a of each task, which times x_a is g; the heads read h itself as well.
        rows = read[:, None, :alike] * weight[:alike].T
        rows = torch.cat([rows.flatten(0, 1), read[:, :alike] * bias[:alike]])
        base = torch.cat([read.flatten(), *(one.bias.detach() for one in linear)])
        self.rows, self.base = nn.Buffer(rows, persistent=False), nn.Buffer(base, persistent=False)
        self.weight = nn.Buffer(weight[alike:].clone(), persistent=False)
        self.bias = nn.Buffer(bias[alike:].clone(), persistent=False)
        self.read = nn.Buffer(read[:, alike:].clone(), persistent=False)
        self.of_deep = nn.Buffer(reads[:, self.crosses.out_dim :].clone(), persistent=False)

    def forward(self, x: Tensor, first: Tensor, alike: Tensor) -> Tensor:
        entered = torch.split(first, self.widths, -1)
        hidden = self.crosses.before_last(x, entered[0])
        g = F.linear(alike, self.rows, self.base)  # (U, 1, T · X + T)
        by = g[..., : -self.tasks].view(x.shape[0], self.tasks, -1).mT  # (U, X, T)
        logits = torch.baddbmm(g[..., -self.tasks :], hidden, by)
        last = x[..., self.alike :] * F.linear(hidden, self.weight, self.bias)
        logits = logits + F.linear(last, self.read)
        if self.deep is None:
            return logits
        return logits + F.linear(self.deep.entered(x, entered[1]), self.of_deep)


def _entry(interaction: nn.Module) -> tuple[Tensor, Tensor] | None:
    """See `CrossAndDeep.entry`."""
    if not isinstance(interaction, CrossAndDeep):
        return None
    same = one_class(type(interaction), "forward", "entry", "entered")
    return interaction.entry() if same else None


def _ends_in_a_cross(interaction: nn.Module) -> bool:
    """Whether its first part is a CrossNetV2 of some depth, and nothing stands before it.

    No subclass, and no layer but a Linear: what they compute is their own.
    """
    if type(interaction) is not CrossAndDeep or interaction.squeeze is not None:
        return False
    first = interaction.parts[0]
    deep = type(first) is CrossNetV2 and len(first.layers) > 1
    return deep and type(cast(Any, first).layers[-1]) is nn.Linear


def _without_dropout(interaction: nn.Module) -> nn.Module:
    """The same in evaluation, with fewer calls: a request pays for each."""
    for part in interaction.modules():
        if type(part) is MLP:
            part.layers = nn.Sequential(*(x for x in part.layers if type(x) is not nn.Dropout))
    return interaction


def _is_linear(head: nn.Module) -> bool:
    if type(head) is not MLP or len(head.layers) > 1:
        return False
    return type(head.layers[0]) is nn.Linear and head.layers[0].bias is not None


def _is_one(size: Any) -> bool:
    """Whether a size is 1 and stays so: one that is free in an exported program is not."""
    return type(size) is int and size == 1

"""What a sequence encoder is, and the light ones. The Transformer is in `transformer.py`.

All of them keep one contract: padding is inert (what stands in it cannot change the output, not by
a bit, and may even be NaN), a row of padding alone gives a finite output and gradient, and a longer
left padding gives the same output.

Where the history's part does not need the target, `share` computes it once for many targets; see
`shared.py`.

B rows, L history, D item width, T tokens; U users, N targets a user.
"""

import math
from collections.abc import Sequence
from typing import Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrec.errors import InputError, positive, require
from mmrec.nn.history.shared import Apart, share_history
from mmrec.nn.history.tokens import Tokens, compact_here
from mmrec.nn.mlp import MLP


@runtime_checkable
class SequenceEncoder(Protocol):
    """History (B, L, D), target (B, D), valid (B, L) bool -> (B, out_dim)."""

    out_dim: int

    def __call__(self, history: Tensor, target: Tensor, valid: Tensor) -> Tensor: ...


class NoHistory(nn.Module):
    """Ignores the history: (B, 0). The control that shows what the history is worth."""

    out_dim = 0

    def forward(self, history: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        return target[:, :0]

    def share(self, history: Tensor, valid: Tensor) -> Apart:
        """See `Shareable`."""
        return lambda targets: targets[..., :0]


class MeanPool(nn.Module):
    """Mean of the real items, Σ_l v_l h_l / Σ_l v_l; zero where there is none.

    >>> history = torch.tensor([[[9.0, 9.0], [1.0, 2.0], [3.0, 4.0]]])
    >>> MeanPool(dim=2)(history, history[:, 0], torch.tensor([[False, True, True]]))
    tensor([[2., 3.]])
    """

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        positive(dim=dim)
        self.out_dim = dim

    def forward(self, history: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        history = without_padding(history, target, valid, dim=self.out_dim)
        return history.sum(1) / valid.sum(1, keepdim=True).clamp(min=1)

    def share(self, history: Tensor, valid: Tensor) -> Apart:
        """All of it: see `Shareable`."""
        mean = self(history, history.new_zeros(history.shape[0], self.out_dim), valid).unsqueeze(1)
        return lambda targets: mean


class DINAttention(nn.Module):
    """Σ_l a_l h_l, a_l = MLP([h_l; t; h_l - t; h_l ⊙ t]), without softmax. arXiv:1706.06978.

    The sum keeps how strong the interest is; `softmax=True` normalises over the real items.
    """

    def __init__(
        self,
        *,
        dim: int,
        hidden: Sequence[int] = (64,),
        softmax: bool = False,
        compact: bool | None = None,
    ) -> None:
        super().__init__()
        positive(dim=dim)
        self.out_dim, self.softmax, self.compact = dim, softmax, compact
        self.score = MLP(in_dim=4 * dim, hidden=hidden, activation=nn.PReLU, out_dim=1)

    def forward(self, history: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        history = without_padding(history, target, valid, dim=self.out_dim)
        tokens = Tokens(valid, compact=compact_here(self.compact, history))
        item, about = tokens.take(history), tokens.repeat(target)
        score = self.score(torch.cat([item, about, item - about, item * about], dim=-1))
        weight = tokens.spread(score).masked_fill(~valid.unsqueeze(-1), 0)  # (B, L, 1)
        if self.softmax:
            hidden = weight.masked_fill(~valid.unsqueeze(-1), torch.finfo(weight.dtype).min)
            weight = hidden.softmax(1).masked_fill(~valid.unsqueeze(-1), 0)
        return (weight * history).sum(1)

    def share(self, history: Tensor, valid: Tensor) -> Apart:
        """The items and their share of the MLP's first layer: see `Shareable`."""
        history, there = history.masked_fill(~valid.unsqueeze(-1), 0), valid.unsqueeze(1)
        first, rest = cast(nn.Linear, self.score.layers[0]), self.score.layers[1:]
        of_item, of_target, of_difference, of_product = first.weight.chunk(4, dim=1)  # (H, D) each
        # W [h; t; h - t; h ⊙ t] = (W_h + W_d) h + (W_t - W_d) t + (W_p ⊙ t) h
        item = F.linear(history, of_item + of_difference, first.bias).unsqueeze(1)  # (U, 1, L, H)

        def apart(targets: Tensor) -> Tensor:
            about = F.linear(targets, of_target - of_difference).unsqueeze(2)  # (U, N, 1, H)
            scaled = (targets.unsqueeze(2) * of_product).transpose(2, 3)  # (U, N, D, H)
            score = rest(item + about + history.unsqueeze(1) @ scaled)
            weight: Tensor = score.squeeze(-1)  # (U, N, L)
            if self.softmax:
                lowest = torch.finfo(weight.dtype).min
                weight = weight.masked_fill(~there, lowest).softmax(-1)
            return weight.masked_fill(~there, 0) @ history

        return apart


class ReluAttention(nn.Module):
    """Σ_l relu(q·k_l / √d) v_l per head, q = W_q t, k_l = W_k h_l, v_l = W_v h_l.

    The sparse target attention of QIN (arXiv:2504.17699): an item that does not fit the target
    has weight zero, and weights need not sum to one.
    """

    def __init__(
        self,
        *,
        dim: int,
        heads: int = 1,
        width: int | None = None,
        compact: bool | None = None,
    ) -> None:
        super().__init__()
        self.out_dim = width if width is not None else dim
        positive(dim=dim, heads=heads, width=self.out_dim)
        require(
            self.out_dim % heads == 0,
            f"width must be a multiple of heads, got {self.out_dim} and {heads}",
        )
        self.dim, self.heads, self.compact = dim, heads, compact
        self.query = nn.Linear(dim, self.out_dim)
        self.key_value = nn.Linear(dim, 2 * self.out_dim)

    def forward(self, history: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        history = without_padding(history, target, valid, dim=self.dim)
        tokens = Tokens(valid, compact=compact_here(self.compact, history))
        rows, length = valid.shape
        size = self.out_dim // self.heads
        pair = tokens.spread(self.key_value(tokens.take(history)))
        key, value = pair.view(rows, length, 2, self.heads, size).unbind(2)  # (B, L, heads, d)
        query = self.query(target).view(rows, self.heads, size)
        score = torch.einsum("bhd,blhd->blh", query, key) / math.sqrt(size)
        weight = score.relu().masked_fill(~valid.unsqueeze(-1), 0)
        return torch.einsum("blh,blhd->bhd", weight, value).flatten(1)

    def share(self, history: Tensor, valid: Tensor) -> Apart:
        """Keys and values: see `Shareable`."""
        users, length = valid.shape
        size = self.out_dim // self.heads
        pair = self.key_value(history.masked_fill(~valid.unsqueeze(-1), 0))
        pair = pair.masked_fill(~valid.unsqueeze(-1), 0)  # a key of zeros gets the weight zero
        pair = pair.view(users, length, 2, self.heads, size).permute(2, 0, 3, 1, 4)
        key, value = (pair[0] / math.sqrt(size)).transpose(2, 3), pair[1]

        def apart(targets: Tensor) -> Tensor:
            query = self.query(targets).unflatten(-1, (self.heads, size)).transpose(1, 2)
            found: Tensor = (query @ key).relu() @ value
            return found.transpose(1, 2).flatten(2)

        return apart


class ParallelSequences(nn.Module):
    """Several encoders of the same history beside one another: [e_1; e_2; …]."""

    def __init__(self, *, encoders: Sequence[SequenceEncoder]) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(cast(nn.Module, encoder) for encoder in encoders)
        self.out_dim = sum(encoder.out_dim for encoder in encoders)

    def forward(self, history: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        return torch.cat([e(history, target, valid) for e in self.encoders], dim=-1)

    def share(self, history: Tensor, valid: Tensor) -> Apart:
        """What each of them can share: see `Shareable`."""
        found = [share_history(encoder, history, valid) for encoder in self.encoders]

        def apart(targets: Tensor) -> Tensor:
            parts = [one(targets).expand(-1, targets.shape[1], -1) for one in found]
            return torch.cat(parts, dim=-1)

        return apart


def without_padding(history: Tensor, target: Tensor, valid: Tensor, *, dim: int) -> Tensor:
    """History with zeros at padding; raises unless the shapes are (B, L, dim), (B, dim), (B, L)."""
    rows, length = valid.shape
    if history.shape != (rows, length, dim) or target.shape != (rows, dim):
        raise InputError(
            f"history, target and valid must be (B, L, {dim}), (B, {dim}) and (B, L), got "
            f"{tuple(history.shape)}, {tuple(target.shape)} and {tuple(valid.shape)}"
        )
    return history.masked_fill(~valid.unsqueeze(-1), 0)

"""What a sequence encoder is, and the light ones. The Transformer is in `transformer.py`.

All of them keep one contract: padding is inert (what stands in it cannot change the output, not by
a bit, and may even be NaN), a row of padding alone gives a finite output and gradient, and a longer
left padding gives the same output.

B rows, L history, D item width, T tokens.
"""

import math
from collections.abc import Sequence
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from mmrec.errors import InputError, positive, require
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


class ParallelSequences(nn.Module):
    """Several encoders of the same history beside one another: [e_1; e_2; …]."""

    def __init__(self, *, encoders: Sequence[SequenceEncoder]) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(cast(nn.Module, encoder) for encoder in encoders)
        self.out_dim = sum(encoder.out_dim for encoder in encoders)

    def forward(self, history: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        return torch.cat([e(history, target, valid) for e in self.encoders], dim=-1)


def without_padding(history: Tensor, target: Tensor, valid: Tensor, *, dim: int) -> Tensor:
    """History with zeros at padding; raises unless the shapes are (B, L, dim), (B, dim), (B, L)."""
    rows, length = valid.shape
    if history.shape != (rows, length, dim) or target.shape != (rows, dim):
        raise InputError(
            f"history, target and valid must be (B, L, {dim}), (B, {dim}) and (B, L), got "
            f"{tuple(history.shape)}, {tuple(target.shape)} and {tuple(valid.shape)}"
        )
    return history.masked_fill(~valid.unsqueeze(-1), 0)

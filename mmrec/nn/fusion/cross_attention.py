"""Modality tokens that look at one another."""

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from mmrec.errors import positive
from mmrec.nn.fusion.base import ModalFusion


class CrossAttentionFusion(ModalFusion):
    """Each modality becomes K tokens of width W; those of one attend to those of the others.

    Z_m = reshape(W_m x_m + b_m, (K, W)), Ẑ_m the tokens of all other modalities, and
    Z'_m = LayerNorm(Z_m + softmax(Z_m Q_m (Ẑ_m K_m)ᵀ / √W) Ẑ_m V_m), y = O [Z'_1; …; Z'_M] + c.
    One token a modality would make the softmax of two trivial, hence K. A lone modality attends to
    itself.
    Parameters: (X + M) · K · W + M · (3 · W² + 2 · W) + (M · K · W + 1) · D, and X for the absent
    vectors.
    Source: co-attention of arXiv:1908.02265.
    """

    def __init__(
        self, *, dims: Mapping[str, int], out_dim: int = 128, tokens: int = 4, width: int = 32
    ) -> None:
        super().__init__(dims=dims, out_dim=out_dim)
        positive(tokens=tokens, width=width)
        self.shape = (tokens, width)
        self.project = nn.ModuleDict(
            {name: nn.Linear(dim, tokens * width) for name, dim in self.dims.items()}
        )
        self.look = nn.ModuleDict({name: _Attention(width) for name in self.dims})
        self.out = nn.Linear(len(dims) * tokens * width, out_dim)

    def fuse(self, x: dict[str, Tensor]) -> Tensor:
        own = {m: self.project[m](x[m]).unflatten(-1, self.shape) for m in self.dims}  # (..., K, W)
        looked = []
        for name in self.dims:
            others = [own[m] for m in self.dims if m != name] or [own[name]]
            looked.append(self.look[name](own[name], torch.cat(others, dim=-2)))
        return cast(Tensor, self.out(torch.cat(looked, dim=-2).flatten(-2)))


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, own: Tensor, other: Tensor) -> Tensor:
        score = self.query(own) @ self.key(other).transpose(-1, -2) / math.sqrt(own.shape[-1])
        return cast(Tensor, self.norm(own + score.softmax(-1) @ self.value(other)))

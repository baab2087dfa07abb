"""Attention-weighted sum of projections: the fusion of the pipeline's default."""

from typing import cast

import torch
from torch import Tensor, nn

from mmrec.errors import probability
from mmrec.nn.fusion.base import TwoModalFusion


class AttentionFusion(TwoModalFusion):
    """y = LayerNorm(Σ_m α_m z_m), α = softmax_m(vᵀ tanh(A z_m + c)), z_m = W_m x_m + b_m.

    `dropout` acts on the z_m.
    Parameters: (Di + Dt + 2) · D + D² + 4 · D, and Di + Dt for the absent vectors.
    Source: additive attention (arXiv:1409.0473) over modalities.
    """

    def __init__(
        self, *, image_dim: int, text_dim: int, out_dim: int = 128, dropout: float = 0.0
    ) -> None:
        super().__init__(image_dim=image_dim, text_dim=text_dim, out_dim=out_dim)
        probability(dropout=dropout)
        self.image, self.text = nn.Linear(image_dim, out_dim), nn.Linear(text_dim, out_dim)
        self.key = nn.Linear(out_dim, out_dim)
        self.score = nn.Linear(out_dim, 1, bias=False)
        self.norm = nn.LayerNorm(out_dim)
        self.dropout = nn.Dropout(dropout)

    def fuse(self, image: Tensor, text: Tensor) -> Tensor:
        projected = torch.stack([self.image(image), self.text(text)], dim=-2)  # (..., 2, D)
        projected = self.dropout(projected)
        weight = self.score(torch.tanh(self.key(projected))).softmax(dim=-2)  # (..., 2, 1)
        return cast(Tensor, self.norm((weight * projected).sum(dim=-2)))

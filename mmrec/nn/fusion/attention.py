"""Attention-weighted sum of projections: the fusion of the pipeline's default."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from mmrec.errors import probability
from mmrec.nn.fusion.base import ModalFusion


class AttentionFusion(ModalFusion):
    """y = LayerNorm(Σ_m α_m z_m), α = softmax_m(vᵀ tanh(A z_m + c)), z_m = W_m x_m + b_m.

    `dropout` acts on the z_m. A lone modality has α = 1, and neither A nor v.
    Parameters: (X + M) · D + D² + 4 · D, or (X + 3) · D for one modality, and X for the absent
    vectors.
    Source: additive attention (arXiv:1409.0473) over modalities.
    """

    def __init__(
        self, *, dims: Mapping[str, int], out_dim: int = 128, dropout: float = 0.0
    ) -> None:
        super().__init__(dims=dims, out_dim=out_dim)
        probability(dropout=dropout)
        self.project = nn.ModuleDict(
            {name: nn.Linear(dim, out_dim) for name, dim in self.dims.items()}
        )
        self.key = nn.Linear(out_dim, out_dim) if len(dims) > 1 else None
        self.score = nn.Linear(out_dim, 1, bias=False) if len(dims) > 1 else None
        self.norm = nn.LayerNorm(out_dim)
        self.dropout = nn.Dropout(dropout)

    def fuse(self, x: dict[str, Tensor]) -> Tensor:
        projected = torch.stack([self.project[m](x[m]) for m in self.dims], dim=-2)  # (..., M, D)
        projected = self.dropout(projected)
        if self.key is None or self.score is None:
            return cast(Tensor, self.norm(projected.squeeze(-2)))
        weight = self.score(torch.tanh(self.key(projected))).softmax(dim=-2)  # (..., M, 1)
        return cast(Tensor, self.norm((weight * projected).sum(dim=-2)))

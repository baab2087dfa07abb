"""Modality tokens that look at one another."""

import math
from typing import cast

import torch
from torch import Tensor, nn

from mmrec.errors import positive
from mmrec.nn.fusion.base import TwoModalFusion


class CrossAttentionFusion(TwoModalFusion):
    """Each modality becomes K tokens of width W; those of one attend to those of the other.

    Z_m = reshape(W_m x_m + b_m, (K, W)), and for (m, n) = (image, text) and (text, image)
    Z'_m = LayerNorm(Z_m + softmax(Z_m Q_m (Z_n K_m)ᵀ / √W) Z_n V_m), y = O [Z'_image; Z'_text] + c.
    One token a modality would make the softmax trivial, hence K.
    Parameters: (Di + Dt + 2) · K · W + 6 · W² + 4 · W + (2 · K · W + 1) · D, and Di + Dt for the
    absent vectors.
    Source: co-attention of arXiv:1908.02265.
    """

    def __init__(
        self,
        *,
        image_dim: int,
        text_dim: int,
        out_dim: int = 128,
        tokens: int = 4,
        width: int = 32,
    ) -> None:
        super().__init__(image_dim=image_dim, text_dim=text_dim, out_dim=out_dim)
        positive(tokens=tokens, width=width)
        self.tokens, self.width = tokens, width
        self.image = nn.Linear(image_dim, tokens * width)
        self.text = nn.Linear(text_dim, tokens * width)
        self.image_to_text = _Attention(width)
        self.text_to_image = _Attention(width)
        self.out = nn.Linear(2 * tokens * width, out_dim)

    def fuse(self, image: Tensor, text: Tensor) -> Tensor:
        shape = (self.tokens, self.width)
        image = self.image(image).unflatten(-1, shape)  # (..., K, W)
        text = self.text(text).unflatten(-1, shape)
        both = torch.cat([self.image_to_text(image, text), self.text_to_image(text, image)], -2)
        return cast(Tensor, self.out(both.flatten(-2)))


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

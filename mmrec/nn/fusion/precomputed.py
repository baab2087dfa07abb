"""Vectors that are ready: a frozen content vector an item passes through."""

import torch
from torch import Tensor, nn

from mmrec.errors import positive, require
from mmrec.nn.fusion.base import ABSENT_STD, check_modalities, check_width, fill


class PrecomputedFusion(nn.Module):
    """y = x_image where it is present, else a learned vector; the text is not looked at.

    For vectors fused beforehand, which stand in the image's place.
    Parameters: Di with `learn_absent`, else 0 (an absent vector is then zero).
    """

    def __init__(
        self, *, image_dim: int, text_dim: int, out_dim: int, learn_absent: bool = True
    ) -> None:
        super().__init__()
        positive(image_dim=image_dim, text_dim=text_dim)
        require(
            out_dim == image_dim,
            f"a precomputed fusion is as wide as its vectors, {image_dim}, got out_dim {out_dim}",
        )
        self.out_dim = out_dim
        self.absent = (
            nn.Parameter(torch.randn(image_dim) * ABSENT_STD)
            if learn_absent
            else nn.Buffer(torch.zeros(image_dim), persistent=False)
        )

    def forward(self, image: Tensor, text: Tensor, has_image: Tensor, has_text: Tensor) -> Tensor:
        check_modalities(image, text, has_image, has_text)
        check_width("image", image, self.out_dim)
        return fill(image, has_image, self.absent)

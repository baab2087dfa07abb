"""Concatenation and one linear map: the baseline that the others must beat."""

from typing import cast

import torch
from torch import Tensor, nn

from mmrec.nn.fusion.base import TwoModalFusion


class ConcatFusion(TwoModalFusion):
    """y = W [x_image; x_text] + b.

    Parameters: (Di + Dt + 1) · D, and Di + Dt for the absent vectors.
    Source: the early fusion of arXiv:1705.09406, section 6.1.

    >>> there = torch.ones(5, dtype=torch.bool)
    >>> fusion = ConcatFusion(image_dim=3, text_dim=2, out_dim=7)
    >>> fusion(torch.ones(5, 3), torch.ones(5, 2), there, there).shape
    torch.Size([5, 7])
    """

    def __init__(self, *, image_dim: int, text_dim: int, out_dim: int = 128) -> None:
        super().__init__(image_dim=image_dim, text_dim=text_dim, out_dim=out_dim)
        self.linear = nn.Linear(image_dim + text_dim, out_dim)

    def fuse(self, image: Tensor, text: Tensor) -> Tensor:
        return cast(Tensor, self.linear(torch.cat([image, text], dim=-1)))

"""Concatenation and one linear map: the baseline that the others must beat."""

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from mmrec.nn.fusion.base import ModalFusion, joined


class ConcatFusion(ModalFusion):
    """y = W [x_1; …; x_M] + b.

    Parameters: (X + 1) · D, and X for the absent vectors.
    Source: the early fusion of arXiv:1705.09406, section 6.1.

    >>> import torch
    >>> there = torch.ones(5, dtype=torch.bool)
    >>> fusion = ConcatFusion(dims={"image": 3, "text": 2}, out_dim=7)
    >>> vectors = {"image": torch.ones(5, 3), "text": torch.ones(5, 2)}
    >>> fusion(vectors, {"image": there, "text": ~there}).shape
    torch.Size([5, 7])
    """

    def __init__(self, *, dims: Mapping[str, int], out_dim: int = 128) -> None:
        super().__init__(dims=dims, out_dim=out_dim)
        self.linear = nn.Linear(self.width, out_dim)

    def fuse(self, x: dict[str, Tensor]) -> Tensor:
        return cast(Tensor, self.linear(joined(x)))

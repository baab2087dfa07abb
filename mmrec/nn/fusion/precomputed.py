"""Vectors that are ready: a frozen content vector an item passes through."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmrec.errors import positive, require
from mmrec.nn.fusion.base import (
    ABSENT_STD,
    Present,
    Vectors,
    check_modalities,
    checked_dims,
    fill,
)


class PrecomputedFusion(nn.Module):
    """y = x_m where it is present, else a learned vector; other modalities are not looked at.

    For vectors fused beforehand.
    Parameters: D_m with `learn_absent`, else 0 (an absent vector is then zero).

    Args:
        modality: m; None = the only one.
    """

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        out_dim: int,
        modality: str | None = None,
        learn_absent: bool = True,
    ) -> None:
        super().__init__()
        positive(out_dim=out_dim)
        dims = checked_dims(dims)
        names = list(dims) if modality is None else [modality]
        require(
            len(names) == 1 and names[0] in dims,
            "a precomputed fusion is of one modality, named by the option modality where there are "
            f"several, got {modality} of {', '.join(dims)}",
        )
        self.dims = {names[0]: dims[names[0]]}
        self.modality, width = names[0], dims[names[0]]
        require(
            out_dim == width,
            f"a precomputed fusion is as wide as its vectors, {width}, got out_dim {out_dim}",
        )
        self.out_dim = out_dim
        self.absent = (
            nn.Parameter(torch.randn(width) * ABSENT_STD)
            if learn_absent
            else nn.Buffer(torch.zeros(width), persistent=False)
        )

    def forward(self, vectors: Vectors, present: Present) -> Tensor:
        check_modalities(self.dims, vectors, present)
        return fill(vectors[self.modality], present[self.modality], self.absent)

"""Sum and mean of normalised projections."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmrec.errors import positive
from mmrec.nn.fusion.base import (
    ABSENT_STD,
    ModalFusion,
    Present,
    Vectors,
    check_modalities,
    checked_dims,
    fill,
)


class SumFusion(ModalFusion):
    """y = Σ_m z_m, z_m = LayerNorm(W_m x_m + b_m).

    Without the norm this would be `ConcatFusion`; with it all modalities weigh the same however
    long their vectors are.
    Parameters: (X + 3 · M) · D, and X for the absent vectors.
    Source: additive early fusion, arXiv:1705.09406, section 6.1.
    """

    def __init__(self, *, dims: Mapping[str, int], out_dim: int = 128) -> None:
        super().__init__(dims=dims, out_dim=out_dim)
        self.project = _projections(self.dims, out_dim)

    def fuse(self, x: dict[str, Tensor]) -> Tensor:
        return _total([self.project[name](x[name]) for name in self.dims])


class MeanFusion(nn.Module):
    """y = Σ_m p_m z_m / Σ_m p_m over present modalities, z_m = LayerNorm(W_m x_m + b_m).

    p_m is 1 where modality m is present; an item without any has a learned y.
    Parameters: (X + 3 · M) · D, and D for the item without content.
    Source: as `SumFusion`.
    """

    def __init__(self, *, dims: Mapping[str, int], out_dim: int = 128) -> None:
        super().__init__()
        positive(out_dim=out_dim)
        self.dims, self.out_dim = checked_dims(dims), out_dim
        self.project = _projections(self.dims, out_dim)
        self.nothing = nn.Parameter(torch.randn(out_dim) * ABSENT_STD)

    def forward(self, vectors: Vectors, present: Present) -> Tensor:
        check_modalities(self.dims, vectors, present)
        found = []
        for name in self.dims:
            absent = ~present[name].unsqueeze(-1)
            # Zeroed before the projection: what an absent vector holds may be NaN.
            z = self.project[name](vectors[name].masked_fill(absent, 0))
            found.append(z.masked_fill(absent, 0))
        total = _total(found)
        count = torch.stack([present[name] for name in self.dims]).sum(0)
        mean = total / count.clamp(min=1).unsqueeze(-1).to(total.dtype)
        return fill(mean, count > 0, self.nothing)


def _projections(dims: Mapping[str, int], out_dim: int) -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            name: nn.Sequential(nn.Linear(dim, out_dim), nn.LayerNorm(out_dim))
            for name, dim in dims.items()
        }
    )


def _total(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total

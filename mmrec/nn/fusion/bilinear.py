"""Products of modalities: low-rank over all of them, and with a small core tensor over pairs."""

import math
from collections.abc import Mapping
from functools import reduce
from itertools import combinations
from operator import mul
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrec.errors import positive
from mmrec.nn.fusion.base import ModalFusion


class LowRankFusion(ModalFusion):
    """y = Σ_r w_r · Π_m (U_mr [x_m; 1]) + b, product by dimension, U_mr of (D, D_m + 1).

    All products of one dimension of each modality, through a tensor of rank R; the ones keep the
    single modalities in.
    Parameters: R · D · (X + M) + R + D, and X for the absent vectors.
    Source: LMF, arXiv:1806.00064.
    """

    def __init__(self, *, dims: Mapping[str, int], out_dim: int = 128, rank: int = 4) -> None:
        super().__init__(dims=dims, out_dim=out_dim)
        positive(rank=rank)
        self.rank = rank
        self.factor = nn.ModuleDict(
            {name: _factor(dim, rank * out_dim) for name, dim in self.dims.items()}
        )
        self.weight = nn.Parameter(torch.full((rank,), 1 / math.sqrt(rank)))
        self.bias = nn.Parameter(torch.zeros(out_dim))

    def fuse(self, x: dict[str, Tensor]) -> Tensor:
        product = reduce(mul, (self.factor[name](x[name]) for name in self.dims))
        product = product.unflatten(-1, (self.rank, self.out_dim))  # (..., R, D)
        return torch.einsum("...rd,r->...d", product, self.weight.to(product.dtype)) + self.bias


def _factor(in_dim: int, out_dim: int) -> nn.Linear:
    """Its constant starts at ±1: products alone would start near zero and learn slowly."""
    factor = nn.Linear(in_dim, out_dim)
    nn.init.normal_(factor.weight, std=1 / math.sqrt(in_dim))
    with torch.no_grad():
        factor.bias.copy_(torch.randn_like(factor.bias).sign())
    return factor


class BilinearFusion(ModalFusion):
    """y_d = Σ_{m<n} p_m' T_mnd p_n, p_m = [W_m x_m + b_m; 1], T_mnd of (K+1, K+1).

    A bilinear form of each pair of squeezed modalities (Tucker); the ones keep the single
    modalities in. A lone modality is paired with itself.
    Parameters: K · (X + M) + P · D · (K + 1)² of P = max(1, M (M - 1) / 2) pairs, and X for the
    absent vectors.
    Source: the tensor fusion of MTFN, arXiv:1908.04011.
    """

    def __init__(self, *, dims: Mapping[str, int], out_dim: int = 128, core: int = 16) -> None:
        super().__init__(dims=dims, out_dim=out_dim)
        positive(core=core)
        self.squeeze = nn.ModuleDict(
            {name: nn.Linear(dim, core) for name, dim in self.dims.items()}
        )
        names = list(self.dims)
        self.pairs = list(combinations(names, 2)) or [(names[0], names[0])]
        self.core = nn.Linear(len(self.pairs) * (core + 1) ** 2, out_dim, bias=False)

    def fuse(self, x: dict[str, Tensor]) -> Tensor:
        p = {name: F.pad(self.squeeze[name](x[name]), (0, 1), value=1.0) for name in self.dims}
        products = [  # each (..., (K + 1)²)
            (p[one].unsqueeze(-1) * p[other].unsqueeze(-2)).flatten(-2) for one, other in self.pairs
        ]
        return cast(Tensor, self.core(torch.cat(products, dim=-1)))

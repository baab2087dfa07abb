"""Explicit feature crosses: full rank, low rank, and a mixture of low-rank experts.

All take (..., dim) and return (..., dim). E experts, R rank.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn

from mmrec.errors import positive


class CrossNetV2(nn.Module):
    """x_{l+1} = x_0 ⊙ (W_l x_l + b_l) + x_l, l = 0 … depth-1. arXiv:2008.13535.

    Parameters: depth · (dim² + dim).

    >>> CrossNetV2(dim=6, depth=2)(torch.ones(4, 6)).shape
    torch.Size([4, 6])
    """

    def __init__(self, *, dim: int, depth: int = 2) -> None:
        super().__init__()
        positive(dim=dim, depth=depth)
        self.in_dim = self.out_dim = dim
        self.layers = nn.ModuleList(nn.Linear(dim, dim) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        return self.entered(x, self.entry(x))

    @property
    def entry(self) -> nn.Linear:
        """The map that reads x at first."""
        return cast(nn.Linear, self.layers[0])

    def entered(self, x: Tensor, first: Tensor) -> Tensor:
        """`forward(x)`, given first = entry(x)."""
        if len(self.layers) == 1:
            return torch.addcmul(x, x, first)
        crossed = self.before_last(x, first)
        return torch.addcmul(crossed, x, self.layers[-1](crossed))

    def before_last(self, x: Tensor, first: Tensor) -> Tensor:
        """x_{depth-1}, what the last of several layers is given."""
        crossed = torch.addcmul(x, x, first)
        for layer in self.layers[1:-1]:
            crossed = torch.addcmul(crossed, x, layer(crossed))
        return crossed


class CrossNetLowRank(nn.Module):
    """x_{l+1} = x_0 ⊙ (U_l V_lᵀ x_l + b_l) + x_l with U_l, V_l of (dim, rank). arXiv:2008.13535.

    Parameters: depth · (2 · dim · rank + dim): at dim 9,088 and rank 64, one seventieth of the
    full-rank layers.

    >>> CrossNetLowRank(dim=6, depth=2, rank=3)(torch.ones(1, 6)).shape
    torch.Size([1, 6])
    """

    def __init__(self, *, dim: int, depth: int = 2, rank: int = 32) -> None:
        super().__init__()
        positive(dim=dim, depth=depth, rank=rank)
        self.in_dim = self.out_dim = dim
        self.down = nn.ModuleList(nn.Linear(dim, rank, bias=False) for _ in range(depth))
        self.up = nn.ModuleList(nn.Linear(rank, dim) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        crossed = x
        for down, up in zip(self.down, self.up, strict=True):
            crossed = torch.addcmul(crossed, x, up(down(crossed)))
        return crossed


class CrossNetMix(nn.Module):
    """Low-rank crosses mixed by a gate:

    x_{l+1} = x_l + Σ_e softmax_e(g_eᵀ x_l) · x_0 ⊙ (U_le tanh(C_le tanh(V_leᵀ x_l)) + b_l)

    U, V of (dim, rank), C of (rank, rank); the gates g_e serve all layers. arXiv:2008.13535.
    Since the gate's weights sum to one, b_l leaves the sum, and one product with the stacked U
    serves all experts.
    Parameters: depth · (E · (2 · dim · rank + rank²) + dim) + E · dim.

    >>> CrossNetMix(dim=6, depth=2, num_experts=2, rank=3)(torch.ones(1, 6)).shape
    torch.Size([1, 6])
    """

    def __init__(self, *, dim: int, depth: int = 2, num_experts: int = 4, rank: int = 32) -> None:
        super().__init__()
        positive(dim=dim, depth=depth, num_experts=num_experts, rank=rank)
        self.in_dim = self.out_dim = dim
        self.depth = depth
        self.gate = nn.Linear(dim, num_experts, bias=False)
        self.u = nn.Parameter(_xavier(depth, num_experts, dim, rank))
        self.v = nn.Parameter(_xavier(depth, num_experts, dim, rank))
        self.c = nn.Parameter(_xavier(depth, num_experts, rank, rank))
        self.bias = nn.Parameter(torch.zeros(depth, dim))

    def forward(self, x: Tensor) -> Tensor:
        crossed = x
        for layer in range(self.depth):
            gate = self.gate(crossed).softmax(-1)  # (..., E)
            hidden = torch.einsum("...d,edr->...er", crossed, self.v[layer]).tanh()
            hidden = torch.einsum("...er,esr->...es", hidden, self.c[layer]).tanh()
            mixed = torch.einsum("...er,edr->...d", hidden * gate.unsqueeze(-1), self.u[layer])
            crossed = torch.addcmul(crossed, x, mixed + self.bias[layer])
        return crossed


def _xavier(depth: int, num_experts: int, rows: int, columns: int) -> Tensor:
    """Xavier-normal matrices, stacked over layers and experts."""
    std = math.sqrt(2.0 / (rows + columns))
    return torch.randn(depth, num_experts, rows, columns) * std

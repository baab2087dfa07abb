"""Numbers to vectors: standardised, a learned vector where one is missing.

… any leading dims, F columns, D width, K frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from mmrec.errors import InputError, positive
from mmrec.nn.users import EMBEDDING_STD


@runtime_checkable
class NumericEncoder(Protocol):
    """Numbers (…, F), NaN where missing -> (…, out_dim)."""

    out_dim: int

    def __call__(self, values: Tensor) -> Tensor: ...


class Standardized(nn.Module):
    """z_f = (x_f - mean_f) / std_f, and where x_f is there: (…, F) -> z (…, F), present (…, F).

    Moments are buffers: those of the training rows travel with the model. A missing z is 0.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if not mean or len(mean) != len(std):
            raise InputError(f"numbers need mean and std a column, got {len(mean)} and {len(std)}")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("scale", 1 / torch.tensor(std, dtype=torch.float32))

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        if values.shape[-1] != len(self.mean):
            raise InputError(f"numbers must hold {len(self.mean)} columns, got {values.shape[-1]}")
        present = ~values.isnan()
        z = (values.to(self.mean.dtype) - self.mean) * self.scale
        return torch.where(present, z, 0), present


class LinearNumbers(nn.Module):
    """e_f = z_f w_f + b_f, or a learned vector m_f where missing; side by side, or added up.

    Args:
        mean, std: of each column over the training rows.
        dim: D.
        total: Σ_f e_f (…, D) instead of [e_1; …; e_F] (…, F · D).

    >>> numbers = LinearNumbers(mean=[3.0, 0.0], std=[2.0, 1.0], dim=4)
    >>> numbers(torch.tensor([[5.0, torch.nan]])).shape
    torch.Size([1, 8])
    """

    def __init__(
        self, *, mean: Sequence[float], std: Sequence[float], dim: int = 8, total: bool = False
    ) -> None:
        super().__init__()
        positive(dim=dim)
        self.standardized = Standardized(mean=mean, std=std)
        self.out_dim, self.total = dim if total else dim * len(mean), total
        self.weight = nn.Parameter(torch.randn(len(mean), dim) * EMBEDDING_STD)
        self.bias = nn.Parameter(torch.zeros(len(mean), dim))
        self.absent = nn.Parameter(torch.zeros(len(mean), dim))

    def forward(self, values: Tensor) -> Tensor:
        z, present = self.standardized(values)
        there = torch.addcmul(self.bias, z.unsqueeze(-1), self.weight)  # (…, F, D)
        vectors = torch.where(present.unsqueeze(-1), there, self.absent)
        return vectors.sum(-2) if self.total else vectors.flatten(-2)


class PeriodicNumbers(nn.Module):
    """e_f = relu(W_f [sin 2π c_f z_f; cos 2π c_f z_f] + b_f), c_f (K,) learned. arXiv:2203.05556.

    Args:
        mean, std, dim, total: as in `LinearNumbers`.
        frequencies: K.
        sigma: c_f starts normal with that standard deviation.
    """

    def __init__(
        self,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        dim: int = 8,
        total: bool = False,
        frequencies: int = 16,
        sigma: float = 0.1,
    ) -> None:
        super().__init__()
        positive(dim=dim, frequencies=frequencies)
        self.standardized = Standardized(mean=mean, std=std)
        self.out_dim, self.total = dim if total else dim * len(mean), total
        columns, bound = len(mean), 1 / math.sqrt(2 * frequencies)
        self.frequency = nn.Parameter(torch.randn(columns, frequencies) * sigma)
        self.weight = nn.Parameter(
            torch.empty(columns, 2 * frequencies, dim).uniform_(-bound, bound)
        )
        self.bias = nn.Parameter(torch.empty(columns, dim).uniform_(-bound, bound))
        self.absent = nn.Parameter(torch.zeros(columns, dim))

    def forward(self, values: Tensor) -> Tensor:
        z, present = self.standardized(values)
        angle = 2 * math.pi * z.unsqueeze(-1) * self.frequency  # (…, F, K)
        waves = torch.cat([angle.sin(), angle.cos()], dim=-1)
        there = (torch.einsum("...fk,fkd->...fd", waves, self.weight) + self.bias).relu()
        vectors = torch.where(present.unsqueeze(-1), there, self.absent)
        return vectors.sum(-2) if self.total else vectors.flatten(-2)

"""Principal components: no training, the baseline that any trained fusion has to beat.

N items, X width of an input.
"""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from mmrec.errors import InputError, positive, require
from mmrec.nn.fusion.base import Estimated, ModalFusion, Present, Vectors, joined


class PCA(Estimated):
    """y = Pᵀ (x - μ) / σ_1, P the first `out_dim` eigenvectors of the covariance of the rows.

    σ_1, the deviation along the first, brings the values to the size of one without bending the
    space. `estimate` must come first; what it finds belongs to the checkpoint, nothing is trained.
    """

    def __init__(self, *, in_dim: int, out_dim: int) -> None:
        super().__init__()
        positive(in_dim=in_dim, out_dim=out_dim)
        require(
            out_dim <= in_dim,
            f"there are no more components than dimensions, {in_dim}, got out_dim {out_dim}",
        )
        self.out_dim = out_dim
        self.mean = nn.Buffer(torch.zeros(in_dim))
        self.components = nn.Buffer(torch.full((in_dim, out_dim), float("nan")))

    @torch.no_grad()
    def estimate(self, x: Tensor) -> None:
        """Rows (N, X), in float64 inside; the largest entry of each eigenvector is positive."""
        rows = x.double()
        require(len(rows) >= 2, f"principal components need at least 2 rows, got {len(rows)}")
        mean = rows.mean(0)
        values, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
        vectors = vectors.flip(1)[:, : self.out_dim]
        peak = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
        scale = values[-1].clamp(min=1e-12).sqrt()
        self.mean.copy_(mean)
        self.components.copy_(vectors * peak.sign() / scale)
        self.look()

    def forward(self, x: Tensor) -> Tensor:
        if not self.estimated:
            raise InputError("components must be estimated before use: call estimate(...)")
        return (x - self.mean) @ self.components


class PCAFusion(ModalFusion):
    """Principal components of [x_1; …; x_M]; see `PCA`. An absent vector counts as the mean.

    Parameters: none but X for the absent vectors, which are trained.
    Source: Pearson 1901; for frozen content in click models, arXiv:2504.18961.
    """

    def __init__(self, *, dims: Mapping[str, int], out_dim: int = 128) -> None:
        super().__init__(dims=dims, out_dim=out_dim)
        self.pca = PCA(in_dim=self.width, out_dim=out_dim)

    @property
    def estimated(self) -> bool:
        return self.pca.estimated

    def estimate(self, vectors: Vectors, present: Present) -> None:
        """Vectors (N, D_m) and their presence (N,)."""
        self.pca.estimate(joined({m: mean_filled(vectors[m], present[m]) for m in self.dims}))

    def fuse(self, x: dict[str, Tensor]) -> Tensor:
        return cast(Tensor, self.pca(joined(x)))


class SeparatePCAFusion(ModalFusion):
    """[PCA_1(x_1); …; PCA_M(x_M)], each estimated on the rows that have it; see `PCA`.

    The D dimensions are dealt out one by one in the order of the names, to those that have more.
    Parameters: none but X for the absent vectors, which are trained.
    Source: arXiv:2504.18961.
    """

    def __init__(self, *, dims: Mapping[str, int], out_dim: int = 128) -> None:
        super().__init__(dims=dims, out_dim=out_dim)
        require(
            len(dims) <= out_dim <= self.width,
            "out_dim must leave a dimension to each modality and be at most all they have, "
            f"{len(dims)} … {self.width}, got {out_dim}",
        )
        shares = dict.fromkeys(self.dims, 0)
        while sum(shares.values()) < out_dim:
            room = [name for name in shares if shares[name] < self.dims[name]]
            shares[min(room, key=shares.__getitem__)] += 1
        self.each = nn.ModuleDict(
            {name: PCA(in_dim=self.dims[name], out_dim=share) for name, share in shares.items()}
        )

    @property
    def estimated(self) -> bool:
        return all(cast(PCA, pca).estimated for pca in self.each.values())

    def estimate(self, vectors: Vectors, present: Present) -> None:
        """Vectors (N, D_m) and their presence (N,)."""
        for name, pca in self.each.items():
            cast(PCA, pca).estimate(vectors[name][present[name]])

    def fuse(self, x: dict[str, Tensor]) -> Tensor:
        return torch.cat([self.each[name](x[name]) for name in self.dims], dim=-1)


def mean_filled(x: Tensor, present: Tensor) -> Tensor:
    """(N, X) with the mean of the present rows in the absent ones."""
    if not present.any():
        return torch.zeros_like(x)
    return torch.where(present.unsqueeze(-1), x, x[present].mean(0))

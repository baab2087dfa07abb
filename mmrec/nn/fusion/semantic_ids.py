"""Semantic ids: content quantised to a few codes, each with an embedding that is trained.

N items, X width of all modalities, V levels, K codes a level.
"""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from mmrec.errors import InputError, positive
from mmrec.nn.fusion.base import (
    ABSENT_STD,
    Estimated,
    Present,
    Vectors,
    check_modalities,
    checked_dims,
)
from mmrec.nn.fusion.concat import ConcatFusion
from mmrec.nn.fusion.pca import mean_filled
from mmrec.nn.kmeans import kmeans, nearest
from mmrec.nn.users import EMBEDDING_STD


class ResidualQuantizer(Estimated):
    """c_v = argmin_k ‖r_v - C_vk‖, r_{v+1} = r_v - C_{v,c_v}, r_1 = x: (..., X) -> (..., V) int64.

    The codebooks C are k-means of the residuals, one level after the other (RQ-KMeans).
    """

    def __init__(self, *, in_dim: int, levels: int, codes: int) -> None:
        super().__init__()
        positive(in_dim=in_dim, levels=levels, codes=codes)
        self.codebooks = nn.Buffer(torch.full((levels, codes, in_dim), float("nan")))

    @torch.no_grad()
    def estimate(self, x: Tensor, *, seed: int = 0) -> None:
        """Rows (N, X); the same rows and seed give the same codebooks."""
        residual = x.float()
        for level, book in enumerate(self.codebooks):
            centres = kmeans(residual, clusters=len(book), seed=seed + level)
            book.copy_(centres)
            residual = residual - centres[nearest(residual, centres)]
        self.look()

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        if not self.estimated:
            raise InputError("codebooks must be estimated before use: call estimate(...)")
        # Codes must not hang on the precision around them.
        with torch.autocast(device_type=x.device.type, enabled=False):
            residual = x.to(self.codebooks.dtype)
            codes = []
            for book in self.codebooks.unbind(0):
                code = nearest(residual, book)
                residual = residual - book[code]
                codes.append(code)
        return torch.stack(codes, dim=-1)


class SemanticIdFusion(nn.Module):
    """y = Σ_v E_v[c_v] + Σ_m [m is absent] a_m, c the codes of [x_1; …; x_M].

    Like items share codes, so embeddings are trained that unseen items can use. Modalities are
    scaled to equal variance before they are quantised; an absent one counts as its mean.
    Parameters: V · K · D + M · D.
    Source: residual-quantised ids, arXiv:2411.11739.
    """

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        out_dim: int = 128,
        levels: int = 3,
        codes: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__()
        positive(out_dim=out_dim)
        self.dims, self.out_dim, self.seed = checked_dims(dims), out_dim, seed
        width = sum(self.dims.values())
        self.quantizer = ResidualQuantizer(in_dim=width, levels=levels, codes=codes)
        self.mean = nn.Buffer(torch.zeros(width))
        self.scale = nn.Buffer(torch.ones(width))
        self.embedding = nn.Embedding(levels * codes, out_dim)
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_STD)
        self.absent = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(out_dim) * ABSENT_STD) for name in self.dims}
        )

    @property
    def estimated(self) -> bool:
        return self.quantizer.estimated

    @torch.no_grad()
    def estimate(self, vectors: Vectors, present: Present) -> None:
        """Vectors (N, D_m) and their presence (N,)."""
        parts = [mean_filled(vectors[name], present[name]).float() for name in self.dims]
        total = [part.var(0, unbiased=False).sum().clamp(min=1e-12).rsqrt() for part in parts]
        self.mean.copy_(torch.cat([part.mean(0) for part in parts]))
        widths = [part.shape[1] for part in parts]
        self.scale.copy_(torch.cat([s.expand(w) for s, w in zip(total, widths, strict=True)]))
        rows = (torch.cat(parts, dim=-1) - self.mean) * self.scale
        # A code learned from a filled-in mean would stand for nothing: only whole items teach.
        whole = torch.stack([present[name] for name in self.dims]).all(0)
        self.quantizer.estimate(rows[whole] if whole.any() else rows, seed=self.seed)

    def codes(self, vectors: Vectors, present: Present) -> Tensor:
        """The semantic ids, (..., V) int64."""
        check_modalities(self.dims, vectors, present)
        x = torch.cat([vectors[name] for name in self.dims], dim=-1)
        there = [present[name].unsqueeze(-1).expand(vectors[name].shape) for name in self.dims]
        x = (x - self.mean) * self.scale
        return cast(Tensor, self.quantizer(x.masked_fill(~torch.cat(there, dim=-1), 0)))

    def forward(self, vectors: Vectors, present: Present) -> Tensor:
        codes = self.codes(vectors, present)
        size = self.quantizer.codebooks.shape[1]
        level = torch.arange(codes.shape[-1], device=codes.device) * size
        fused: Tensor = self.embedding(codes + level).sum(-2)
        for name in self.dims:
            fused = fused + (~present[name]).to(fused.dtype).unsqueeze(-1) * self.absent[name]
        return fused


class SemanticIdDenseFusion(nn.Module):
    """[SemanticIdFusion; ConcatFusion], D // 2 wide and D - D // 2: codes beside dense content.

    Parameters: those of the two.
    Source: arXiv:2411.11739.
    """

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        out_dim: int = 128,
        levels: int = 3,
        codes: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__()
        positive(2, out_dim=out_dim)  # half for each part
        self.out_dim, half = out_dim, out_dim // 2
        self.ids = SemanticIdFusion(dims=dims, out_dim=half, levels=levels, codes=codes, seed=seed)
        self.dense = ConcatFusion(dims=dims, out_dim=out_dim - half)

    @property
    def estimated(self) -> bool:
        return self.ids.estimated

    def estimate(self, vectors: Vectors, present: Present) -> None:
        """Vectors (N, D_m) and their presence (N,)."""
        self.ids.estimate(vectors, present)

    def forward(self, vectors: Vectors, present: Present) -> Tensor:
        return torch.cat([self.ids(vectors, present), self.dense(vectors, present)], dim=-1)

"""Products of image and text: low-rank, and with a small core tensor."""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrec.errors import positive
from mmrec.nn.fusion.base import TwoModalFusion


class LowRankFusion(TwoModalFusion):
    """y = Σ_r w_r · (U_r [x_image; 1]) ⊙ (V_r [x_text; 1]) + b, U_r of (D, Di+1), V_r of (D, Dt+1).

    All products of one image and one text dimension, through a tensor of rank R; the ones keep the
    single modalities in.
    Parameters: R · D · (Di + Dt + 2) + R + D, and Di + Dt for the absent vectors.
    Source: LMF, arXiv:1806.00064.
    """

    def __init__(self, *, image_dim: int, text_dim: int, out_dim: int = 128, rank: int = 4) -> None:
        super().__init__(image_dim=image_dim, text_dim=text_dim, out_dim=out_dim)
        positive(rank=rank)
        self.rank = rank
        self.image = nn.Linear(image_dim, rank * out_dim)
        self.text = nn.Linear(text_dim, rank * out_dim)
        # A factor's constant starts at ±1: products alone would start near zero and learn slowly.
        for factor in (self.image, self.text):
            nn.init.normal_(factor.weight, std=1 / math.sqrt(factor.in_features))
            with torch.no_grad():
                factor.bias.copy_(torch.randn_like(factor.bias).sign())
        self.weight = nn.Parameter(torch.full((rank,), 1 / math.sqrt(rank)))
        self.bias = nn.Parameter(torch.zeros(out_dim))

    def fuse(self, image: Tensor, text: Tensor) -> Tensor:
        product = self.image(image) * self.text(text)
        product = product.unflatten(-1, (self.rank, self.out_dim))  # (..., R, D)
        return torch.einsum("...rd,r->...d", product, self.weight.to(product.dtype)) + self.bias


class BilinearFusion(TwoModalFusion):
    """y_d = p' T_d q, p = [W_image x_image + b; 1], q = [W_text x_text + c; 1], T_d of (K+1, K+1).

    A bilinear form of squeezed modalities (Tucker); the ones keep the single modalities in.
    Parameters: K · (Di + Dt + 2) + D · (K + 1)², and Di + Dt for the absent vectors.
    Source: the tensor fusion of MTFN, arXiv:1908.04011.
    """

    def __init__(
        self, *, image_dim: int, text_dim: int, out_dim: int = 128, core: int = 16
    ) -> None:
        super().__init__(image_dim=image_dim, text_dim=text_dim, out_dim=out_dim)
        positive(core=core)
        self.image, self.text = nn.Linear(image_dim, core), nn.Linear(text_dim, core)
        self.core = nn.Linear((core + 1) ** 2, out_dim, bias=False)

    def fuse(self, image: Tensor, text: Tensor) -> Tensor:
        p = F.pad(self.image(image), (0, 1), value=1.0)
        q = F.pad(self.text(text), (0, 1), value=1.0)
        products = (p.unsqueeze(-1) * q.unsqueeze(-2)).flatten(-2)  # (..., (K + 1)²)
        return cast(Tensor, self.core(products))

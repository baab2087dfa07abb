"""Sum and mean of normalised projections."""

from typing import cast

import torch
from torch import Tensor, nn

from mmrec.errors import positive
from mmrec.nn.fusion.base import ABSENT_STD, TwoModalFusion, check_modalities, fill


class SumFusion(TwoModalFusion):
    """y = Σ_m z_m, z_m = LayerNorm(W_m x_m + b_m).

    Without the norm this would be `ConcatFusion`; with it both modalities weigh the same however
    long their vectors are.
    Parameters: (Di + Dt + 2) · D + 4 · D, and Di + Dt for the absent vectors.
    Source: additive early fusion, arXiv:1705.09406, section 6.1.
    """

    def __init__(self, *, image_dim: int, text_dim: int, out_dim: int = 128) -> None:
        super().__init__(image_dim=image_dim, text_dim=text_dim, out_dim=out_dim)
        self.image = nn.Sequential(nn.Linear(image_dim, out_dim), nn.LayerNorm(out_dim))
        self.text = nn.Sequential(nn.Linear(text_dim, out_dim), nn.LayerNorm(out_dim))

    def fuse(self, image: Tensor, text: Tensor) -> Tensor:
        return cast(Tensor, self.image(image) + self.text(text))


class MeanFusion(nn.Module):
    """y = Σ_m p_m z_m / Σ_m p_m over present modalities, z_m = LayerNorm(W_m x_m + b_m).

    p_m is 1 where modality m is present; an item without any has a learned y.
    Parameters: (Di + Dt + 2) · D + 4 · D, and D for the item without content.
    Source: as `SumFusion`.
    """

    def __init__(self, *, image_dim: int, text_dim: int, out_dim: int = 128) -> None:
        super().__init__()
        positive(image_dim=image_dim, text_dim=text_dim, out_dim=out_dim)
        self.out_dim = out_dim
        self.image = nn.Sequential(nn.Linear(image_dim, out_dim), nn.LayerNorm(out_dim))
        self.text = nn.Sequential(nn.Linear(text_dim, out_dim), nn.LayerNorm(out_dim))
        self.nothing = nn.Parameter(torch.randn(out_dim) * ABSENT_STD)

    def forward(self, image: Tensor, text: Tensor, has_image: Tensor, has_text: Tensor) -> Tensor:
        check_modalities(image, text, has_image, has_text)
        # Zeroed before the projection: what an absent vector holds may be NaN.
        image = self.image(image.masked_fill(~has_image.unsqueeze(-1), 0))
        text = self.text(text.masked_fill(~has_text.unsqueeze(-1), 0))
        total = image.masked_fill(~has_image.unsqueeze(-1), 0)
        total = total + text.masked_fill(~has_text.unsqueeze(-1), 0)
        count = has_image.to(total.dtype) + has_text.to(total.dtype)
        mean = total / count.clamp(min=1).unsqueeze(-1)
        return fill(mean, has_image | has_text, self.nothing)

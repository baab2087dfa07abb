"""Gates: a gated multimodal unit, and squeeze-and-excitation."""

from typing import cast

import torch
from torch import Tensor, nn

from mmrec.errors import positive
from mmrec.nn.fusion.base import TwoModalFusion


class GatedFusion(TwoModalFusion):
    """y = g ⊙ h_image + (1 - g) ⊙ h_text, g = σ(G [x_image; x_text] + c).

    h_m = tanh(W_m x_m + b_m). Every dimension chooses its modality by itself.
    Parameters: 2 · (Di + Dt) · D + 3 · D, and Di + Dt for the absent vectors.
    Source: the gated multimodal unit, arXiv:1702.01992.
    """

    def __init__(self, *, image_dim: int, text_dim: int, out_dim: int = 128) -> None:
        super().__init__(image_dim=image_dim, text_dim=text_dim, out_dim=out_dim)
        self.image, self.text = nn.Linear(image_dim, out_dim), nn.Linear(text_dim, out_dim)
        self.gate = nn.Linear(image_dim + text_dim, out_dim)

    def fuse(self, image: Tensor, text: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(torch.cat([image, text], dim=-1)))
        return gate * torch.tanh(self.image(image)) + (1 - gate) * torch.tanh(self.text(text))


class SENetFusion(TwoModalFusion):
    """y = W (x ⊙ 2σ(B relu(A x + a) + b)) + c over x = [x_image; x_text].

    Every input dimension is weighed by what the whole item shows; A squeezes the X = Di + Dt
    dimensions to S = max(1, X // reduction). The factor 2 starts the weights near 1.
    Parameters: 2 · X · S + S + X + (X + 1) · D, and X for the absent vectors.
    Source: squeeze-and-excitation, arXiv:1709.01507, on features as in arXiv:1905.09433.
    """

    def __init__(
        self, *, image_dim: int, text_dim: int, out_dim: int = 128, reduction: int = 16
    ) -> None:
        super().__init__(image_dim=image_dim, text_dim=text_dim, out_dim=out_dim)
        positive(reduction=reduction)
        width = image_dim + text_dim
        squeezed = max(1, width // reduction)
        self.squeeze, self.excite = nn.Linear(width, squeezed), nn.Linear(squeezed, width)
        self.linear = nn.Linear(width, out_dim)

    def fuse(self, image: Tensor, text: Tensor) -> Tensor:
        x = torch.cat([image, text], dim=-1)
        weight = 2 * torch.sigmoid(self.excite(self.squeeze(x).relu()))
        return cast(Tensor, self.linear(x * weight))

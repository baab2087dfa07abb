"""A mixture of experts over both modalities."""

import torch
from torch import Tensor, nn

from mmrec.errors import positive
from mmrec.nn.fusion.base import TwoModalFusion


class ExpertsFusion(TwoModalFusion):
    """y = Σ_e g_e · (W_e x + b_e), g = softmax(G x + c), x = [x_image; x_text].

    Each kind of item finds its own way to combine its modalities.
    Parameters: E · (Di + Dt + 1) · (D + 1), and Di + Dt for the absent vectors.
    Source: mixture of experts with a softmax gate, as in arXiv:1701.06538, all experts in use.
    """

    def __init__(
        self, *, image_dim: int, text_dim: int, out_dim: int = 128, experts: int = 4
    ) -> None:
        super().__init__(image_dim=image_dim, text_dim=text_dim, out_dim=out_dim)
        positive(experts=experts)
        self.experts = nn.Linear(image_dim + text_dim, experts * out_dim)
        self.gate = nn.Linear(image_dim + text_dim, experts)

    def fuse(self, image: Tensor, text: Tensor) -> Tensor:
        x = torch.cat([image, text], dim=-1)
        gate = self.gate(x).softmax(-1)  # (..., E)
        answers = self.experts(x).unflatten(-1, (gate.shape[-1], self.out_dim))  # (..., E, D)
        return torch.einsum("...e,...ed->...d", gate, answers)

"""A mixture of experts over all modalities."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmrec.errors import positive
from mmrec.nn.fusion.base import ModalFusion, joined


class ExpertsFusion(ModalFusion):
    """y = Σ_e g_e · (W_e x + b_e), g = softmax(G x + c), x = [x_1; …; x_M].

    Each kind of item finds its own way to combine its modalities.
    Parameters: E · (X + 1) · (D + 1), and X for the absent vectors.
    Source: mixture of experts with a softmax gate, as in arXiv:1701.06538, all experts in use.
    """

    def __init__(self, *, dims: Mapping[str, int], out_dim: int = 128, experts: int = 4) -> None:
        super().__init__(dims=dims, out_dim=out_dim)
        positive(experts=experts)
        self.experts = nn.Linear(self.width, experts * out_dim)
        self.gate = nn.Linear(self.width, experts)

    def fuse(self, x: dict[str, Tensor]) -> Tensor:
        whole = joined(x)
        gate = self.gate(whole).softmax(-1)  # (..., E)
        answers = self.experts(whole).unflatten(-1, (gate.shape[-1], self.out_dim))  # (..., E, D)
        return torch.einsum("...e,...ed->...d", gate, answers)

"""Gates: a gated multimodal unit, and squeeze-and-excitation."""

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrec.errors import positive
from mmrec.nn.fusion.base import ModalFusion, joined


class GatedFusion(ModalFusion):
    """y = Σ_m g_m ⊙ h_m, h_m = tanh(W_m x_m + b_m), g = softmax_m(G_m [x_1; …; x_M] + c_m).

    The softmax is by dimension: every one chooses its modality by itself. The last modality has
    neither G nor c (0 instead), so that the gate of two is σ(G x + c) beside 1 - σ(G x + c).
    Parameters: (X + M) · D + (M - 1) · (X + 1) · D, and X for the absent vectors.
    Source: the gated multimodal unit, arXiv:1702.01992.
    """

    def __init__(self, *, dims: Mapping[str, int], out_dim: int = 128) -> None:
        super().__init__(dims=dims, out_dim=out_dim)
        self.project = nn.ModuleDict(
            {name: nn.Linear(dim, out_dim) for name, dim in self.dims.items()}
        )
        gates = (len(dims) - 1) * out_dim
        self.gate = nn.Linear(self.width, gates) if gates else None

    def fuse(self, x: dict[str, Tensor]) -> Tensor:
        shown = torch.stack([torch.tanh(self.project[m](x[m])) for m in self.dims], dim=-2)
        if self.gate is None:
            return shown.squeeze(-2)
        logit = F.pad(self.gate(joined(x)), (0, self.out_dim)).view(shown.shape)  # (..., M, D)
        return (logit.softmax(-2) * shown).sum(-2)


class SENetFusion(ModalFusion):
    """y = W (x ⊙ 2σ(B relu(A x + a) + b)) + c over x = [x_1; …; x_M].

    Every input dimension is weighed by what the whole item shows; A squeezes the X dimensions to
    S = max(1, X // reduction). The factor 2 starts the weights near 1.
    Parameters: 2 · X · S + S + X + (X + 1) · D, and X for the absent vectors.
    Source: squeeze-and-excitation, arXiv:1709.01507, on features as in arXiv:1905.09433.
    """

    def __init__(self, *, dims: Mapping[str, int], out_dim: int = 128, reduction: int = 16) -> None:
        super().__init__(dims=dims, out_dim=out_dim)
        positive(reduction=reduction)
        squeezed = max(1, self.width // reduction)
        self.squeeze, self.excite = nn.Linear(self.width, squeezed), nn.Linear(squeezed, self.width)
        self.linear = nn.Linear(self.width, out_dim)

    def fuse(self, x: dict[str, Tensor]) -> Tensor:
        whole = joined(x)
        weight = 2 * torch.sigmoid(self.excite(self.squeeze(whole).relu()))
        return cast(Tensor, self.linear(whole * weight))

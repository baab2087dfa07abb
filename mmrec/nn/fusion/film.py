"""Feature-wise modulation: the target's content read in the light of its context."""

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from mmrec.errors import InputError, positive
from mmrec.nn.fusion.concat import ConcatFusion


class FiLMFusion(ConcatFusion):
    """z = W [x_1; …; x_M] + b for every item; the target becomes y = (1 + γ) ⊙ z + β,
    [γ; β] = M context + m.

    An item's vector must not depend on the row it stands in, or no two rows could share it; so
    `forward` gives z, and the ranker calls `condition` for the targets alone, with the embedded
    context columns of their rows (C wide).
    Parameters: (X + 1) · D + 2 · (C + 1) · D, and X for the absent vectors.
    Source: FiLM, arXiv:1709.07871.
    """

    def __init__(
        self, *, dims: Mapping[str, int], out_dim: int = 128, context_dim: int = 128
    ) -> None:
        super().__init__(dims=dims, out_dim=out_dim)
        positive(context_dim=context_dim)
        self.context_dim = context_dim
        self.modulate = nn.Linear(context_dim, 2 * out_dim)
        nn.init.zeros_(self.modulate.bias)  # starts near y = z

    def condition(self, fused: Tensor, context: Tensor) -> Tensor:
        """Fused (..., D) and context (..., C) -> (..., D)."""
        if context.shape[-1] != self.context_dim:
            raise InputError(f"context must be {self.context_dim} wide, got {context.shape[-1]}")
        gamma, beta = self.modulate(context).chunk(2, dim=-1)
        return cast(Tensor, (1 + gamma) * fused + beta)

"""Similarity tiers: how often the history looks like the target, and how much.

B rows, L history, W width; U users, N targets a user.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrec.errors import positive

_SHORTEST = 1e-12


class SimTier(nn.Module):
    """y_k = log(1 + #{l valid : cos(h_l, t) in tier k}), tiers of equal width over [-1, 1].

    Counts know nothing of which item it was, so they hold for items never seen. They have no
    gradient: the vectors are frozen content. arXiv:2407.19467.

    Parameters: none.

    >>> tier = SimTier(tiers=2)
    >>> history = torch.tensor([[[1.0, 0.0], [-1.0, 0.0], [2.0, 1.0]]])
    >>> (tier(history, history[:, 0], torch.ones(1, 3, dtype=torch.bool)).exp() - 1).round()
    tensor([[1., 2.]])
    """

    def __init__(self, *, tiers: int = 10) -> None:
        super().__init__()
        positive(tiers=tiers)
        self.out_dim = tiers

    @torch.no_grad()
    def forward(self, history: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """history (B, L, W), target (B, W), valid (B, L) -> (B, tiers)."""
        # Nothing here copies the history, (B, L, W): on a CPU touching fresh memory costs most.
        length = torch.linalg.vector_norm(history, dim=-1).clamp(min=_SHORTEST)
        product = torch.einsum("blw,bw->bl", history, F.normalize(target, dim=-1))
        return self._counted((product / length).masked_fill(~valid, 0), valid)

    @torch.no_grad()
    def share(self, history: Tensor, valid: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """The history's lengths once: history (U, L, W), valid (U, L).

        Returns:
            targets (U, N, W) and which are there (U, N) -> what `forward` gives, (U, N, tiers).
        """
        length = torch.linalg.vector_norm(history, dim=-1).clamp(min=_SHORTEST).unsqueeze(1)

        def apart(targets: Tensor, there: Tensor) -> Tensor:
            product = F.normalize(targets, dim=-1) @ history.transpose(1, 2)  # (U, N, L)
            both = valid.unsqueeze(1) & there.unsqueeze(-1)
            return self._counted((product / length).masked_fill(~both, 0), both)

        return apart

    def _counted(self, cosine: Tensor, there: Tensor) -> Tensor:
        """(…, L) and bool (…, L) -> (…, tiers)."""
        tier = ((cosine + 1) / 2 * self.out_dim).long().clamp(0, self.out_dim - 1)
        count = torch.zeros(
            (*cosine.shape[:-1], self.out_dim), dtype=cosine.dtype, device=cosine.device
        )
        return count.scatter_add(-1, tier, there.to(cosine.dtype)).log1p()

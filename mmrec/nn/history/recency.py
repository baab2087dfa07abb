"""How much of the history was liked of late, over several horizons.

B rows, L history, K horizons, S signs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmrec.errors import InputError, positive
from mmrec.nn.history.signs import counted


class Recency(nn.Module):
    """Shares of the signs, the newest items first in weight.

    w_lk = exp(-a_l / τ_k) for the age a_l of history item l, how many columns stand to its right, 0
    where l is padding; then of each k and sign s

        4 · ((Σ_l w_l s_l + a/2) / (Σ_l w_l + a) - 1/2)

    The horizons τ > 0 and the priors a > 0 are learned, the τ start evenly between 1.6 and 33 items
    on a log scale. Nothing here knows of the target: it is computed once for many candidates.
    Exponential smoothing, with learned rates.

    Args:
        signs: S.
        heads: K.
    Parameters: 2 · K.

    >>> recency = Recency(signs=1, heads=3)
    >>> recency(torch.ones(5, 7, dtype=torch.bool), torch.ones(5, 7, 1)).shape
    torch.Size([5, 3])
    """

    def __init__(self, *, signs: int, heads: int = 4) -> None:
        super().__init__()
        positive(signs=signs, heads=heads)
        self.signs, self.out_dim = signs, heads * signs
        horizon = torch.linspace(0.5, 3.5, heads) if heads > 1 else torch.tensor([2.0])
        self.log_rate = nn.Parameter(-horizon)  # log(1 / τ)
        self.log_prior = nn.Parameter(torch.zeros(heads))

    def forward(self, valid: Tensor, signs: Tensor) -> Tensor:
        """valid (B, L) bool, left-padded; signs (B, L, S) -> (B, S · K).

        Raises:
            InputError: other shapes.
        """
        rows, length = valid.shape
        if signs.shape != (rows, length, self.signs):
            raise InputError(
                f"signs must be (B, L, {self.signs}) beside valid {tuple(valid.shape)}, got "
                f"{tuple(signs.shape)}"
            )
        rate = self.log_rate.exp()
        younger = torch.arange(1 - length, 1, device=valid.device, dtype=rate.dtype)  # -a_l
        weight = (younger.unsqueeze(-1) * rate).exp()  # (L, K)
        summed = counted(signs).to(rate.dtype).masked_fill(~valid.unsqueeze(-1), 0)
        sums = summed.mT @ weight  # (B, 1 + S, K)
        return (sums[:, 1:] / (sums[:, :1] + self.log_prior.exp())).flatten(1)

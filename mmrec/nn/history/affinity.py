"""What of the target's kind stands in the history, and how much of it was liked.

B rows, L history, M spaces (a modality's, the tags'), K heads a space, S signs; U users, N targets
a user, W_m width of the vectors of space m.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mmrec.errors import InputError, not_negative, positive
from mmrec.nn.history.signs import counted

_LEAST = 1e-3  # mass of a history in which nothing is like the target
_LOG2_E = math.log2(math.e)

Compared = Callable[[Sequence[Tensor], Tensor], Tensor]
"""See `Affinity.share`."""


class Affinity(nn.Module):
    """Signed target attention over frozen similarities.

    w_lmk = exp((c_lm - 1) / τ_mk) for the cosine c of history item l and the target in space m, 0
    where l is padding or one of the two has no vector there; then of each m and k

        [(log(Σ_l w_l + 0.001) + 2) / 2;  4 · ((Σ_l w_l s_l + a/2) / (Σ_l w_l + a) - 1/2) a sign s]

    so how much of its kind there was, and which share of that has the sign (was liked, say). The
    temperatures τ > 0 and the priors a > 0 are learned, the τ start evenly between e⁻³ and e^-½ on
    a log scale: from "nearly the same" to "all of it". Nothing here knows which item it was, so it
    holds for items never seen. The neural form of similarity-weighted shares; target attention as
    in DIN (arXiv:1706.06978), frozen similarities as in SimTier (arXiv:2407.19467).

    Args:
        spaces: M.
        signs: S; 0 = a history without signs.
        heads: K.
    Parameters: 2 · M · K, or M · K without signs.

    >>> affinity = Affinity(spaces=2, signs=1, heads=3)
    >>> cosine, there = torch.rand(5, 2, 7), torch.ones(5, 2, 7, dtype=torch.bool)
    >>> affinity(cosine, there, torch.ones(5, 7, 1)).shape
    torch.Size([5, 12])
    """

    def __init__(self, *, spaces: int, signs: int, heads: int = 4) -> None:
        super().__init__()
        positive(spaces=spaces, heads=heads)
        not_negative(signs=signs)
        self.spaces, self.signs = spaces, signs
        self.out_dim = spaces * heads * (1 + signs)
        temperature = torch.linspace(-3.0, -0.5, heads) if heads > 1 else torch.tensor([-2.0])
        self.log_temperature = nn.Parameter(temperature.repeat(spaces, 1))
        prior = torch.full((spaces, heads), 0.1).log()
        self.log_prior = nn.Parameter(prior) if signs else None

    def forward(self, cosine: Tensor, there: Tensor, signs: Tensor) -> Tensor:
        """cosine (B, M, L), there (B, M, L) bool, signs (B, L, S) -> (B, M · K · (1 + S))."""
        rows, spaces, length = cosine.shape
        if spaces != self.spaces or signs.shape != (rows, length, self.signs):
            raise InputError(
                f"cosine and signs must be (B, {self.spaces}, L) and (B, L, {self.signs}), "
                f"got {tuple(cosine.shape)} and {tuple(signs.shape)}"
            )
        near = (cosine - 1).masked_fill(~there, 0).unsqueeze(2)  # (B, M, 1, L)
        sharpness = (-self.log_temperature).exp().unsqueeze(-1)  # (M, K, 1)
        weight = (near * sharpness).exp()  # (B, M, K, L)
        # What is not there counts for nothing: no mask over all heads is needed.
        summed = counted(signs).to(weight.dtype).unsqueeze(1) * there.unsqueeze(-1)
        sums = weight @ summed  # (B, M, K, 1 + S)
        prior_shape = (self.spaces, -1, 1)
        out = self._leave(sums[..., :1], sums[..., 1:], prior_shape=prior_shape, dim=-1)
        return out.flatten(1)

    def share(self, vectors: Sequence[Tensor], there: Tensor, signs: Tensor) -> Compared:
        """The history's part, computed once for many targets.

        Args:
            vectors: of each space the unit vectors of the history items, (U, L, W_m).
            there: (U, M, L), 1 where it is a real item that has a vector in that space, else 0.
            signs: (U, L, S).

        Returns:
            targets' unit vectors, (U, N, W_m) each, and which are there, (U, M, N) of 1 and 0
            -> what `forward` gives, (U, N, M · K · (1 + S)).
        """
        # What is not there counts for nothing: no mask over all pairs is needed.
        summed = counted(signs).to(there.dtype).mT.unsqueeze(1) * there.unsqueeze(2)
        # 2^x is several times as fast as e^x on a CPU.
        sharpness = (-self.log_temperature).exp().mul(_LOG2_E).unsqueeze(-1)  # (M, K, 1)
        # summed: (U, M, 1 + S, L)
        spaces = list(zip(vectors, summed.unbind(1), sharpness.unbind(0), strict=True))
        minus, heads = there.new_full((1, 1, 1), -1), sharpness.shape[1]

        def compared(targets: Sequence[Tensor], target_there: Tensor) -> Tensor:
            found = []
            # Space by space, so that the weights fit a core's cache. Targets last: rows of memory
            # are then long, and the product with `counts` is wide.
            for (history, counts, sharp), target in zip(spaces, targets, strict=True):
                near = torch.baddbmm(minus, history, target.mT)  # (U, L, N), c - 1
                weight = (near.unsqueeze(2) * sharp).exp2_()  # (U, L, K, N)
                found.append(counts @ weight.flatten(2))  # (U, 1 + S, K · N)
            sums = torch.stack(found, dim=1)
            sums = sums.view(*sums.shape[:-1], heads, target_there.shape[-1])  # (U, M, 1 + S, K, N)
            sums = (sums * target_there[:, :, None, None]).transpose(2, 3)
            mass, signed = sums[..., :1, :], sums[..., 1:, :]
            out = self._leave(mass, signed, prior_shape=(self.spaces, -1, 1, 1), dim=-2)
            return out.flatten(1, 3).mT

        return compared

    def _leave(
        self, mass: Tensor, signed: Tensor, *, prior_shape: tuple[int, ...], dim: int
    ) -> Tensor:
        """Σ w and Σ w (4 s - 2) -> what goes out, side by side along `dim`."""
        parts = [(mass + _LEAST).log() * 0.5 + 1]
        if self.log_prior is not None:
            # 4 · ((Σ w s + a/2) / (Σ w + a) - 1/2), on one fraction
            parts.append(signed / (mass + self.log_prior.exp().view(prior_shape)))
        return torch.cat(parts, dim=dim)

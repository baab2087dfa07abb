"""One history and many targets: what of the history is computed once.

Next: the `share` of the encoders in `sequence.py`, of `affinity.py` and `simtier.py`.

U users, N targets a user, L history, D item width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

Apart = Callable[[Tensor], Tensor]
"""Targets (U, N, D) -> (U, N, out_dim), or (U, 1, out_dim) where it is the same for all of them."""


@runtime_checkable
class Shareable(Protocol):
    """A sequence encoder that computes the history's part once for all targets."""

    def share(self, history: Tensor, valid: Tensor) -> Apart:
        """history (U, L, D), valid (U, L) bool; what comes back gives what `forward` would."""


def share_history(encoder: Any, history: Tensor, valid: Tensor) -> Apart:
    """`encoder.share`, or, of an encoder that can share nothing, each history N times over."""
    share: Callable[[Tensor, Tensor], Apart] | None = getattr(encoder, "share", None)
    if share is not None:  # `isinstance` of a protocol takes longer than a mean
        return share(history, valid)

    def repeated(targets: Tensor) -> Tensor:
        users, count = targets.shape[:2]
        rows: list[Tensor] = [
            x.unsqueeze(1).expand(users, count, *x.shape[1:]).reshape(users * count, *x.shape[1:])
            for x in (history, valid)
        ]
        out: Tensor = encoder(rows[0], targets.reshape(users * count, targets.shape[2]), rows[1])
        return out.view(users, count, out.shape[-1])

    return repeated


def shares(encoder: Any) -> bool:
    """Whether an encoder, and all that are inside it, computes a history's part once."""
    inside = getattr(encoder, "encoders", ())
    return isinstance(encoder, Shareable) and all(shares(one) for one in inside)

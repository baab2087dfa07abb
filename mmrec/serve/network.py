"""A trained ranker turned around: one user's side once, then as many candidates as there are.

The equations are those of `mmrec.models.ranker`, in evaluation. `rows.py` holds what is known of
items; next is `scorer.py`, which feeds it, and `export.py`, which writes it down.

U users, N candidates a user, L history, D item width, C places of categories, F numbers, T tasks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from mmrec.models.ranker import Ranker
from mmrec.nn.fusion.base import ConditionedFusion
from mmrec.nn.history.affinity import Compared
from mmrec.nn.history.shared import Apart, share_history
from mmrec.nn.item_encoder import ItemEncoder
from mmrec.serve.crossing import Crossing
from mmrec.serve.rows import ItemRows, Rows

P = TypeVar("P", bound="nn.Module | None")


@dataclass(frozen=True)
class Users:
    """What is known of the users, whatever the candidate.

    Attributes:
        history: (U, L) int64, left-padded with 0, newest last.
        user: (U,) int64.
        history_categorical: (U, L, C') int64.
        history_numeric: (U, L, F') float32.
    """

    history: Tensor
    user: Tensor
    history_categorical: Tensor
    history_numeric: Tensor


@dataclass(frozen=True)
class Candidates:
    """What is asked about: ids (U, N), and columns of a row, (U, N, ·), or (U, 1, ·) alike for all.

    Attributes:
        ids: int64.
        categorical: int64.
        numeric: float32, NaN = missing.
    """

    ids: Tensor
    categorical: Tensor
    numeric: Tensor


@dataclass(frozen=True)
class Shared:
    """The users' side, computed.

    Attributes:
        sequence: targets (U, N, D') -> (U, N or 1, out_dim).
        recency: (U, 1, ·); None = none.
        compared: of `Affinity.share`.
        tiers: of each modality what `SimTier.share` gives.
        vectors: (U, 1, ·) of the user; None = there are none.
        bias: (U, 1, T) of the user.
    """

    sequence: Apart
    recency: Tensor | None
    compared: Compared | None
    tiers: tuple[Callable[[Tensor, Tensor], Tensor], ...]
    vectors: Tensor | None
    bias: Tensor | None


class SharedRanker(nn.Module):
    """Logits (U, N, T) of U users' candidates, equal to those of the ranker.

    A copy: the ranker may be trained on, or let go.

    Args:
        ranker: on the device where it will serve.
        dtype: in which the items' rows are kept; None = that of the ranker.
    """

    def __init__(self, ranker: Ranker, *, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        items = ranker.items
        self.tasks, self.reads_history = ranker.tasks, ranker.reads_history
        self.encoded = slice(None if ranker.encoded is None else -ranker.encoded, None)
        width = items.out_dim if ranker.history_content else items.out_dim - items.content_dim
        self.history_width, self.content_dim = width, items.content_dim
        self.sequence, self.user_index = _copy(ranker.sequence), _copy(ranker.user_index)
        self.categorical, self.numeric = _copy(ranker.categorical), _copy(ranker.numeric)
        self.history_features, self.users = _copy(ranker.history_features), _copy(ranker.users)
        self.tiers, self.affinity = _copy(ranker.tiers), _copy(ranker.affinity)
        self.signs, self.recency = _copy(ranker.signs), _copy(ranker.recency)
        self.user_bias = None if ranker.wide is None else _copy(ranker.wide.user)
        self.fusion = _copy(items.fusion) if ranker.conditioned else None
        self.features = _copy(items.modalities) if ranker.tiers is not None else None
        before = (ranker.users, ranker.recency, ranker.sequence, ranker.categorical, ranker.numeric)
        begin = sum(cast(Any, part).out_dim for part in before if part is not None)
        self.crossing = Crossing(ranker, begin=begin)
        entry = None if ranker.conditioned else self.crossing.entry_of(items.out_dim)
        self.items = ItemRows(ranker, entry=entry, dtype=dtype)
        self.eval().requires_grad_(False)

    @property
    def row_widths(self) -> tuple[int, int]:
        """Places of categories and numbers that are read of a row."""
        return _places(self.categorical), _columns(self.numeric)

    @property
    def history_widths(self) -> tuple[int, int]:
        """Categories and numbers that are read of each history item, the schema's or none."""
        features = self.history_features if self.reads_history else None
        signed = 0
        if self.signs is not None and self.signs.out_dim:
            signed = 1 + int(self.signs.column.max())
        if features is None:
            return signed, 0
        return max(signed, _places(features.categorical)), _columns(features.numeric)

    def forward(self, users: Users, candidates: Candidates) -> Tensor:
        """Logits (U, N, T)."""
        return self.apart(self.share(users), candidates)

    def share(self, users: Users) -> Shared:
        """All that no candidate changes."""
        valid = users.history != 0
        # Without a sequence encoder's interest, history items need no vectors.
        known = self.items(users.history)
        near = self.encoded
        read = known.vectors[:, near, : self.history_width]
        if self.history_features is not None and self.reads_history:
            about = users.history_categorical[:, near], users.history_numeric[:, near]
            read = read + self.history_features(*about).to(read.dtype)
        if not self.reads_history:
            read = read[:, :0]
        place = None if self.user_index is None else self.user_index(users.user).unsqueeze(1)
        signs = None if self.signs is None else self.signs(users.history_categorical)
        return Shared(
            sequence=share_history(self.sequence, read, valid[:, near][:, : read.shape[1]]),
            recency=None if self.recency is None else self.recency(valid, signs).unsqueeze(1),
            compared=self._compared(known, valid, signs),
            tiers=self._tiers(users.history, valid),
            vectors=None if self.users is None else self.users(place),
            bias=None if self.user_bias is None else self.user_bias(place),
        )

    def apart(self, shared: Shared, candidates: Candidates) -> Tensor:
        """Logits (U, N, T) of the candidates alone."""
        rows = self.items(candidates.ids)
        context = None if self.categorical is None else self.categorical(candidates.categorical)
        target = rows.vectors
        if self.fusion is not None and context is not None:
            target = self._conditioned(target, context)
        interest = shared.sequence(target[..., : self.history_width])
        parts = [shared.vectors, shared.recency, interest, context]
        if self.numeric is not None:
            parts.append(self.numeric(candidates.numeric))
        place = sum(part is not None for part in parts)
        parts.append(target)
        if self.features is not None:
            found = [features(candidates.ids) for features in self.features.values()]
            parts += [of(*one) for of, one in zip(shared.tiers, found, strict=True)]
        if shared.compared is not None:
            parts.append(shared.compared(rows.units, rows.there.transpose(1, 2)))
        given = [part.to(target.dtype) for part in parts if part is not None]
        logits: Tensor = self.crossing(given, place, self.items.entered(candidates.ids))
        if rows.bias.shape[-1]:
            logits = logits + rows.bias
        return logits if shared.bias is None else logits + shared.bias

    def _compared(self, known: Rows, valid: Tensor, signs: Tensor | None) -> Compared | None:
        if self.affinity is None or signs is None:
            return None
        there = known.there.transpose(1, 2) * valid.unsqueeze(1)  # (U, M, L)
        return self.affinity.share(known.units, there, signs)

    def _tiers(
        self, history: Tensor, valid: Tensor
    ) -> tuple[Callable[[Tensor, Tensor], Tensor], ...]:
        if self.features is None or self.tiers is None:
            return ()
        found = [features(history) for features in self.features.values()]
        share = self.tiers.share
        return tuple(share(vectors, valid & there) for vectors, there in found)

    def _conditioned(self, target: Tensor, context: Tensor) -> Tensor:
        start = target.shape[-1] - self.content_dim
        context = context.expand(-1, target.shape[1], -1)
        content = cast(ConditionedFusion, self.fusion).condition(target[..., start:], context)
        return torch.cat([target[..., :start], content], dim=-1)

    def append(self, items: ItemEncoder) -> None:
        """Take in the items of another encoder, but for its padding; see `newcomers.py`."""
        self.items.append(items)
        if self.features is not None:
            for own, new in zip(self.features.values(), items.modalities.values(), strict=True):
                for name in cast(Any, own).item_buffers:
                    more = getattr(new, name)[1:]
                    setattr(own, name, torch.cat([getattr(own, name), more.to(getattr(own, name))]))


def _places(encoder: Any) -> int:
    """Places of a row's categories."""
    return 0 if encoder is None else sum(encoder.places)


def _columns(encoder: Any) -> int:
    """Columns that an encoder of numbers reads."""
    return 0 if encoder is None else len(encoder.standardized.mean)


def _copy(part: P) -> P:
    return copy.deepcopy(part)

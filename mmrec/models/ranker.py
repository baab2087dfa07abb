"""The ranker: a batch of ids to logits. It wires parts that come in by constructor.

B rows, L history, D item width, T tasks.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from mmrec.batch import Batch
from mmrec.errors import InputError, positive, require
from mmrec.models.parts import ContentAlignment, HistoryFeatures, Wide
from mmrec.nn.categorical import CategoricalEncoder
from mmrec.nn.fusion.base import ConditionedFusion
from mmrec.nn.history.affinity import Affinity
from mmrec.nn.history.recency import Recency
from mmrec.nn.history.sequence import SequenceEncoder
from mmrec.nn.history.signs import Signs
from mmrec.nn.history.simtier import SimTier
from mmrec.nn.history.tokens import compact_here, distinct, exported, first_filled, recorded
from mmrec.nn.interaction import Interaction
from mmrec.nn.item_encoder import ItemEncoder
from mmrec.nn.mlp import MLP
from mmrec.nn.numeric import NumericEncoder
from mmrec.nn.users import UserEncoder, UserIndex


class Ranker(nn.Module):
    """logit_k = head_k(interaction([user; recency; sequence(h, t); categorical; numeric; t; tiers;
    affinity])) + wide.

    One head for each task k on what all of them share.

    Args:
        items: ids -> vectors, for history and target alike.
        sequence: history and target -> one vector.
        interaction: width of what the parts give together -> the module that takes it, for
            example `lambda width: CrossNetV2(dim=width, depth=3)`.
        head: widths of a head's hidden layers; one Linear to the logit follows.
        tasks: names of the T labels.
        categorical: of the row's categories; None = none are read.
        numeric: of the row's numbers; None = none are read.
        history_features: what is added to the vector of each history item; None = nothing.
        user_index: which users are known, for `users` and `wide`; None = nobody is.
        users: place of a user -> vector; None = users are told apart by their histories alone.
        wide: biases of item and user, added to the logit; None = none.
        tiers: similarity tiers of each frozen modality; None = none.
        signs: read of the history's categories, for `affinity` and `recency`.
        affinity: signed target attention over frozen similarities; None = none.
        recency: shares of the signs of late; None = none.
        alignment: pulls id and content vectors of the targets together; see `auxiliary`.
        history_content: whether the vectors of history items, and of the target that is compared
            with them, hold their content.
        newest: how many of the newest items of a history are read; None = all of them.
        encoded: how many of these, the newest, the sequence encoder reads; None = all of them.
        deduplicate: encode each item of a batch once, and leave out columns that are padding in
            every row. None = where that pays (see `compact_here`). Else the whole item table is
            encoded where that is fewer rows.
        catalogue: which items the rows of the tables are; it only travels in the state.

    Attributes:
        auxiliary: in training with `alignment`, the weighted loss (a scalar) that the last forward
            adds to that of the clicks; else None.
        KNOWN_USERS: name of the known users in the model's state.
        ENCODERS: role -> name of the module that encodes its categories, where it is read.
    """

    KNOWN_USERS = "user_index.known"
    ENCODERS: ClassVar[dict[str, str]] = {
        "categorical": "categorical",
        "history_categorical": "history_features.categorical",
        "item_categorical": "items.categorical",
    }

    auxiliary: Tensor | None

    def __init__(
        self,
        *,
        items: ItemEncoder,
        sequence: SequenceEncoder,
        interaction: Callable[[int], Interaction],
        head: Sequence[int] = (64, 32),
        tasks: Sequence[str] = ("label",),
        categorical: CategoricalEncoder | None = None,
        numeric: NumericEncoder | None = None,
        history_features: HistoryFeatures | None = None,
        user_index: UserIndex | None = None,
        users: UserEncoder | None = None,
        wide: Wide | None = None,
        tiers: SimTier | None = None,
        signs: Signs | None = None,
        affinity: Affinity | None = None,
        recency: Recency | None = None,
        alignment: ContentAlignment | None = None,
        history_content: bool = True,
        newest: int | None = None,
        encoded: int | None = None,
        deduplicate: bool | None = None,
        catalogue: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.catalogue = catalogue
        counts = {"newest": newest, "encoded": encoded, "tasks": len(tasks)}
        positive(**{name: count for name, count in counts.items() if count is not None})
        require(
            users is None or user_index is not None, "vectors of users need a user_index, got none"
        )
        _require_module(sequence, "a sequence encoder")
        _require_module(numeric, "an encoder of numbers")
        self.newest, self.encoded = newest, encoded
        self.deduplicate, self.tasks = deduplicate, tuple(tasks)
        self.items, self.user_index, self.users = items, user_index, users
        self.wide, self.tiers, self.alignment = wide, tiers, alignment
        for part in (affinity, recency):
            require(
                part is None or (signs is not None and signs.out_dim == part.signs),
                f"{type(part).__name__} must be given beside the Signs that it takes shares of, "
                f"got signs={'none' if signs is None else signs.out_dim}",
            )
        self.signs, self.affinity, self.recency = signs, affinity, recency
        self.history_content = history_content
        self.auxiliary = None
        self.reads_history = sequence.out_dim > 0
        self.sequence = cast(nn.Module, sequence)
        self.categorical, self.history_features = categorical, history_features
        self.numeric = cast("nn.Module | None", numeric)
        of_each = (tiers,) * len(items.modalities)
        optional = (users, categorical, numeric, affinity, recency, *of_each)
        width = sequence.out_dim + items.out_dim
        width += sum(part.out_dim for part in optional if part is not None)
        crossed = interaction(width)
        _require_module(crossed, "an interaction")
        require(
            crossed.in_dim == width,
            f"interaction must take what the parts give, {width} wide, got {crossed.in_dim}",
        )
        self.interaction = cast(nn.Module, crossed)
        self.heads = nn.ModuleList(
            MLP(in_dim=crossed.out_dim, hidden=head, out_dim=1) for _ in tasks
        )
        fusion, given = items.fusion, 0 if categorical is None else categorical.out_dim
        self.conditioned = isinstance(fusion, ConditionedFusion)
        if isinstance(fusion, ConditionedFusion) and fusion.context_dim != given:
            raise InputError(
                "a conditioned fusion must take the embeddings of the row's categories, "
                f"{given} wide, got context_dim {fusion.context_dim}"
            )

    def __getstate__(self) -> dict[str, Any]:
        # Copies and pickles are of the model, not of the graph of its latest step.
        return {**self.__dict__, "auxiliary": None}

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,), or (B, T) of several tasks; float32 also under autocast."""
        compact = compact_here(self.deduplicate, batch.history)
        begin = first_of_newest(batch.history, self.newest)
        if compact:
            begin += first_filled(batch.history[:, begin:])
        elif not recorded():
            begin = max(begin, batch.padding)
        history = batch.history[:, begin:]
        valid = history != 0
        # Without a sequence encoder's interest, history items need no vectors.
        near = begin + first_of_newest(history, self.encoded)
        read = batch.history[:, near:] if self.reads_history else history[:, :0]
        items, target = self._encode(read, batch.target, compact=compact)
        if self.history_features is not None and self.reads_history:
            about = batch.history_categorical[:, near:], batch.history_numeric[:, near:]
            items = items + self.history_features(*about).to(items.dtype)
        context = None if self.categorical is None else self.categorical(batch.categorical)
        if context is not None and self.conditioned:
            target = self._conditioned(target, context)
        same = target if self.history_content else target[:, : items.shape[-1]]
        place = None if self.user_index is None else cast(Tensor, self.user_index(batch.user))
        # What may be alike for many targets comes first; `mmrec.serve` counts on it.
        parts = [] if self.users is None else [self.users(place)]
        signs = None if self.signs is None else self.signs(batch.history_categorical[:, begin:])
        if self.recency is not None:
            parts.append(self.recency(valid, signs))
        parts.append(self.sequence(items, same, read != 0))
        if context is not None:
            parts.append(context)
        if self.numeric is not None:
            parts.append(self.numeric(batch.numeric))
        parts.append(target)
        if self.tiers is not None:
            parts.extend(self._tiers(self.tiers, history, batch.target, valid))
        if self.affinity is not None:
            cosine, there = self.items.similarities(history, batch.target)
            parts.append(self.affinity(cosine, there & valid.unsqueeze(1), signs))
        crossed = self.interaction(torch.cat([part.to(target.dtype) for part in parts], dim=-1))
        self.auxiliary = None
        if self.alignment is not None and self.training:
            self.auxiliary = self.alignment(self.items, batch.target, target)
        # The last layers in full precision: bfloat16 logits would tie rows that differ.
        with torch.autocast(device_type=crossed.device.type, enabled=False):
            crossed = crossed.to(next(self.heads.parameters()).dtype)
            logits = torch.cat([head(crossed) for head in self.heads], dim=-1)  # (B, T)
            logits = logits if self.wide is None else logits + self.wide(batch.target, place)
            return logits.squeeze(-1) if len(self.heads) == 1 else logits

    def _encode(self, history: Tensor, target: Tensor, *, compact: bool) -> tuple[Tensor, Tensor]:
        """(B, L) and (B,) -> (B, L, D) and (B, D), each item encoded once where that pays."""
        if not self.history_content:
            return self._each(history, compact=compact, content=False), self.items(target)
        ids = torch.cat([history.flatten(), target])
        vectors = self._each(ids, compact=compact, content=True)
        items = vectors[: history.numel()].view(*history.shape, vectors.shape[-1])
        return items, vectors[history.numel() :]

    def _each(self, ids: Tensor, *, compact: bool, content: bool) -> Tensor:
        """(…) -> (…, D), each item once where that pays."""
        if compact:
            self.items.check(ids)
            some, place = distinct(ids, self.items.num_items)
        elif not exported() and ids.numel() >= self.items.num_items:
            some, place = torch.arange(self.items.num_items, device=ids.device), ids
        else:
            return cast(Tensor, self.items(ids, content=content))
        vectors = self.items(some, content=content)
        chosen: Tensor = vectors.index_select(0, place.flatten())
        return chosen.view(*ids.shape, vectors.shape[-1])

    def _conditioned(self, target: Tensor, context: Tensor) -> Tensor:
        fusion = cast(ConditionedFusion, self.items.fusion)
        start = self.items.out_dim - self.items.content_dim
        content = fusion.condition(target[:, start:], context)
        return torch.cat([target[:, :start], content], dim=-1)

    def _tiers(
        self, tiers: SimTier, history: Tensor, target: Tensor, valid: Tensor
    ) -> list[Tensor]:
        """Tiers of each modality, over the pairs that have it both."""
        vectors, present = self.items.features(history)
        of_target, there = self.items.features(target)
        return [
            tiers(vectors[m], of_target[m], valid & present[m] & there[m].unsqueeze(1))
            for m in vectors
        ]


def _require_module(part: object, what: str) -> None:
    """Protocols say what a part does; what is trained and moved is a module, too."""
    require(
        part is None or isinstance(part, nn.Module),
        f"{what} must be an nn.Module (class {type(part).__name__}(nn.Module)) with the members of "
        "its protocol, which is not to be inherited from",
    )


def first_of_newest(history: Tensor, newest: int | None) -> int:
    """The column of (B, L) where its newest columns begin; None = all are."""
    return 0 if newest is None else max(0, history.shape[1] - newest)

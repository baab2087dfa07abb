"""The ranker: a batch of ids to logits. It wires parts that come in by constructor.

B rows, L history, D item width, C context columns.
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from mmrec.batch import Batch
from mmrec.errors import InputError, not_negative, positive, require
from mmrec.models.parts import ContentAlignment, Wide
from mmrec.nn.fusion.base import ConditionedFusion
from mmrec.nn.interaction import Interaction
from mmrec.nn.item_encoder import ItemEncoder
from mmrec.nn.mlp import MLP
from mmrec.nn.sequence import SequenceEncoder
from mmrec.nn.simtier import SimTier
from mmrec.nn.tokens import compact_here
from mmrec.nn.users import EMBEDDING_STD, UserEncoder, UserIndex


class Ranker(nn.Module):
    """logit = head(interaction([sequence(h, t); t; user; context; tiers])) + wide.

    Args:
        items: ids -> vectors, for history and target alike.
        sequence: history and target -> one vector.
        interaction: width of what the parts give together -> the module that takes it, for
            example `lambda width: CrossNetV2(dim=width, depth=3)`.
        head: widths of the head's hidden layers; one Linear to the logit follows.
        context_sizes: vocabulary of each context column.
        context_dim: width of each column's embedding; 0 leaves context out.
        user_index: which users are known, for `users` and `wide`; None = nobody is.
        users: place of a user -> vector; None = users are told apart by their histories alone.
        wide: biases of item and user, added to the logit; None = none.
        tiers: similarity tiers of frozen image and text; None = none.
        alignment: pulls id and content vectors of the targets together; see `auxiliary`.
        newest: how many of the newest items of a history are read; None = all of them.
        deduplicate: encode each item of a batch once, and leave out columns that are padding in
            every row. None = on the CPU; on CUDA it waits for the device, so there the whole item
            table is encoded instead where that is fewer rows.

    Attributes:
        auxiliary: in training with `alignment`, the weighted loss (a scalar) that the last forward
            adds to that of the clicks; else None.
        KNOWN_USERS: name of the known users in the model's state.
    """

    KNOWN_USERS = "user_index.known"

    auxiliary: Tensor | None

    def __init__(
        self,
        *,
        items: ItemEncoder,
        sequence: SequenceEncoder,
        interaction: Callable[[int], Interaction],
        head: Sequence[int] = (64, 32),
        context_sizes: Sequence[int] = (11, 11),
        context_dim: int = 64,
        user_index: UserIndex | None = None,
        users: UserEncoder | None = None,
        wide: Wide | None = None,
        tiers: SimTier | None = None,
        alignment: ContentAlignment | None = None,
        newest: int | None = None,
        deduplicate: bool | None = None,
    ) -> None:
        super().__init__()
        not_negative(context_dim=context_dim)
        positive(newest=1 if newest is None else newest)
        require(
            users is None or user_index is not None, "vectors of users need a user_index, got none"
        )
        self.newest, self.deduplicate = newest, deduplicate
        self.items, self.user_index, self.users = items, user_index, users
        self.wide, self.tiers, self.alignment = wide, tiers, alignment
        self.auxiliary = None
        self.reads_history = sequence.out_dim > 0
        self.sequence = cast(nn.Module, sequence)
        sizes = tuple(context_sizes) if context_dim else ()
        self.context = nn.ModuleList(nn.Embedding(size, context_dim) for size in sizes)
        for parameter in self.context.parameters():
            nn.init.normal_(parameter, std=EMBEDDING_STD)
        context_width = len(sizes) * context_dim
        optional = (users, tiers, tiers)  # tiers of images and of texts
        width = sequence.out_dim + items.out_dim + context_width
        width += sum(part.out_dim for part in optional if part is not None)
        crossed = interaction(width)
        require(
            crossed.in_dim == width,
            f"interaction must take what the parts give, {width} wide, got {crossed.in_dim}",
        )
        self.interaction = cast(nn.Module, crossed)
        self.head = MLP(in_dim=crossed.out_dim, hidden=head, out_dim=1)
        self.conditioned = isinstance(items.fusion, ConditionedFusion)
        if (
            isinstance(items.fusion, ConditionedFusion)
            and items.fusion.context_dim != context_width
        ):
            raise InputError(
                "a conditioned fusion must take the context embeddings, "
                f"{context_width} wide, got context_dim {items.fusion.context_dim}"
            )

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,), float32 also under autocast."""
        compact = compact_here(self.deduplicate, batch.history)
        history = batch.history if self.newest is None else batch.history[:, -self.newest :]
        history = trim(history) if compact else history
        valid = history != 0
        # Without a sequence encoder's interest, history items need no vectors.
        read = history if self.reads_history else history[:, :0]
        items, target = self._encode(read, batch.target, compact=compact)
        context = self._context(batch)
        target = self._conditioned(target, context)
        parts = [self.sequence(items, target, valid), target]
        place = None if self.user_index is None else cast(Tensor, self.user_index(batch.user))
        if self.users is not None:
            parts.append(self.users(place))
        parts.extend(context)
        if self.tiers is not None:
            parts.extend(self._tiers(self.tiers, history, batch.target, valid))
        crossed = self.interaction(torch.cat([part.to(target.dtype) for part in parts], dim=-1))
        self.auxiliary = None
        if self.alignment is not None and self.training:
            self.auxiliary = self.alignment(self.items, batch.target, target)
        # The last layers in full precision: bfloat16 logits would tie rows that differ.
        with torch.autocast(device_type=crossed.device.type, enabled=False):
            own = next(self.head.parameters()).dtype
            logit = cast(Tensor, self.head(crossed.to(own))).squeeze(-1)
            return logit if self.wide is None else logit + self.wide(batch.target, place)

    def _encode(self, history: Tensor, target: Tensor, *, compact: bool) -> tuple[Tensor, Tensor]:
        """(B, L) and (B,) -> (B, L, D) and (B, D), each item encoded once where that pays."""
        ids = torch.cat([history.flatten(), target])
        if compact:
            once, place = torch.unique(ids, return_inverse=True)
            vectors = self.items(once).index_select(0, place)
        elif ids.numel() >= self.items.num_items:
            every = torch.arange(self.items.num_items, device=ids.device)
            vectors = self.items(every).index_select(0, ids)
        else:
            vectors = self.items(ids)
        items = vectors[: history.numel()].view(*history.shape, vectors.shape[-1])
        return items, vectors[history.numel() :]

    def _context(self, batch: Batch) -> list[Tensor]:
        if batch.context.shape[1] < len(self.context):
            raise InputError(
                f"a batch must hold {len(self.context)} context columns, "
                f"got {batch.context.shape[1]}"
            )
        return [table(batch.context[:, column]) for column, table in enumerate(self.context)]

    def _conditioned(self, target: Tensor, context: list[Tensor]) -> Tensor:
        if not self.conditioned:
            return target
        fusion = cast(ConditionedFusion, self.items.fusion)
        start = self.items.out_dim - self.items.content_dim
        content = fusion.condition(target[:, start:], torch.cat(context, dim=-1))
        return torch.cat([target[:, :start], content], dim=-1)

    def _tiers(
        self, tiers: SimTier, history: Tensor, target: Tensor, valid: Tensor
    ) -> list[Tensor]:
        """Tiers of the images and of the texts, each over the pairs that have both."""
        image, text, has_image, has_text = self.items.features(history)
        image_t, text_t, has_image_t, has_text_t = self.items.features(target)
        return [
            tiers(image, image_t, valid & has_image & has_image_t.unsqueeze(1)),
            tiers(text, text_t, valid & has_text & has_text_t.unsqueeze(1)),
        ]


def trim(history: Tensor) -> Tensor:
    """(B, L) -> (B, L'), without the leading columns that are padding in every row; L' >= 1.

    >>> trim(torch.tensor([[0, 0, 0, 4], [0, 0, 3, 5]]))
    tensor([[0, 4],
            [3, 5]])
    """
    filled = (history != 0).any(0).nonzero()
    first = int(filled[0]) if len(filled) else history.shape[1] - 1
    return history[:, first:]

"""Two small parts of the ranker: its biases, and a loss that ties ids to content.

B rows.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from mmrec.errors import InputError
from mmrec.nn.checks import positive
from mmrec.nn.item_encoder import ItemEncoder
from mmrec.nn.losses import info_nce
from mmrec.nn.users import UserIndex


class Wide(nn.Module):
    """b_item + b_user, (B,) target and (B,) user -> (B,).

    The first-order part of a wide-and-deep model (arXiv:1606.07792): on small data, how good an
    item is and how generous a user is carry most of the signal. All biases start at zero, and
    those of items and users never trained stay there.

    >>> import torch
    >>> index = UserIndex(known=torch.tensor([7]))
    >>> Wide(num_items=3, users=index)(torch.tensor([1, 2]), torch.tensor([7, 8])).tolist()
    [0.0, 0.0]
    """

    def __init__(self, *, num_items: int, users: UserIndex | None = None) -> None:
        super().__init__()
        positive(num_items=num_items)
        self.item = nn.Embedding(num_items, 1)
        nn.init.zeros_(self.item.weight)
        self.index, self.user = users, None
        if users is not None:
            self.user = nn.Embedding(len(users) + 1, 1)
            nn.init.zeros_(self.user.weight)

    def forward(self, target: Tensor, user: Tensor) -> Tensor:
        bias = cast(Tensor, self.item(target))
        if self.user is not None:
            bias = bias + self.user(cast(UserIndex, self.index)(user))
        return bias.squeeze(-1)


class ContentAlignment(nn.Module):
    """weight · InfoNCE(W content_i, id_i) over the targets of a batch.

    Content learns where co-clicked ids lie, so that an item without a trained id is placed among
    its likes. Needs an item encoder with ids and a fusion.
    """

    def __init__(
        self, *, items: ItemEncoder, weight: float = 0.1, temperature: float = 0.2
    ) -> None:
        super().__init__()
        if items.ids is None or items.fusion is None:
            raise InputError("alignment needs an item encoder with ids and a fusion")
        self.weight, self.temperature = weight, temperature
        self.project = nn.Linear(items.content_dim, items.ids.embedding_dim)

    def forward(self, items: ItemEncoder, ids: Tensor, vectors: Tensor) -> Tensor:
        """ids (B,) and their vectors (B, D) as `items` gave them -> a scalar."""
        content = vectors[:, items.out_dim - items.content_dim :]
        own = cast(nn.Embedding, items.ids)(ids)
        loss = info_nce(self.project(content), own, temperature=self.temperature, ids=ids)
        return self.weight * loss

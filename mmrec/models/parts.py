"""Two small parts of the ranker: its biases, and a loss that ties ids to content.

B rows.
"""

from typing import cast

import torch
from torch import Tensor, nn

from mmrec.errors import InputError, not_negative, positive
from mmrec.nn.categorical import CategoricalEncoder
from mmrec.nn.item_encoder import ItemEncoder
from mmrec.nn.losses import info_nce
from mmrec.nn.numeric import NumericEncoder


class Wide(nn.Module):
    """b_item + b_user, (B,) target and (B,) place of the user -> (B, T), one bias for each task.

    The first-order part of a wide-and-deep model (arXiv:1606.07792): on small data, how good an
    item is and how generous a user is carry most of the signal. All biases start at zero, and
    those of items and users never trained stay there.

    Args:
        num_items: N.
        num_users: users with a bias of their own, at places 1 … num_users of `UserIndex` (place 0
            is everybody else); 0 = items alone.
        tasks: T.

    >>> import torch
    >>> Wide(num_items=3, num_users=1)(torch.tensor([1, 2]), torch.tensor([1, 0])).tolist()
    [[0.0], [0.0]]
    """

    def __init__(self, *, num_items: int, num_users: int = 0, tasks: int = 1) -> None:
        super().__init__()
        positive(num_items=num_items, tasks=tasks)
        not_negative(num_users=num_users)
        self.item = nn.Embedding(num_items, tasks)
        self.user = nn.Embedding(num_users + 1, tasks) if num_users else None
        for weight in self.parameters():
            nn.init.zeros_(weight)

    def item_tables(self) -> list[nn.Embedding]:
        """The embeddings that hold a row an item (see `mmrec.analysis.HasItemTables`)."""
        return [self.item]

    def user_tables(self) -> list[nn.Embedding]:
        """The embeddings that hold a row a user, the first for those that are not known."""
        return [] if self.user is None else [self.user]

    def forward(self, target: Tensor, place: Tensor | None = None) -> Tensor:
        bias = cast(Tensor, self.item(target))
        if self.user is not None:
            bias = bias + self.user(place)
        return bias


class HistoryFeatures(nn.Module):
    """What is known of the moment of each history item, as something to add to its vector.

    Σ_c e_c(v_c) + Σ_f n_f(x_f): (B, L, P) categories and (B, L, F) numbers -> (B, L, D).

    Args:
        categorical, numeric: encoders D wide that add their columns up (`total=True`).
    """

    def __init__(
        self, *, categorical: CategoricalEncoder | None, numeric: NumericEncoder | None
    ) -> None:
        super().__init__()
        self.categorical, self.numeric = categorical, cast("nn.Module | None", numeric)

    def forward(self, categories: Tensor, numbers: Tensor) -> Tensor:
        parts = [] if self.categorical is None else [self.categorical(categories)]
        parts += [] if self.numeric is None else [self.numeric(numbers)]
        return torch.stack(parts).sum(0) if len(parts) > 1 else cast(Tensor, parts[0])


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

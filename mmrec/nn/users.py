"""User ids: known ones have a vector each, all others share one.

B rows.
"""

from typing import cast

import torch
from torch import Tensor, nn

from mmrec.errors import positive, probability, require
from mmrec.nn.search import place_in

EMBEDDING_STD = 0.02


class UserIndex(nn.Module):
    """User ids of any size -> 1 … number of known users; 0 for a user that is not known.

    Args:
        known: (K,) int64, the user ids seen in training, in any order, repeats allowed.

    The sorted ids are a buffer of the checkpoint, so the model knows its users without its data.

    >>> UserIndex(known=torch.tensor([70, 7, 7]))(torch.tensor([7, 8, 70]))
    tensor([1, 0, 2])
    """

    def __init__(self, *, known: Tensor) -> None:
        super().__init__()
        require(known.numel(), "known users must hold at least one id, got none")
        require(
            not known.is_floating_point(), f"known users must be whole numbers, got {known.dtype}"
        )
        self.known = nn.Buffer(torch.unique(known.to(torch.int64)))

    def __len__(self) -> int:
        return len(self.known)

    def forward(self, user: Tensor) -> Tensor:
        place = place_in(self.known, user)
        return torch.where(self.known[place] == user, place + 1, 0)


class UserEncoder(nn.Module):
    """One vector per user: place (B,) of `UserIndex` -> (B, dim); place 0 is what others share.

    Args:
        num_users: how many are known.
        dim: width of the vector.
        dropout: in training, the chance that a user is treated as unknown, which is what teaches
            the shared vector.
    """

    def __init__(self, *, num_users: int, dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        positive(num_users=num_users, dim=dim)
        probability(dropout=dropout)
        self.dropout, self.out_dim = dropout, dim
        self.table = nn.Embedding(num_users + 1, dim)
        nn.init.normal_(self.table.weight, std=EMBEDDING_STD)

    def user_tables(self) -> list[nn.Embedding]:
        """The embeddings that hold a row a user, the first for those that are not known."""
        return [self.table]

    def forward(self, place: Tensor) -> Tensor:
        if self.training and self.dropout > 0:
            kept = torch.rand(place.shape, device=place.device) >= self.dropout
            place = torch.where(kept, place, 0)
        return cast(Tensor, self.table(place))

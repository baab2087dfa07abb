"""What was liked of a history and what was not: signs, read of its categories.

Next: `affinity.py` and `recency.py`, which take shares of them.

B rows, L history, P places of categories, S signs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Signs(nn.Module):
    """s = [c_p = v] for S pairs of a category p and its value v: (B, L, P) int64 -> (B, L, S).

    Args:
        pairs: (column, value) each.

    >>> Signs(pairs=[(0, 1)])(torch.tensor([[[0], [1]]])).tolist()
    [[[0.0], [1.0]]]
    """

    def __init__(self, *, pairs: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.out_dim = len(pairs)
        self.column = nn.Buffer(
            torch.tensor([p[0] for p in pairs], dtype=torch.int64), persistent=False
        )
        self.value = nn.Buffer(
            torch.tensor([p[1] for p in pairs], dtype=torch.int64), persistent=False
        )

    def forward(self, categories: Tensor) -> Tensor:
        return (categories.index_select(-1, self.column) == self.value).float()


def counted(signs: Tensor) -> Tensor:
    """(…, S) -> [1; 4 s - 2] (…, 1 + S), what weights sum up.

    4 · ((Σ w s + a/2) / (Σ w + a) - 1/2), a share that starts from a half, is then one fraction:
    Σ w (4 s - 2) / (Σ w + a).
    """
    return F.pad(4 * signs - 2, (1, 0), value=1.0)

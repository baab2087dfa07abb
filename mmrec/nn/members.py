"""Several models in one network: each sees the input by scales of its own.

B rows, X width of the input, K members.
"""

import torch
from torch import Tensor, nn

from mmrec.errors import positive


class Members(nn.Module):
    """x ⊙ r_k for each member k: (..., X) -> (..., K, X).

    What comes next is shared by all: the same layers read each member's x. The scales r begin at
    ±1, drawn at random, and are trained; the prediction is the mean of the members' logits, the
    loss the mean of their losses, so that each learns to be right alone. It is an ensemble for
    K · X more weights; the layers behind it do K times the work. BatchEnsemble (arXiv:2002.06715)
    with scales at the first layer alone, as TabM-mini (arXiv:2410.24210).

    Args:
        members: K.
        dim: X.

    >>> Members(members=4, dim=3)(torch.ones(2, 3)).shape
    torch.Size([2, 4, 3])
    """

    def __init__(self, *, members: int, dim: int) -> None:
        super().__init__()
        positive(members=members, dim=dim)
        self.members = members
        self.scale = nn.Parameter(torch.randint(2, (members, dim)) * 2.0 - 1)

    def forward(self, x: Tensor) -> Tensor:
        return x.unsqueeze(-2) * self.scale

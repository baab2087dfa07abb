"""Losses in float32, whatever the autocast around them.

B rows, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmrec.errors import InputError


def info_nce(
    a: Tensor, b: Tensor, *, temperature: float | Tensor = 0.07, ids: Tensor | None = None
) -> Tensor:
    """Symmetric InfoNCE of paired rows (B, D), (B, D); the other rows of the batch are negatives.

    s_ij = cos(a_i, b_j) / temperature;
    loss = -½ · mean_i [log softmax_j(s_ij)_i + log softmax_j(s_ji)_i].
    arXiv:1807.03748, the symmetric form arXiv:2103.00020.

    Args:
        temperature: a number above 0, or a learned scalar.
        ids: (B,) or (B, 2) int64, what the rows of `a` and `b` show. Pairs (i, j) whose columns
            hold a shared id are no negatives of one another and leave the sum.

    A batch of one row has no negatives and gives 0.
    """
    if a.ndim != 2 or a.shape != b.shape:
        raise InputError(
            f"info_nce takes two (B, D) of one shape, got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    with torch.autocast(device_type=a.device.type, enabled=False):
        scores = F.normalize(_wide(a), dim=-1) @ F.normalize(_wide(b), dim=-1).T / temperature
        if ids is not None:
            scores = scores.masked_fill(_shared(ids), float("-inf"))
        own = torch.arange(len(a), device=a.device)
        return 0.5 * (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own))


def alignment(a: Tensor, b: Tensor) -> Tensor:
    """Mean over rows of ‖a/‖a‖ - b/‖b‖‖², in [0, 4], for (B, D). arXiv:2005.10242."""
    if a.shape != b.shape:
        raise InputError(
            f"alignment takes two tensors of one shape, got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    with torch.autocast(device_type=a.device.type, enabled=False):
        difference = F.normalize(_wide(a), dim=-1) - F.normalize(_wide(b), dim=-1)
        return difference.square().sum(-1).mean()


def _wide(x: Tensor) -> Tensor:
    """Half precision becomes float32; float32 and float64 stay."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _shared(ids: Tensor) -> Tensor:
    """(B, B) bool, True off the diagonal where rows i and j hold a common id."""
    ids = ids.reshape(len(ids), -1)
    same = (ids[:, None, :, None] == ids[None, :, None, :]).flatten(2).any(-1)
    same.fill_diagonal_(False)
    return same

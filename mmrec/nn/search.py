"""Where values stand among sorted ones, in a form that every exported program knows."""

import torch
from torch import Tensor

from mmrec.nn.history.tokens import exported


def place_in(known: Tensor, values: Tensor) -> Tensor:
    """How many of `known` (K,), ascending, are smaller than each value (…), at most K - 1.

    >>> place_in(torch.tensor([3, 5, 9]), torch.tensor([[1, 5], [6, 90]])).tolist()
    [[0, 1], [2, 2]]
    """
    if exported():
        return _halved(known, values)
    return torch.searchsorted(known, values.contiguous()).clamp(max=known.shape[0] - 1)


def _halved(known: Tensor, values: Tensor) -> Tensor:
    """The same by comparisons alone, log2 K of them: ONNX has no search."""
    count, smaller = known.shape[0], torch.zeros_like(values)
    step = 1 << (count.bit_length() - 1)
    while step:
        further = smaller + step
        there = known[(further - 1).clamp(max=count - 1)]
        smaller = torch.where((further <= count) & (there < values), further, smaller)
        step //= 2
    return smaller.clamp(max=count - 1)

"""A module beside another one: the same parameters, buffers and children of its own."""

import copy
from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def twin(module: M) -> M:
    """A shallow copy, in which a buffer or a child may be replaced; the first keeps its own.

    >>> import torch
    >>> first = nn.BatchNorm1d(3)
    >>> second = twin(first)
    >>> second.running_mean = torch.ones(3)
    >>> first.running_mean.sum().item(), second.weight is first.weight
    (0.0, True)
    """
    found = copy.copy(module)
    for kind in ("_buffers", "_modules", "_parameters", "_non_persistent_buffers_set"):
        found.__dict__[kind] = copy.copy(module.__dict__[kind])
    return found

"""A number a vector of an item table, which tells its features from others of their width."""

from typing import Protocol

import torch
from torch import Tensor

ABSENT = 2.0  # no cosine: stands where an item has no vector
CLOSE = 0.05  # of the spread: the same encoder on another machine is closer, others are not
_ROWS = 4096  # as many as stay in the cache


class HasFeatures(Protocol):
    """Vectors of N items and which are there."""

    @property
    def image(self) -> Tensor: ...
    @property
    def text(self) -> Tensor: ...
    @property
    def has_image(self) -> Tensor: ...
    @property
    def has_text(self) -> Tensor: ...


def sketch(items: HasFeatures) -> Tensor:
    """(N, 2): of each item's image and text the cosine with a fixed direction, 2 where none is.

    A direction depends on the width alone.
    """
    found = []
    for vectors, there in ((items.image, items.has_image), (items.text, items.has_text)):
        generator = torch.Generator().manual_seed(vectors.shape[1])
        direction = torch.randn(vectors.shape[1], generator=generator)
        direction = direction / torch.linalg.vector_norm(direction)
        cosine = torch.cat([_cosine(part, direction) for part in torch.split(vectors.cpu(), _ROWS)])
        found.append(torch.where(there.cpu(), cosine, ABSENT))
    return torch.stack(found, dim=1)


def _cosine(vectors: Tensor, unit: Tensor) -> Tensor:
    vectors = vectors.float()
    cosine: Tensor = vectors @ unit / torch.linalg.vector_norm(vectors, dim=1).clamp(min=1e-12)
    return cosine


def share_unlike(one: Tensor, other: Tensor) -> float:
    """Of two sketches (N, 2) of the same items: the share of items whose vectors are others."""
    unlike = torch.zeros(len(one), dtype=torch.bool)
    for a, b in zip(one.double().unbind(1), other.double().unbind(1), strict=True):
        there = a != ABSENT
        spread = a[there].std() if int(there.sum()) > 1 else torch.tensor(1.0)
        near = (a - b).abs() <= CLOSE * spread.clamp(min=1e-6)
        unlike |= (there != (b != ABSENT)) | ~near
    return float(unlike.float().mean()) if len(one) else 0.0

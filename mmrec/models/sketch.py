"""A number a vector of an item table, which tells its features from others of their width."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

ABSENT = 2.0  # no cosine: stands where an item has no vector
CLOSE = 0.05  # of the spread: the same encoder on another machine is closer, others are not
_ROWS = 4096  # as many as stay in the cache


class HasFeatures(Protocol):
    """Vectors (N, D_m) of N items and which are there, (N,) bool, by name of the modality."""

    @property
    def vectors(self) -> Mapping[str, Tensor]: ...
    @property
    def present(self) -> Mapping[str, Tensor]: ...


def sketch(items: HasFeatures) -> dict[str, Tensor]:
    """Modality -> (N,): the cosine of each item's vector with a fixed direction, 2 = it has none.

    A direction depends on the width alone.
    """
    found = {}
    for name, vectors in items.vectors.items():
        generator = torch.Generator().manual_seed(vectors.shape[1])
        direction = torch.randn(vectors.shape[1], generator=generator)
        direction = direction / torch.linalg.vector_norm(direction)
        cosine = torch.cat([_cosine(part, direction) for part in torch.split(vectors.cpu(), _ROWS)])
        found[name] = torch.where(items.present[name].cpu(), cosine, ABSENT)
    return found


def _cosine(vectors: Tensor, unit: Tensor) -> Tensor:
    vectors = vectors.float()
    cosine: Tensor = vectors @ unit / torch.linalg.vector_norm(vectors, dim=1).clamp(min=1e-12)
    return cosine


def share_unlike(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Of two sketches of the same items: the share of items with another vector in a modality."""
    unlike = torch.zeros(max((len(of) for of in one.values()), default=0), dtype=torch.bool)
    for name in one:
        a, b = one[name].double(), other[name].double()
        there = a != ABSENT
        spread = a[there].std() if int(there.sum()) > 1 else torch.tensor(1.0)
        near = (a - b).abs() <= CLOSE * spread.clamp(min=1e-6)
        unlike |= (there != (b != ABSENT)) | ~near
    return float(unlike.float().mean()) if len(unlike) else 0.0

"""A few numbers that tell an item table's features from others of the same width."""

from typing import Protocol

import torch
from torch import Tensor

MOST = 64  # items: the 1st, 2nd, 5th, 10th, …, the same ones when a catalogue grows
CLOSE = 0.05  # the same encoder on another machine is closer, other features are not


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


def sketch(items: HasFeatures) -> list[list[float | None]]:
    """Of image and text, the cosine of each chosen item's vector with a fixed direction.

    None where an item has no vector. A direction depends on the width alone.
    """
    chosen = torch.arange(MOST).square() + 1
    chosen = chosen[chosen < len(items.image)]
    found = []
    for vectors, there in ((items.image, items.has_image), (items.text, items.has_text)):
        generator = torch.Generator().manual_seed(vectors.shape[1])
        direction = torch.randn(vectors.shape[1], generator=generator)
        cosine = torch.cosine_similarity(vectors[chosen].float(), direction, dim=1)
        values = zip(cosine.tolist(), there[chosen].tolist(), strict=True)
        found.append([round(value, 6) if present else None for value, present in values])
    return found


def alike(one: list[list[float | None]], other: list[list[float | None]]) -> bool:
    """Whether two sketches are of the same features, up to rounding."""
    pairs = [pair for a, b in zip(one, other, strict=True) for pair in zip(a, b, strict=False)]
    if any((a is None) != (b is None) for a, b in pairs):
        return False
    both = Tensor([pair for pair in pairs if None not in pair]).reshape(-1, 2)
    spread = both[:, 0].std() if len(both) > 1 else torch.tensor(1.0)
    return bool(((both[:, 0] - both[:, 1]).abs() <= CLOSE * spread.clamp(min=1e-6)).all())

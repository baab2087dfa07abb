"""A small item table with everything awkward in it, and a batch over it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from mmrec import Batch

ITEMS, TAGS, IMAGE, TEXT, ROWS, LENGTH = 23, 13, 5, 3, 7, 11


@dataclass(frozen=True)
class Table:
    tags: Tensor
    vectors: dict[str, Tensor]
    present: dict[str, Tensor]
    num_tags: int
    categorical: Tensor
    numeric: Tensor
    widths: tuple[int, ...]


@pytest.fixture
def table() -> Table:
    """Items with both, one and no modality; with no tag up to five."""
    tags = torch.randint(1, TAGS, (ITEMS, 5))
    tags[torch.arange(5) < torch.randint(0, 6, (ITEMS, 1))] = 0
    has_image, has_text = torch.rand(ITEMS) < 0.6, torch.rand(ITEMS) < 0.6
    has_image[0] = has_text[0] = False
    image = torch.randn(ITEMS, IMAGE).masked_fill(~has_image[:, None], 0).half()
    text = torch.randn(ITEMS, TEXT).masked_fill(~has_text[:, None], 0).half()
    brand = torch.randint(0, 4, (ITEMS, 1))
    price = torch.randn(ITEMS, 2).masked_fill(torch.rand(ITEMS, 2) < 0.3, torch.nan)
    vectors, present = {"image": image, "text": text}, {"image": has_image, "text": has_text}
    return Table(tags, vectors, present, TAGS, brand, price, (1,))


def _numbers(*shape: int) -> Tensor:
    """Every fourth or so missing."""
    return torch.randn(shape).masked_fill(torch.rand(shape) < 0.25, torch.nan)


@pytest.fixture
def batch() -> Batch:
    """Histories of 0, 1, … up to 10 of 11 items, so that one column is padding in every row."""
    history = torch.randint(1, ITEMS, (ROWS, LENGTH))
    length = torch.tensor([0, 1, 2, 4, 7, 9, 10])
    history[torch.arange(LENGTH) < LENGTH - length[:, None]] = 0
    return Batch.of(
        user=torch.tensor([101, 7, 7, 55, 900, 13, 101]),
        history=history,
        target=torch.randint(1, ITEMS, (ROWS,)),
        categorical=torch.randint(0, 11, (ROWS, 2)),
        labels=torch.tensor([[0.0], [1], [1], [0], [0], [1], [0]]),
        row=torch.arange(ROWS),
        numeric=_numbers(ROWS, 3),
        history_categorical=torch.randint(0, 3, (ROWS, LENGTH, 1)),
        history_numeric=_numbers(ROWS, LENGTH, 1),
    )

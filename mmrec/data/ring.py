"""Shared memory that worker processes write batches into, again and again.

Handing tensors from one process to another makes new shared memory for each, and its first touch is
dear in both processes. Here each worker has a few slots that stay; what travels is the slot's
number, and the reader copies the tensors out.

A `torch.utils.data.DataLoader` asks a worker for at most `prefetch` batches at a time, and asks for
the next one before it hands one out: with prefetch + 2 slots used in turn, no slot is written again
before it was copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

_ALIGN = 64


class Written(NamedTuple):
    """What a worker sends: which of its slots holds the batch, and how many rows."""

    worker: int
    slot: int
    rows: int


@dataclass(frozen=True)
class Layout:
    """Which tensors a batch has, and where they lie in a slot.

    Attributes:
        scalars: names of the (B,) tensors, by type.
        lists: type, name and width of the (B, width) tensors.
    """

    scalars: tuple[tuple[torch.dtype, tuple[str, ...]], ...]
    lists: tuple[tuple[torch.dtype, str, int], ...]

    def bytes_for(self, rows: int) -> int:
        """Room that a batch of so many rows takes."""
        return sum(end - start for start, end, *_ in self._places(rows))

    def empty(self, rows: int, *, pin: bool = False) -> dict[str, Tensor]:
        """Tensors to be filled; scalar columns of one type share one storage."""
        tensors: dict[str, Tensor] = {}
        for dtype, names in self.scalars:
            block = torch.empty((len(names), rows), dtype=dtype, pin_memory=pin)
            tensors.update(zip(names, block, strict=True))
        for dtype, name, width in self.lists:
            tensors[name] = torch.empty((rows, width), dtype=dtype, pin_memory=pin)
        return tensors

    def within(self, memory: Tensor, rows: int) -> dict[str, Tensor]:
        """The tensors of a batch that lies in `memory`, a slot's bytes."""
        tensors: dict[str, Tensor] = {}
        for start, _, dtype, names, width in self._places(rows):
            size = rows * width * dtype.itemsize
            for index, name in enumerate(names):
                at = start + index * size
                tensors[name] = memory[at : at + size].view(dtype)
        for _, name, width in self.lists:
            tensors[name] = tensors[name].view(rows, width)
        return tensors

    def _places(self, rows: int) -> list[tuple[int, int, torch.dtype, tuple[str, ...], int]]:
        places, start = [], 0
        blocks = [(dtype, names, 1) for dtype, names in self.scalars]
        blocks += [(dtype, (name,), width) for dtype, name, width in self.lists]
        for dtype, names, width in blocks:
            size = rows * width * len(names) * dtype.itemsize
            end = start + -(-size // _ALIGN) * _ALIGN
            places.append((start, end, dtype, names, width))
            start = end
        return places


class Ring:
    """Slots for every worker, in shared memory."""

    def __init__(self, layout: Layout, *, rows: int, workers: int, slots: int) -> None:
        self.layout, self.slots = layout, slots
        self._memory = torch.empty((workers, slots, layout.bytes_for(rows)), dtype=torch.uint8)
        self._memory.share_memory_()  # type: ignore[no-untyped-call]

    def tensors(self, written: Written) -> dict[str, Tensor]:
        """The tensors of a slot, where they lie."""
        return self.layout.within(self._memory[written.worker, written.slot], written.rows)

    def copy_out(self, written: Written, *, pin: bool) -> dict[str, Tensor]:
        """The same in memory of this process."""
        found = self.tensors(written)
        out = self.layout.empty(written.rows, pin=pin)
        for name, tensor in out.items():
            tensor.copy_(found[name])
        return out

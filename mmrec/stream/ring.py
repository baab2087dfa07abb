"""Shared memory that worker processes write batches into, again and again.

Handing tensors from one process to another makes new shared memory for each, and its first touch is
dear in both processes. Here each worker has slots that stay; what travels is the slot's number, and
the reader hands out the slot itself. A slot has a flag in shared memory that says that the consumer
holds its batch. It falls when the last tensor that lies there is gone. Of a worker's slots at most
`spare` may be held: a consumer that keeps more batches gets copies.

The worker writes into a slot that is neither held nor among the `live` newest, which the reader may
not have handed out yet. So live + spare slots always leave one to write into.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
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
    """Slots for every worker, in shared memory.

    Args:
        layout: of a batch.
        rows: of the largest batch.
        workers: that write, each into slots of its own.
        live: batches of one worker, at most, that are written or being written and not handed out.
        spare: batches of one worker, at most, that the consumer holds where they lie.
    """

    def __init__(
        self, layout: Layout, *, rows: int, workers: int, live: int, spare: int = 2
    ) -> None:
        self.layout, self.live, self.spare = layout, live, spare
        self.slots = live + spare
        self._memory = torch.empty((workers, self.slots, layout.bytes_for(rows)), dtype=torch.uint8)
        self._memory.share_memory_()  # type: ignore[no-untyped-call]
        self._held = torch.zeros((workers, self.slots), dtype=torch.uint8)
        self._held.share_memory_()  # type: ignore[no-untyped-call]

    def tensors(self, written: Written) -> dict[str, Tensor]:
        """The tensors of a slot, where they lie."""
        return self.layout.within(self._memory[written.worker, written.slot], written.rows)

    def held(self, worker: int) -> list[int]:
        """The worker's slots whose batches the consumer holds."""
        flags: list[int] = self._held[worker].tolist()
        return [slot for slot, flag in enumerate(flags) if flag]

    def hand_out(self, written: Written, *, pin: bool) -> dict[str, Tensor]:
        """The batch, for the consumer to keep: in its slot, or copied (always for `pin`)."""
        if pin or len(self.held(written.worker)) >= self.spare:
            return self._copy_out(written, pin=pin)
        flag = self._held[written.worker, written.slot]
        flag.fill_(1)
        # The tensors share one storage, which holds this array; both go with the last tensor.
        slot = self._memory[written.worker, written.slot].numpy()
        weakref.finalize(slot, _let_go, flag, os.getpid()).atexit = False
        return self.layout.within(torch.from_numpy(slot), written.rows)

    def _copy_out(self, written: Written, *, pin: bool) -> dict[str, Tensor]:
        found = self.tensors(written)
        out = self.layout.empty(written.rows, pin=pin)
        for name, tensor in out.items():
            tensor.copy_(found[name])
        return out


def _let_go(flag: Tensor, process: int) -> None:
    if os.getpid() == process:  # a fork's copy of the batch says nothing
        flag.fill_(0)


class Writer:
    """In a worker process: chooses the slots of the ring that it writes into.

    Args:
        ring: shared with the reader.
        worker: whose slots.
    """

    def __init__(self, ring: Ring, worker: int) -> None:
        self._ring, self._worker, self._last = ring, worker, ring.slots - 1
        self._newest: deque[int] = deque(maxlen=ring.live - 1)

    def next(self, rows: int) -> Written:
        """A slot to write a batch of `rows` rows into."""
        slots = self._ring.slots
        while True:
            taken = {*self._newest, *self._ring.held(self._worker)}
            for step in range(1, slots + 1):
                slot = (self._last + step) % slots
                if slot not in taken:
                    self._newest.append(slot)
                    self._last = slot
                    return Written(self._worker, slot, rows)
            # One batch was let go and another one taken while the flags were read: read again.

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

import math
import os
import weakref
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmrec.stream.decode import TensorColumn

_ALIGN = 64


class Written(NamedTuple):
    """What a worker sends: which of its slots holds the batch, and how many rows."""

    worker: int
    slot: int
    rows: int


@dataclass(frozen=True)
class BatchTensors:
    """Which tensors a batch has, and where they lie in a slot.

    Attributes:
        blocks: type, names and width of tensors that share one storage: scalar columns, (B,) each,
            of one type (width None), or a list column (B, width).
    """

    blocks: tuple[tuple[torch.dtype, tuple[str, ...], int | None], ...]

    @classmethod
    def of(cls, columns: Iterable[TensorColumn]) -> BatchTensors:
        """The tensors of these columns, and "row" beside them."""
        scalars: dict[torch.dtype, tuple[str, ...]] = {torch.int64: ("row",)}
        lists: list[tuple[torch.dtype, tuple[str, ...], int | None]] = []
        for column in columns:
            dtype: torch.dtype = getattr(torch, column.out.name)
            if column.width is None:
                scalars[dtype] = (*scalars.get(dtype, ()), column.name)
            else:
                lists.append((dtype, (column.name,), column.width))
        return cls((*((dtype, names, None) for dtype, names in scalars.items()), *lists))

    def bytes_for(self, rows: int) -> int:
        """Room that a batch of so many rows takes in a slot."""
        return sum(
            _aligned(len(names) * rows * (width or 1) * dtype.itemsize)
            for dtype, names, width in self.blocks
        )

    def empty(
        self, rows: int, *, within: Tensor | None = None, pin: bool = False
    ) -> dict[str, Tensor]:
        """Tensors to be filled: new ones, or those that lie `within` a slot's bytes."""
        tensors: dict[str, Tensor] = {}
        start = 0
        for dtype, names, width in self.blocks:
            shape = (len(names), rows) if width is None else (1, rows, width)
            if within is None:
                block = torch.empty(shape, dtype=dtype, pin_memory=pin)
            else:
                size = math.prod(shape) * dtype.itemsize
                block = within[start : start + size].view(dtype).view(shape)
                start += _aligned(size)
            tensors.update(zip(names, block, strict=True))
        return tensors


def _aligned(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


class Ring:
    """Slots for every worker, in shared memory.

    Args:
        batch: its tensors.
        rows: of the largest batch.
        workers: that write, each into slots of its own.
        live: batches of one worker, at most, that are written or being written and not handed out.
        spare: batches of one worker, at most, that the consumer holds where they lie.
    """

    def __init__(
        self, batch: BatchTensors, *, rows: int, workers: int, live: int, spare: int = 2
    ) -> None:
        self.live, self.spare, self.slots = live, spare, live + spare
        self._batch = batch
        shape = workers, self.slots, batch.bytes_for(rows)
        self._memory = shared(torch.empty(shape, dtype=torch.uint8))
        self._held = shared(torch.zeros(shape[:2], dtype=torch.uint8))

    def tensors(self, written: Written) -> dict[str, Tensor]:
        """The tensors of a slot, where they lie."""
        slot = self._memory[written.worker, written.slot]
        return self._batch.empty(written.rows, within=slot)

    def held(self, worker: int) -> list[int]:
        """The worker's slots whose batches the consumer holds."""
        flags: list[int] = self._held[worker].tolist()
        return [slot for slot, flag in enumerate(flags) if flag]

    def hand_out(self, written: Written, *, pin: bool) -> dict[str, Tensor]:
        """The batch, for the consumer to keep: in its slot, or copied (always for `pin`)."""
        if pin or len(self.held(written.worker)) >= self.spare:
            copy = self._batch.empty(written.rows, pin=pin)
            for name, tensor in self.tensors(written).items():
                # By one thread: torch's would wait for cores that the workers need.
                np.copyto(copy[name].numpy(), tensor.numpy())
            return copy
        # As an array: torch refuses to write outside of inference mode to what was made inside.
        flag = self._held.numpy()[written.worker, written.slot : written.slot + 1]
        flag[0] = 1
        # The tensors share one storage, which holds this array; both go with the last tensor.
        slot = self._memory[written.worker, written.slot].numpy()
        weakref.finalize(slot, _let_go, flag, os.getpid()).atexit = False
        return self._batch.empty(written.rows, within=torch.from_numpy(slot))


def shared(memory: Tensor) -> Tensor:
    """The tensor, moved into shared memory: other processes see what is written to it."""
    memory.share_memory_()  # type: ignore[no-untyped-call]
    return memory


def _let_go(flag: NDArray[np.uint8], process: int) -> None:
    if os.getpid() == process:  # a fork's copy of the batch says nothing
        flag[0] = 0


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

"""What training needs of a loader, and its batches on the device one ahead of the step."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mmrec.batch import Batch


class BatchLoader(Protocol):
    """Batches of one rank: `mmrec.stream.loader.Loader`, or anything with these four.

    The order of rows must be a function of the epoch and the loader's own seed alone.
    """

    def __iter__(self) -> Iterator[Batch]:
        """One epoch from the position that `seek` set, else from its start."""

    def __len__(self) -> int:
        """Batches in a whole epoch, the same on every rank."""

    def seek(self, *, epoch: int, batch: int) -> None:
        """The next iteration starts at that batch of that epoch."""

    def fingerprint(self) -> dict[str, Any]:
        """JSON-able; equal for two loaders that give the same batches."""


def rewound(loader: BatchLoader) -> Iterable[Batch]:
    """The loader from its first batch on."""
    loader.seek(epoch=0, batch=0)
    return loader


def on_device(batches: Iterable[Batch], device: torch.device) -> Iterator[tuple[Batch, Tensor]]:
    """Yield (batch on `device`, its row numbers as they arrived, on the host).

    On CUDA the copy of the next batch overlaps with the work on this one; it is asynchronous
    where the loader pins memory. Padding is counted before the copy: the model need not ask the
    device.
    """
    if device.type != "cuda":
        for batch in batches:
            yield batch.to(device), batch.row
        return
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    waiting: tuple[Batch, Tensor] | None = None
    for batch in batches:
        with torch.cuda.stream(side):
            known = replace(batch, padding=_leading_padding(batch.history))
            copied = known.to(device, non_blocking=True), batch.row
        if waiting is not None:
            yield waiting
        # What the main stream has been given so far may run; the next use waits for the copy.
        waiting = _claimed(copied, side, device)
    if waiting is not None:
        yield waiting


def _leading_padding(history: Tensor) -> int:
    """`first_filled` on the host, by one thread: torch's wait for cores that the workers need."""
    filled = np.flatnonzero(history.numpy().any(axis=0))
    return int(filled[0]) if len(filled) else max(0, history.shape[1] - 1)


def _claimed(
    copied: tuple[Batch, Tensor], side: torch.cuda.Stream, device: torch.device
) -> tuple[Batch, Tensor]:
    """Make the current stream wait for the copy and keep its memory until it has been used."""
    main = torch.cuda.current_stream(device)
    main.wait_stream(side)
    for tensor in copied[0].tensors():
        tensor.record_stream(main)
    return copied

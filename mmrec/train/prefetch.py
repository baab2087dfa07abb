"""Batches on the device one ahead of the step, copied on a stream of their own."""

from collections.abc import Iterable, Iterator
from dataclasses import fields

import torch
from torch import Tensor

from mmrec.batch import Batch


def on_device(batches: Iterable[Batch], device: torch.device) -> Iterator[tuple[Batch, Tensor]]:
    """Yield (batch on `device`, its row numbers as they arrived, on the host).

    On CUDA the copy of the next batch overlaps with the work on this one; it is asynchronous
    where the loader pins memory.
    """
    if device.type != "cuda":
        for batch in batches:
            yield batch.to(device), batch.row
        return
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    waiting: tuple[Batch, Tensor] | None = None
    for batch in batches:
        with torch.cuda.stream(side):
            copied = batch.to(device, non_blocking=True), batch.row
        if waiting is not None:
            yield waiting
        # What the main stream has been given so far may run; the next use waits for the copy.
        waiting = _claimed(copied, side, device)
    if waiting is not None:
        yield waiting


def _claimed(
    copied: tuple[Batch, Tensor], side: torch.cuda.Stream, device: torch.device
) -> tuple[Batch, Tensor]:
    """Make the current stream wait for the copy and keep its memory until it has been used."""
    main = torch.cuda.current_stream(device)
    main.wait_stream(side)
    for field in fields(Batch):
        value = getattr(copied[0], field.name)
        if value is not None:
            value.record_stream(main)
    return copied

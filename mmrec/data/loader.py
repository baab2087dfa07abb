"""`make_loader`: a stream read by worker processes, which knows its position all the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, IterableDataset

from mmrec.data.ring import Ring, Written
from mmrec.data.stream import ParquetStream
from mmrec.errors import InputError

T = TypeVar("T")


class _InWorkers(IterableDataset[Written]):
    """What worker processes iterate: the stream, writing into a ring."""

    def __init__(self, stream: ParquetStream[Any], ring: Ring) -> None:
        super().__init__()
        self._stream, self._ring = stream, ring

    def __iter__(self) -> Iterator[Written]:
        return self._stream.into(self._ring)

    def __len__(self) -> int:
        return len(self._stream)


class Loader(Generic[T]):
    """Batches of a `ParquetStream`, read in worker processes, with the stream's position.

    Made by `make_loader`. Batches that workers have read ahead do not count: the state is that of
    the batches handed out.
    """

    def __init__(
        self,
        stream: ParquetStream[T],
        *,
        num_workers: int,
        pin_memory: bool,
        prefetch: int,
        persistent: bool,
    ) -> None:
        self.stream = stream
        self._workers, self._prefetch, self._persistent = num_workers, prefetch, persistent
        self._pin = pin_memory and torch.cuda.is_available()
        self._kept: tuple[Ring, DataLoader[Written]] | None = None
        self._next: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.stream)

    def __iter__(self) -> Iterator[T]:
        batches = self._in_workers() if self._workers else self._here()
        self._next = (self.stream.epoch, self.stream.start)
        return self._count(batches, *self._next)

    def _here(self) -> Iterator[T]:
        batches = iter(self.stream)
        return map(_pinned, batches) if self._pin else batches

    def _in_workers(self) -> Iterator[T]:
        self.stream.begin()
        # An iteration has a ring of its own: one that was given up may still be writing into its.
        ring, loader = self._kept or self._start()
        if self._persistent:
            self._kept = ring, loader
        written = iter(loader)
        batches = (self.stream.finish(ring.copy_out(w, pin=self._pin)) for w in written)
        return map(_pinned, batches) if self._pin else batches

    def _start(self) -> tuple[Ring, DataLoader[Written]]:
        ring = self.stream.ring(workers=self._workers, slots=self._prefetch + 2)
        loader = DataLoader(
            _InWorkers(self.stream, ring),
            batch_size=None,
            num_workers=self._workers,
            prefetch_factor=self._prefetch,
            persistent_workers=self._persistent,
        )
        return ring, loader

    def _count(self, batches: Iterator[T], epoch: int, first: int) -> Iterator[T]:
        for batch, content in enumerate(batches, start=first):
            self._next = (epoch, batch + 1)
            yield content

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration yields."""
        return self.stream.epoch

    def set_epoch(self, epoch: int) -> None:
        """See `ParquetStream.set_epoch`; also with persistent workers."""
        self.stream.set_epoch(epoch)

    def seek(self, *, epoch: int, batch: int) -> None:
        """See `ParquetStream.seek`."""
        self.stream.seek(epoch=epoch, batch=batch)
        self._next = None

    def state_dict(self) -> dict[str, Any]:
        """The position after the last batch handed out, and the fingerprint."""
        epoch, batch = self._next or (self.stream.epoch, self.stream.start)
        return self.stream.state_after(epoch=epoch, batch=batch)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `ParquetStream.load_state_dict`."""
        self.stream.load_state_dict(state)
        self._next = None

    def fingerprint(self) -> dict[str, Any]:
        """See `ParquetStream.fingerprint`."""
        return self.stream.fingerprint()


def make_loader(
    stream: ParquetStream[T],
    *,
    num_workers: int = 0,
    pin_memory: bool = False,
    prefetch: int = 2,
    persistent: bool = False,
) -> Loader[T]:
    """Read a stream in `num_workers` processes (0: in this one).

    Workers write into shared memory that is used again and again (`mmrec.data.ring`); the stream's
    `collate` is called in this process. Not for streams of `memory://` URLs, which other processes
    cannot see.

    Args:
        stream: what to read.
        num_workers: processes; the batches and their order stay the same.
        pin_memory: hand out batches in page-locked memory, for copies to a GPU that do not wait;
            without a GPU it changes nothing.
        prefetch: batches that each worker reads ahead.
        persistent: keep the workers between epochs.

    Raises:
        InputError: for numbers that make no sense.
    """
    if num_workers < 0 or prefetch < 1:
        raise InputError(
            f"num_workers must be at least 0 and prefetch at least 1, got {num_workers}, {prefetch}"
        )
    return Loader(
        stream,
        num_workers=num_workers,
        pin_memory=pin_memory,
        prefetch=prefetch,
        persistent=persistent and num_workers > 0,
    )


def _pinned(batch: Any) -> Any:
    """A dict of tensors, or anything that has `pin_memory` itself, in page-locked memory."""
    if isinstance(batch, dict):
        return {name: tensor.pin_memory() for name, tensor in batch.items()}
    return batch.pin_memory() if hasattr(batch, "pin_memory") else batch

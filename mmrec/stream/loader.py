"""`make_loader`: a stream read by worker processes, which knows its position all the same."""

from collections import deque
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any, Generic, TypeVar, cast

import torch
from torch.utils.data import DataLoader, IterableDataset

from mmrec.errors import InputError, not_negative, positive
from mmrec.stream.ring import Ring, Written, shared
from mmrec.stream.stream import ParquetStream

T = TypeVar("T")


_READ_AHEAD_BYTES = 16 << 20  # of one worker, by default
_LEAST_AHEAD, _MOST_AHEAD = 2, 16  # batches
_MESSAGES = 4  # that the batches read ahead come in: a message costs both processes some 0.2 ms


Message = list[Written] | InputError


class _InWorkers(IterableDataset[Message]):
    """What worker processes iterate: the stream, writing into a ring. The last may be an error."""

    def __init__(self, stream: ParquetStream[Any], ring: Ring, together: int) -> None:
        super().__init__()
        self._stream, self._ring, self._together = stream, ring, together
        # Where the iteration begins. Shared memory of its own: persistent workers see a new one,
        # and no worker sees what is set for the iteration after.
        self._position = shared(torch.zeros(2, dtype=torch.int64))

    def begin(self, epoch: int, start: int) -> None:
        """In the main process, before the workers are asked for anything."""
        self._position.numpy()[:] = epoch, start

    def __iter__(self) -> Iterator[Message]:
        epoch, start = self._position.tolist()
        try:
            yield from self._stream.into(
                self._ring, epoch=epoch, start=start, together=self._together
            )
        except InputError as error:  # as it is: torch would wrap it into a traceback
            yield error


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
        prefetch: int | None,
        persistent: bool,
    ) -> None:
        self.stream = stream
        self._workers, self._persistent = num_workers, persistent
        self._prefetch = prefetch or _read_ahead(stream.batch_bytes)
        self._pin = pin_memory and torch.cuda.is_available()
        self._kept: tuple[Ring, DataLoader[Message]] | None = None
        self._iterations = 0

    def __len__(self) -> int:
        return len(self.stream)

    def __iter__(self) -> Iterator[T]:
        batches = self._in_workers() if self._workers else iter(self.stream)
        return map(_pinned, batches) if self._pin else batches

    def _in_workers(self) -> Iterator[T]:
        position = self.stream.begin()
        # An iteration has a ring of its own: one that was given up may still be writing into its.
        ring, loader = self._kept or self._start()
        if self._persistent:
            self._kept = ring, loader
        self._iterations += 1
        cast(_InWorkers, loader.dataset).begin(*position)
        return self._hand_out(ring, iter(loader), self._iterations, position)

    def _hand_out(
        self,
        ring: Ring,
        messages: Iterator[Message],
        iteration: int,
        position: tuple[int, int],
    ) -> Iterator[T]:
        """The workers' batches in turn: batch i of the iteration is worker i mod W's next."""
        epoch, first = position
        waiting: list[deque[Written]] = [deque() for _ in range(self._workers)]
        for number in count():
            if self._persistent and iteration != self._iterations:
                raise InputError(
                    "persistent workers serve one iteration at a time: this one was given up "
                    "when another began"
                )
            mine = waiting[number % self._workers]
            while not mine:
                message = next(messages, None)
                if message is None:
                    return
                if isinstance(message, InputError):
                    raise message
                waiting[message[0].worker].extend(message)
            yield self.stream.finish(
                ring.hand_out(mine.popleft(), pin=self._pin), epoch=epoch, batch=first + number
            )

    def _start(self) -> tuple[Ring, DataLoader[Message]]:
        together = max(1, self._prefetch // _MESSAGES)
        messages = -(-self._prefetch // together)
        # A worker is asked for one more message as soon as one arrives, before it is handed out.
        ring = self.stream.ring(workers=self._workers, live=(messages + 1) * together)
        loader = DataLoader(
            _InWorkers(self.stream, ring, together),
            batch_size=None,
            num_workers=self._workers,
            prefetch_factor=messages,
            persistent_workers=self._persistent,
            collate_fn=_as_it_is,
            generator=torch.Generator(),  # else each iteration draws from the caller's
        )
        return ring, loader

    @property
    def epoch(self) -> int:
        """See `ParquetStream.epoch`."""
        return self.stream.epoch

    def set_epoch(self, epoch: int) -> None:
        """See `ParquetStream.set_epoch`; also with persistent workers."""
        self.stream.set_epoch(epoch)

    def seek(self, *, epoch: int, batch: int) -> None:
        """See `ParquetStream.seek`."""
        self.stream.seek(epoch=epoch, batch=batch)

    def state_dict(self) -> dict[str, Any]:
        """The position after the last batch handed out, and the fingerprint."""
        return self.stream.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `ParquetStream.load_state_dict`."""
        self.stream.load_state_dict(state)

    def fingerprint(self) -> dict[str, Any]:
        """See `ParquetStream.fingerprint`."""
        return self.stream.fingerprint()


def make_loader(
    stream: ParquetStream[T],
    *,
    num_workers: int = 0,
    pin_memory: bool = False,
    prefetch: int | None = None,
    persistent: bool = False,
) -> Loader[T]:
    """Read a stream in `num_workers` processes (0: in this one).

    Workers write into shared memory that is used again and again (`mmrec.stream.ring`). A batch
    lies there until the last of its tensors is gone; whoever keeps many gets copies, so a batch
    stays what it was however long it is kept. The stream's `collate` is called in this process.
    Not for streams of `memory://` URLs, which other processes cannot see.

    Args:
        stream: what to read.
        num_workers: processes; the batches and their order stay the same.
        pin_memory: hand out batches in page-locked memory, for copies to a GPU that do not wait;
            without a GPU it changes nothing.
        prefetch: batches that each worker reads ahead; by default as many as fit into 16 MiB,
            2 to 16. Workers decode many batches' rows at a time: reading ahead evens that out.
        persistent: keep the workers between epochs.

    Raises:
        InputError: for numbers that make no sense.
    """
    not_negative(num_workers=num_workers)
    if prefetch is not None:
        positive(prefetch=prefetch)
    return Loader(
        stream,
        num_workers=num_workers,
        pin_memory=pin_memory,
        prefetch=prefetch,
        persistent=persistent and num_workers > 0,
    )


def _as_it_is(message: Message) -> Message:
    return message


def _read_ahead(batch_bytes: int) -> int:
    fit = _READ_AHEAD_BYTES // max(1, batch_bytes)
    return sorted((_LEAST_AHEAD, fit, _MOST_AHEAD))[1]


def _pinned(batch: Any) -> Any:
    """A dict of tensors, or anything that has `pin_memory` itself, in page-locked memory."""
    if isinstance(batch, dict):
        return {name: tensor.pin_memory() for name, tensor in batch.items()}
    return batch.pin_memory() if hasattr(batch, "pin_memory") else batch

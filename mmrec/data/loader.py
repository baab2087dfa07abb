"""`make_loader`: a stream read by worker processes, which knows its position all the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

from torch.utils.data import DataLoader

from mmrec.data.stream import ParquetStream

T = TypeVar("T")


class Loader(Generic[T]):
    """A `torch.utils.data.DataLoader` over a `ParquetStream`, with the stream's position.

    Batches that workers have read ahead do not count: the state is that of the batches handed out.
    """

    def __init__(self, stream: ParquetStream[T], loader: DataLoader[T]) -> None:
        self.stream = stream
        self._loader = loader
        self._next: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.stream)

    def __iter__(self) -> Iterator[T]:
        if self._loader.num_workers:
            self.stream.begin()
        batches = iter(self._loader)
        epoch, first = self.stream.epoch, self.stream.start
        self._next = (epoch, first)
        return self._count(batches, epoch, first)

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

    Args:
        stream: what to read.
        num_workers: processes; the batches and their order stay the same.
        pin_memory: hand out batches in page-locked memory, for copies to a GPU that do not wait.
        prefetch: batches that each worker reads ahead.
        persistent: keep the workers between epochs.
    """
    several: dict[str, Any] = {}
    if num_workers:
        several = {"prefetch_factor": prefetch, "persistent_workers": persistent}
    loader = DataLoader[T](
        stream, batch_size=None, num_workers=num_workers, pin_memory=pin_memory, **several
    )
    return Loader(stream, loader)

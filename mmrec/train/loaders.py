"""What training needs of a loader."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

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

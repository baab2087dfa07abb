"""One shard on its way: what became of each picture, and which vectors each item gets.

Shapes: N items of a shard, U of its distinct contents, B rows of a batch, D width.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmrec.embed.forward import Forward
from mmrec.embed.items import Catalogue
from mmrec.embed.output import write_shard
from mmrec.embed.report import Seconds
from mmrec.errors import InputError
from mmrec.io.pictures import MISSING, NO_IMAGE_SOURCE, OK, Picture, StorageError

Array = np.ndarray[Any, Any]


class Shard:
    """Collects the contents of some items, encodes each distinct one once, writes.

    Args:
        table: all items.
        rows: of the table, those in this shard.
        path: the file to write.
        forwards: through the encoder of each modality; this shard's alone.
        strict: raise at the first picture that cannot be used.
        seconds: where the writing time is added.
    """

    def __init__(
        self,
        table: Catalogue,
        rows: range,
        *,
        path: Path,
        forwards: Mapping[str, Forward],
        strict: bool,
        seconds: Seconds,
    ) -> None:
        self.path, self.rows = path, rows
        self._table, self._forwards, self._strict, self._seconds = table, forwards, strict, seconds
        self._status, self._note = [NO_IMAGE_SOURCE] * len(rows), [""] * len(rows)
        # By modality: distinct contents so far, by digest or value, and which stand in which row.
        self._distinct: dict[str, dict[Any, int]] = {name: {} for name in forwards}
        self._pairs: dict[str, list[tuple[int, int]]] = {name: [] for name in forwards}

    @property
    def encoded(self) -> dict[str, int]:
        """Distinct contents of each modality."""
        return {name: len(distinct) for name, distinct in self._distinct.items()}

    def add_values(self, modality: str, values: Sequence[Any], prepared: Array) -> None:
        """B values, none of which was added before, and what was prepared of them (B, …)."""
        distinct = self._distinct[modality]
        for value in values:
            distinct[value] = len(distinct)
        self._forwards[modality].values(torch.from_numpy(prepared))

    def add_rows(self, modality: str, values: Sequence[Any]) -> None:
        """The value of every row, once all of them were added; others have none."""
        distinct = self._distinct[modality]
        for row, value in enumerate(values):
            if value in distinct:
                self._pairs[modality].append((row, distinct[value]))

    def add_pictures(
        self, modality: str, rows: Sequence[int], pictures: Sequence[Picture[Tensor]]
    ) -> None:
        """Note what became of the pictures of these rows, in order; encode the new ones.

        Of several pictures of an item the status is that of the first that can be used, else of
        the first.

        Raises:
            InputError: for a picture that cannot be used, when strict.
            StorageError: the images folder has gone.
        """
        distinct, pairs = self._distinct[modality], self._pairs[modality]
        for row, picture in zip(rows, pictures, strict=True):
            status = self._missing() if picture.status == MISSING else picture.status
            if self._status[row] == NO_IMAGE_SOURCE or (OK == status != self._status[row]):
                self._status[row], self._note[row] = status, picture.note
            if self._strict and status not in (OK, NO_IMAGE_SOURCE):
                refuse_picture(int(self._table.ids[self.rows[row]]), status, picture.note)
            if picture.pixels is not None:
                if picture.digest not in distinct:
                    distinct[picture.digest] = len(distinct)
                    self._forwards[modality].picture(picture.pixels)
                pairs.append((row, distinct[picture.digest]))

    def _missing(self) -> str:
        """No picture here: because the item has none, or because the folder went away?"""
        images = self._table.images
        if images is not None and not images.exists():
            raise StorageError(
                f"the images folder is no longer there: {images}; finished shards are kept, "
                f"the same command resumes"
            )
        return self._table.without_picture

    def finish(self) -> Callable[[], None]:
        """Start what is left on the device; the result waits for it and writes, in any thread."""
        take = {name: forward.finish() for name, forward in self._forwards.items()}

        def write() -> None:
            found = {
                name: spread(vectors(), self._pairs[name], len(self.rows))
                for name, vectors in take.items()
            }
            with self._seconds.timed("write"):
                write_shard(
                    self.path,
                    self._table.schema,
                    ids=self._table.ids[self.rows.start : self.rows.stop],
                    vectors={name: vectors for name, (vectors, _) in found.items()},
                    present={name: there for name, (_, there) in found.items()},
                    status=self._status,
                    note=self._note,
                )

        return write


def spread(vectors: Array, pairs: Sequence[tuple[int, int]], rows: int) -> tuple[Array, Array]:
    """(U, D) vectors of distinct contents -> (N, D) of items, and which have one, (N,) bool.

    Args:
        pairs: (row, which content); the mean of several, zero where there is none.
        rows: N.

    >>> vectors, there = spread(np.array([[1.0, 2.0], [3.0, 4.0]]), [(0, 1), (2, 0), (2, 1)], 3)
    >>> vectors.tolist(), there.tolist()
    ([[3.0, 4.0], [0.0, 0.0], [2.0, 3.0]], [True, False, True])
    """
    row, content = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    count = np.bincount(row, minlength=rows)
    total = np.zeros((rows, vectors.shape[1]), dtype=np.float32)
    if count.max(initial=0) > 1:
        np.add.at(total, row, vectors[content].astype(np.float32))
        total /= np.maximum(count, 1)[:, None]
    else:
        total[row] = vectors[content]
    return total.astype(vectors.dtype), count > 0


def refuse_picture(item: int, status: str, note: str, count: int = 1) -> None:
    """Raise for an item's picture, the first of `count` that cannot be used."""
    words = f"{status} ({note})" if note else status
    more = f", and {count - 1} more" if count > 1 else ""
    raise InputError(f"every picture must be readable (strict); item {item}: {words}{more}")

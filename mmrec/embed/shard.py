"""One shard on its way: what became of each picture, and which vector each item gets.

Shapes: N items of a shard, U of its distinct pictures or captions, B rows of a batch, D width.
"""

from collections.abc import Callable, Sequence
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
    """Collects the captions and pictures of some items, encodes each distinct one once, writes.

    Args:
        table: all items.
        rows: of the table, those in this shard.
        path: the file to write.
        forward: through the encoder; this shard's alone.
        strict: raise at the first picture that cannot be used.
        seconds: where the writing time is added.
    """

    def __init__(
        self,
        table: Catalogue,
        rows: range,
        *,
        path: Path,
        forward: Forward,
        strict: bool,
        seconds: Seconds,
    ) -> None:
        self.path, self.rows = path, rows
        self._table, self._forward, self._strict, self._seconds = table, forward, strict, seconds
        self._status, self._note = [""] * len(rows), [""] * len(rows)
        self._image_row = np.full(len(rows), -1)  # which distinct picture, -1 for none
        self.pictures: dict[bytes, int] = {}  # distinct ones so far, by digest
        self.captions: dict[str, int] = {}

    def add_captions(self, captions: Sequence[str], tokens: Array) -> None:
        """B captions, none of which was added before, and their tokens (B, T)."""
        for caption in captions:
            self.captions[caption] = len(self.captions)
        self._forward.captions(torch.from_numpy(tokens))

    def add_pictures(self, start: int, pictures: Sequence[Picture[Tensor]]) -> None:
        """Note what became of the pictures of rows `start`, `start` + 1, …; encode the new ones.

        Raises:
            InputError: for a picture that cannot be used, when strict.
            StorageError: the images folder has gone.
        """
        for row, picture in enumerate(pictures, start):
            status = self._missing() if picture.status == MISSING else picture.status
            self._status[row], self._note[row] = status, picture.note
            if self._strict and status not in (OK, NO_IMAGE_SOURCE):
                refuse_picture(int(self._table.ids[self.rows[row]]), status, picture.note)
            if picture.pixels is not None:
                if picture.digest not in self.pictures:
                    self.pictures[picture.digest] = len(self.pictures)
                    self._forward.picture(picture.pixels)
                self._image_row[row] = self.pictures[picture.digest]

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
        take = self._forward.finish()
        captions = self._table.captions[self.rows.start : self.rows.stop]
        text_row = np.array([self.captions.get(caption, -1) for caption in captions])

        def write() -> None:
            image, text = take()
            with self._seconds.timed("write"):
                write_shard(
                    self.path,
                    self._table.schema,
                    ids=self._table.ids[self.rows.start : self.rows.stop],
                    image=spread(image, self._image_row),
                    text=spread(text, text_row),
                    has_image=self._image_row >= 0,
                    has_text=text_row >= 0,
                    status=self._status,
                    note=self._note,
                )

        return write


def spread(vectors: Array, rows: Array) -> Array:
    """(U, D) vectors of distinct contents -> (N, D) vectors of items, zero where there is none.

    >>> spread(np.array([[1, 2], [3, 4]]), np.array([1, -1, 0])).tolist()
    [[3, 4], [0, 0], [1, 2]]
    """
    result = np.zeros((len(rows), vectors.shape[1]), vectors.dtype)
    result[rows >= 0] = vectors[rows[rows >= 0]]
    return result


def refuse_picture(item: int, status: str, note: str, count: int = 1) -> None:
    """Raise for an item's picture, the first of `count` that cannot be used."""
    words = f"{status} ({note})" if note else status
    more = f", and {count - 1} more" if count > 1 else ""
    raise InputError(f"every picture must be readable (strict); item {item}: {words}{more}")

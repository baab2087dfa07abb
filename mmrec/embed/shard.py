"""One shard on its way: what became of each picture, and which vector each item gets.

Shapes: N items of a shard, U of its distinct pictures or captions, B rows of a batch, D width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmrec.embed.forward import Forward
from mmrec.embed.images import MISSING, NO_IMAGE_SOURCE, OK, Picture, StorageError
from mmrec.embed.items import Items
from mmrec.embed.report import Seconds
from mmrec.embed.shards import write_shard
from mmrec.errors import InputError

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
        table: Items,
        rows: range,
        *,
        path: Path,
        forward: Forward,
        strict: bool,
        seconds: Seconds,
    ) -> None:
        self.path = path
        self._table, self._rows, self._forward = table, rows, forward
        self._strict, self._seconds = strict, seconds
        n = len(rows)
        self._status, self._note = [""] * n, [""] * n
        self._image_row = np.full(n, -1)  # which distinct picture, -1 for none
        self._text_row = np.full(n, -1)
        self._seen: dict[bytes, int] = {}
        self._caption_row: dict[str, int] = {}

    @property
    def items(self) -> int:
        return len(self._rows)

    @property
    def pictures(self) -> int:
        """Distinct ones so far."""
        return len(self._seen)

    @property
    def captions(self) -> int:
        """Distinct ones so far."""
        return len(self._caption_row)

    def add_captions(self, rows: Sequence[int], tokens: Array) -> None:
        """(B, T) tokens of B distinct captions; `rows` are their first items in the shard."""
        for row in rows:
            caption = self._table.captions[self._rows.start + row]
            self._caption_row[caption] = len(self._caption_row)
        self._forward.captions(torch.from_numpy(tokens))

    def add_pictures(self, rows: Sequence[int], pictures: Sequence[Picture]) -> None:
        """Note what became of each picture, and encode those not seen before in this shard.

        Raises:
            InputError: for a picture that cannot be used, when strict.
            StorageError: the images folder has gone.
        """
        for row, picture in zip(rows, pictures, strict=True):
            status = picture.status
            if status == MISSING:
                status = self._missing()
            self._status[row], self._note[row] = status, picture.note
            if self._strict and status not in (OK, NO_IMAGE_SOURCE):
                refuse_picture(int(self._table.ids[self._rows.start + row]), status, picture.note)
            if picture.pixels is not None:
                known = self._seen.setdefault(picture.digest, len(self._seen))
                self._image_row[row] = known
                if known == len(self._seen) - 1 and known == self._forward.pictures_in:
                    self._forward.picture(picture.pixels)

    def _missing(self) -> str:
        """No picture here: because the item has none, or because the folder went away?"""
        images = self._table.images
        if self._table.picture_kind == "none":
            return NO_IMAGE_SOURCE
        if images is not None and not images.exists():
            raise StorageError(
                f"the images folder is no longer there: {images}; finished shards are kept, "
                f"the same command goes on from there"
            )
        return MISSING

    def finish(self) -> Callable[[], None]:
        """Start what is left on the device; the result waits for it and writes, in any thread."""
        rows = self._rows
        take = self._forward.finish()
        for row in range(len(rows)):
            caption = self._table.captions[rows.start + row]
            self._text_row[row] = self._caption_row.get(caption, -1)

        def write() -> None:
            image, text = take()
            start = time.perf_counter()
            write_shard(
                self.path,
                ids=self._table.ids[rows.start : rows.stop],
                image=spread(image, self._image_row),
                text=spread(text, self._text_row),
                has_image=self._image_row >= 0,
                has_text=self._text_row >= 0,
                status=self._status,
                note=self._note,
            )
            self._seconds.write += time.perf_counter() - start

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

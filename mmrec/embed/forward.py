"""Pictures or values of one shard through an encoder, in batches, without waiting for it.

Shapes: B rows of a batch, H and W the encoder's input size, U distinct contents of the shard.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmrec.embed.encoder import Encoder, PictureEncoder
from mmrec.embed.preprocess import normalise, resize_batch
from mmrec.embed.report import Seconds
from mmrec.errors import require

_STAGE_BYTES = 1 << 26

Array = np.ndarray[Any, np.dtype[Any]]


class Forward:
    """One modality: collects pictures into batches, or takes batches, and runs the encoder on them.

    On CUDA nothing here waits for the device: pixels go over from pinned memory, vectors come
    back by a copy that the function returned by `finish` waits for, in the writer's thread.

    Args:
        rows: items of the shard, so about as many distinct contents.
        batch_size: pictures in a forward pass.
        dtype: of the vectors that come out.
        seconds: where transfer and forward times are added.
    """

    def __init__(
        self, encoder: Encoder, *, rows: int, batch_size: int, dtype: torch.dtype, seconds: Seconds
    ) -> None:
        self._encoder, self._batch_size, self._seconds = encoder, batch_size, seconds
        self._device = encoder.device
        self._cuda = encoder.device.type == "cuda"
        # Made once: small pieces that stay, between large ones that go, would fragment the heap
        # until it held gigabytes.
        self._vectors = torch.empty((rows, encoder.out_dim), dtype=dtype, device=self._device)
        self.count = 0  # vectors that are there
        self._waiting = 0  # pictures that wait for their batch to be full
        self._staged: list[tuple[Tensor, list[torch.Size]]] = []  # pixels end to end, and shapes
        self._used = 0  # bytes of the last of these
        self._marks: list[tuple[str, Any, Any]] = []

    def picture(self, pixels: Tensor) -> None:
        """(3, h, w) uint8, of any size; copied, so the caller may reuse its memory."""
        size = pixels.numel()
        if not self._staged or self._used + size > len(self._staged[-1][0]):
            room = max(size, min(_STAGE_BYTES, self._batch_size * size))
            buffer = torch.empty(room, dtype=torch.uint8, pin_memory=self._cuda)
            self._staged.append((buffer, []))
            self._used = 0
        buffer, shapes = self._staged[-1]
        buffer[self._used : self._used + size].view(pixels.shape).copy_(pixels)
        shapes.append(pixels.shape)
        self._used += size
        self._waiting += 1
        if self._waiting == self._batch_size:
            self._flush()

    def values(self, batch: Tensor) -> None:
        """What `ValueEncoder.prepare` gave."""
        with self._timed("forward"), torch.inference_mode():
            self._keep(self._encoder.encode(batch), len(batch))

    def finish(self) -> Callable[[], Array]:
        """Run what is left; the result gives (U, out_dim), once it is there."""
        self._flush()
        vectors = self._vectors[: self.count]
        if not self._cuda:
            return vectors.numpy
        back = torch.empty(vectors.shape, dtype=vectors.dtype, pin_memory=True)
        back.copy_(vectors, non_blocking=True)
        ready = self._event()

        def take() -> Array:
            ready.synchronize()
            for name, start, stop in self._marks:
                self._seconds.add(name, start.elapsed_time(stop) / 1000)
            return back.numpy()

        return take

    def _keep(self, vectors: Tensor, rows: int) -> None:
        wanted, given = (rows, self._encoder.out_dim), getattr(vectors, "shape", None)
        require(
            given == wanted,
            f"encode of {self._encoder.name} gives vectors of shape {wanted} for a batch of "
            f"{rows} (its out_dim is {wanted[1]}), got "
            f"{type(vectors).__name__ if given is None else tuple(given)}",
        )
        done = self.count + len(vectors)
        if done > len(self._vectors):  # items with several pictures
            more = max(done, 2 * len(self._vectors)) - len(self._vectors)
            self._vectors = torch.cat(
                [self._vectors, self._vectors.new_empty(more, vectors.shape[1])]
            )
        self._vectors[self.count : done] = vectors
        self.count = done

    def _flush(self) -> None:
        if not self._waiting or not isinstance(self._encoder, PictureEncoder):
            return
        preprocessing = self._encoder.preprocessing
        with torch.inference_mode():
            with self._timed("transfer"):
                pictures = self._to_device()
                ready = all(picture.shape[1:] == preprocessing.size for picture in pictures)
                pixels = torch.stack(pictures) if ready else resize_batch(pictures, preprocessing)
                pixels = normalise(pixels, preprocessing)
            with self._timed("forward"):
                self._keep(self._encoder.encode(pixels), len(pixels))
        self._waiting, self._used = 0, 0
        # On CUDA new buffers for the next batch: these may still be on their way.
        self._staged = [] if self._cuda else [(buffer, []) for buffer, _ in self._staged[:1]]

    def _to_device(self) -> list[Tensor]:
        """A few large transfers for the whole batch, whatever the sizes in it."""
        pictures = []
        for buffer, shapes in self._staged:
            sizes = [shape.numel() for shape in shapes]
            there = buffer[: sum(sizes)].to(self._device, non_blocking=True)
            parts = zip(torch.split(there, sizes), shapes, strict=True)
            pictures += [part.view(shape) for part, shape in parts]
        return pictures

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        """Adds a block's time to `Seconds`: by events on CUDA, by the clock elsewhere."""
        if self._cuda:
            start = self._event()
            yield
            self._marks.append((name, start, self._event()))
        else:
            with self._seconds.timed(name):
                yield

    def _event(self) -> Any:
        """A CUDA event, recorded now on the device's current stream."""
        cuda: Any = torch.cuda
        event = cuda.Event(enable_timing=True)
        event.record(cuda.current_stream(self._device))
        return event


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """So many torch threads within the block, None for as many as there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

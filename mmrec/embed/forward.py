"""Pictures and tokens of one shard through the encoder, in batches, without waiting for it.

Shapes: B rows of a batch, H and W the encoder's input size, U distinct pictures of the shard.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmrec.embed.encoder import Encoder
from mmrec.embed.preprocess import fit_batch, normalise
from mmrec.embed.report import Seconds

_STAGE_BYTES = 1 << 26

Array = np.ndarray[Any, np.dtype[Any]]


class Forward:
    """Collects pictures into batches and runs the encoder on them.

    On CUDA nothing here waits for the device: pixels go over from pinned memory, vectors come
    back by a copy that the function returned by `finish` waits for, in the writer's thread.

    Args:
        batch_size: pictures in a forward pass.
        dtype: of the vectors that come out.
        seconds: where transfer and forward times are added.
    """

    def __init__(
        self, encoder: Encoder, batch_size: int, dtype: torch.dtype, seconds: Seconds
    ) -> None:
        self._encoder, self._batch_size, self._dtype = encoder, batch_size, dtype
        self._seconds = seconds
        self._cuda = encoder.device.type == "cuda"
        self._staged: list[Tensor] = []  # buffers of pixels, and how much of each is used
        self._used: list[int] = []
        self._shapes: list[list[torch.Size]] = []  # of the pictures in each buffer
        self._waiting = 0
        self._image: list[Tensor] = []
        self._text: list[Tensor] = []
        self._marks: list[tuple[str, Any, Any]] = []
        self.pictures_in = 0

    def picture(self, pixels: Tensor) -> None:
        """(3, h, w) uint8, of any size; copied, so the caller may reuse its memory."""
        size = pixels.numel()
        if not self._staged or self._used[-1] + size > len(self._staged[-1]):
            room = max(size, min(_STAGE_BYTES, self._batch_size * size))
            self._staged.append(torch.empty(room, dtype=torch.uint8, pin_memory=self._cuda))
            self._used.append(0)
            self._shapes.append([])
        start = self._used[-1]
        self._staged[-1][start : start + size].view(pixels.shape).copy_(pixels)
        self._used[-1] += size
        self._shapes[-1].append(pixels.shape)
        self._waiting += 1
        self.pictures_in += 1
        if self._waiting == self._batch_size:
            self._flush()

    def captions(self, tokens: Tensor) -> None:
        """(B, T) int64."""
        with self._timed("forward"), torch.inference_mode():
            self._text.append(self._encoder.encode_text(tokens).to(self._dtype))

    def finish(self) -> Callable[[], tuple[Array, Array]]:
        """Run what is left; the result gives ((U, image_dim), (U', text_dim)), once it is there."""
        self._flush()
        image = self._join(self._image, self._encoder.image_dim)
        text = self._join(self._text, self._encoder.text_dim)
        if not self._cuda:
            return lambda: (image.numpy(), text.numpy())
        back = [torch.empty(x.shape, dtype=x.dtype, pin_memory=True) for x in (image, text)]
        for target, source in zip(back, (image, text), strict=True):
            target.copy_(source, non_blocking=True)
        ready = _event(self._encoder.device)
        marks = self._marks

        def take() -> tuple[Array, Array]:
            ready.synchronize()
            for name, start, stop in marks:
                elapsed = start.elapsed_time(stop) / 1000
                setattr(self._seconds, name, getattr(self._seconds, name) + elapsed)
            return back[0].numpy(), back[1].numpy()

        return take

    def _flush(self) -> None:
        if not self._waiting:
            return
        preprocessing, device = self._encoder.preprocessing, self._encoder.device
        with torch.inference_mode():
            with self._timed("transfer"):
                pictures = self._to_device(device)
                size = preprocessing.size
                ready = all(picture.shape[1:] == size for picture in pictures)
                pixels = torch.stack(pictures) if ready else fit_batch(pictures, preprocessing)
                pixels = normalise(pixels, preprocessing)
            with self._timed("forward"):
                self._image.append(self._encoder.encode_image(pixels).to(self._dtype))
        # New buffers for the next batch: these may still be on their way.
        self._staged, self._used, self._shapes, self._waiting = [], [], [], 0

    def _to_device(self, device: torch.device) -> list[Tensor]:
        """A few large transfers for the whole batch, whatever the sizes in it."""
        pictures = []
        for buffer, used, shapes in zip(self._staged, self._used, self._shapes, strict=True):
            there = buffer[:used].to(device, non_blocking=True)
            parts = torch.split(there, [shape.numel() for shape in shapes])
            pictures += [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
        return pictures

    def _join(self, parts: list[Tensor], width: int) -> Tensor:
        if parts:
            return torch.cat(parts)
        return torch.empty((0, width), dtype=self._dtype, device=self._encoder.device)

    def _timed(self, name: str) -> _Timed:
        return _Timed(self, name)


class _Timed:
    """Adds a block's time to `Seconds`: by events on CUDA, by the clock elsewhere."""

    def __init__(self, forward: Forward, name: str) -> None:
        self._forward, self._name = forward, name

    def __enter__(self) -> None:
        if self._forward._cuda:
            self._start = _event(self._forward._encoder.device)
        else:
            self._clock = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        seconds, name = self._forward._seconds, self._name
        if self._forward._cuda:
            stop = _event(self._forward._encoder.device)
            self._forward._marks.append((name, self._start, stop))
        else:
            elapsed = time.perf_counter() - self._clock
            setattr(seconds, name, getattr(seconds, name) + elapsed)


def _event(device: torch.device) -> Any:
    """A CUDA event, recorded now on the device's current stream."""
    cuda: Any = torch.cuda
    event = cuda.Event(enable_timing=True)
    event.record(cuda.current_stream(device))
    return event

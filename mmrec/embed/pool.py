"""Decoding in worker processes, in order, with bounded memory, surviving what kills a worker.

Pixels come back through one shared, anonymous memory map that is divided into slots: no copies
through pipes, no /dev/shm (64 MB in many containers), nothing left behind by `kill -9`.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmrec.embed.preprocess import ReadOptions, read_picture
from mmrec.errors import InputError
from mmrec.io.pictures import CRASHED, Picture

TASK_PICTURES = 16  # at most, in one task
AHEAD = 3  # tasks for each worker that are decoded, being decoded or waiting

Prepare = Callable[[Sequence[Any]], Tensor]


@dataclass(frozen=True)
class Reading:
    """How each modality's tasks are done: pictures by their options, values by a function."""

    pictures: Mapping[str, ReadOptions]
    values: Mapping[str, Prepare]


@dataclass(frozen=True)
class Task:
    """Values to prepare, or pictures to decode.

    Attributes:
        modality: whose.
        values: of any items of a shard, or
        sources: pictures of items of a shard, in order, in its rows `rows`.
        shard: its number.
        last: whether it is the last task of its shard.
    """

    modality: str = ""
    values: Sequence[Any] = ()
    sources: Sequence[str | bytes | None] = ()
    rows: Sequence[int] = ()
    shard: int = 0
    last: bool = False


@dataclass(frozen=True)
class Done:
    """What came of a task. Pixels are views that are valid until the next result is asked for."""

    prepared: np.ndarray[Any, Any] | None = None
    pictures: Sequence[Picture[Any]] = ()
    seconds: float = 0.0


class DecodePool:
    """Runs tasks in `workers` processes (0: in this one) and yields results in order.

    A worker that dies (a decoder that crashes, the kernel's out-of-memory killer) costs a new
    pool; the picture that does it again when alone gets the status "crashed the decoder".
    """

    def __init__(self, reading: Reading, *, workers: int) -> None:
        self._reading = reading
        # Forking shares the tokenizer and costs milliseconds; elsewhere everything runs here.
        self._workers = workers if sys.platform.startswith("linux") else 0
        largest = max((_most_pixels(options) for options in reading.pictures.values()), default=1)
        self._slot_bytes = TASK_PICTURES * 3 * largest
        if self._workers:
            # Kept by the tensor; unmapped when both are gone.
            self._map = mmap.mmap(-1, AHEAD * self._workers * self._slot_bytes)
            self._shared = torch.frombuffer(self._map, dtype=torch.uint8)
            self._executor = self._start(self._workers)

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the workers after the task each is at."""
        if self._workers:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def run(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Done]]:
        """Each task with its result, in their order, decoding ahead of the consumer."""
        if not self._workers:
            for task in tasks:
                yield task, _work(task, self._reading)
            return
        free = deque(slot * self._slot_bytes for slot in range(AHEAD * self._workers))
        under_way: deque[tuple[Task, int, ProcessPoolExecutor, Future[Done]]] = deque()
        source = iter(tasks)
        while True:
            while free and (following := next(source, None)) is not None:
                offset = free.popleft()
                future = self._submit(following, offset)
                under_way.append((following, offset, self._executor, future))
            if not under_way:
                return
            task, offset, executor, future = under_way.popleft()
            try:
                done = future.result()
            except BrokenProcessPool:  # all that was under way died with it, and comes here too
                self._replace(executor)
                done = self._alone(task, offset)
            yield task, self._with_pixels(done, offset)
            free.append(offset)  # the consumer is back for more: it has done with the views

    def _submit(self, task: Task, offset: int) -> Future[Done]:
        try:
            return self._executor.submit(_run, task, offset)
        except BrokenProcessPool:
            self._replace(self._executor)
            return self._executor.submit(_run, task, offset)

    def _replace(self, broken: ProcessPoolExecutor) -> None:
        """New workers, once all of the old have ended, which may still write into their slots."""
        if broken is self._executor:
            broken.shutdown()
            self._executor = self._start(self._workers)

    def _alone(self, task: Task, offset: int) -> Done:
        """Run a task with nothing beside it, then, if it kills its worker, each half of it."""
        if not task.sources:
            return _work(task, self._reading)
        with self._start(1) as executor:
            try:
                return executor.submit(_run, task, offset).result()
            except BrokenProcessPool:
                if len(task.sources) == 1:
                    return Done(pictures=[Picture(CRASHED, "the process that decoded it died")])
        half = len(task.sources) // 2
        first = self._alone(replace(task, sources=task.sources[:half]), offset)
        offset += sum(prod(p.pixels) for p in first.pictures if p.pixels is not None)
        second = self._alone(replace(task, sources=task.sources[half:]), offset)
        return Done(
            pictures=[*first.pictures, *second.pictures], seconds=first.seconds + second.seconds
        )

    def _with_pixels(self, done: Done, offset: int) -> Done:
        """Views of the shared memory in place of the shapes that a worker sent."""
        pictures = []
        for picture in done.pictures:
            if picture.pixels is not None:
                shape, size = picture.pixels, prod(picture.pixels)
                picture = replace(picture, pixels=self._shared[offset : offset + size].view(shape))
                offset += size
            pictures.append(picture)
        return replace(done, pictures=pictures)

    def _start(self, workers: int) -> ProcessPoolExecutor:
        executor = ProcessPoolExecutor(
            max_workers=workers,
            mp_context=multiprocessing.get_context("fork"),
            initializer=_enter,
            initargs=(self._reading, self._shared, os.getpid()),
        )
        with warnings.catch_warnings():
            # Python 3.12 warns of forking beside threads; the workers touch neither the device
            # nor torch's thread pool.
            warnings.simplefilter("ignore", DeprecationWarning)
            executor.submit(os.getpid).result()
        return executor


_here: tuple[Reading, Tensor]


def _most_pixels(options: ReadOptions) -> int:
    """Of a picture that travels."""
    unresized = 0 if options.resize_here else options.device_pixels
    return max(prod(options.preprocessing.size), unresized)


def _enter(reading: Reading, shared: Tensor, parent: int) -> None:
    """Set up a worker: one thread, deaf to Ctrl-C, gone when its parent is."""
    global _here
    _here = (reading, shared)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run(task: Task, offset: int) -> Done:
    """In a worker: pixels go to the shared memory from `offset` on, their shapes travel back."""
    reading, shared = _here
    done = _work(task, reading)
    pictures = []
    for picture in done.pictures:
        if picture.pixels is not None:
            shape, size = tuple(picture.pixels.shape), picture.pixels.numel()
            shared[offset : offset + size].view(shape).copy_(picture.pixels)
            picture = replace(picture, pixels=shape)
            offset += size
        pictures.append(picture)
    return replace(done, pictures=pictures)


def _work(task: Task, reading: Reading) -> Done:
    start = time.perf_counter()
    if task.values:
        prepared: object = reading.values[task.modality](task.values)
        if not isinstance(prepared, Tensor) or prepared.shape[:1] != (len(task.values),):
            raise InputError(
                f"prepare of the encoder of {task.modality} gives a tensor with a row for each of "
                f"its {len(task.values)} values, got {type(prepared).__name__}"
                + (f" of shape {tuple(prepared.shape)}" if isinstance(prepared, Tensor) else "")
            )
        return Done(prepared=prepared.numpy(), seconds=time.perf_counter() - start)
    pictures = [read_picture(s, reading.pictures[task.modality]) for s in task.sources]
    return Done(pictures=pictures, seconds=time.perf_counter() - start)

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
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmrec.embed.images import CRASHED, Picture, ReadOptions, read_picture

CHUNK = 16  # pictures in one task
AHEAD = 3  # tasks for each worker that are decoded, being decoded or waiting


@dataclass(frozen=True)
class Task:
    """Pictures to decode, or captions to tokenize; `tag` is the caller's and comes back."""

    tag: object
    sources: Sequence[str | bytes | None] = ()
    captions: Sequence[str] = ()


@dataclass(frozen=True)
class Done:
    """A finished task. `pictures` hold views that are valid until the next one is asked for."""

    tag: object
    pictures: Sequence[Picture] = ()
    tokens: np.ndarray[Any, np.dtype[np.int64]] | None = None
    seconds: float = 0.0


Tokenize = Callable[[Sequence[str]], Tensor]


class DecodePool:
    """Runs tasks in `workers` processes (0: in this one) and yields results in order.

    A worker that dies (a decoder that crashes, the kernel's out-of-memory killer) costs a new
    pool; the picture that does it again when alone gets the status "crashed the decoder".
    """

    def __init__(self, *, options: ReadOptions, tokenize: Tokenize, workers: int) -> None:
        self._options, self._tokenize = options, tokenize
        # Forking shares the tokenizer and costs milliseconds; elsewhere everything runs here.
        self.workers = workers if sys.platform.startswith("linux") else 0
        height, width = options.preprocessing.size
        largest = height * width if options.fit_here else options.device_pixels
        self._slot_bytes = CHUNK * 3 * max(height * width, largest)
        self._slots = AHEAD * self.workers
        self._arena: Tensor | None = None
        self._executor: ProcessPoolExecutor | None = None
        if self.workers:
            # Kept by the tensor; unmapped when both are gone.
            self._map = mmap.mmap(-1, self._slots * self._slot_bytes)
            self._arena = torch.frombuffer(self._map, dtype=torch.uint8)
            self._start()

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the workers after the task each is at."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None

    def run(self, tasks: Iterable[Task]) -> Iterator[Done]:
        """Results in the order of `tasks`, decoding ahead of the consumer."""
        if not self.workers:
            for task in tasks:
                yield _work(task, self._options, self._tokenize)
            return
        free = deque(range(self._slots))
        flying: deque[tuple[Task, int, Future[Done]]] = deque()
        source = iter(tasks)
        while True:
            while free:
                following = next(source, None)
                if following is None:
                    break
                slot = free.popleft()
                flying.append((following, slot, self._submit(following, slot)))
            if not flying:
                return
            task, slot, future = flying.popleft()
            try:
                done = future.result()
            except BrokenProcessPool:
                done = self._alone(task, slot)
                # Everything else that was under way died with the pool.
                again = [(t, s, f) for t, s, f in flying]
                flying.clear()
                for t, s, f in again:
                    flying.append((t, s, f if _finished(f) else self._carefully(t, s)))
            yield self._attach(done, slot)
            free.append(slot)  # the consumer is back for more: it has done with the views

    def _submit(self, task: Task, slot: int) -> Future[Done]:
        assert self._executor is not None
        try:
            return self._executor.submit(_run, task, slot * self._slot_bytes)
        except BrokenProcessPool as error:
            failed: Future[Done] = Future()
            failed.set_exception(error)
            return failed

    def _carefully(self, task: Task, slot: int) -> Future[Done]:
        settled: Future[Done] = Future()
        settled.set_result(self._alone(task, slot))
        return settled

    def _alone(self, task: Task, slot: int) -> Done:
        """Run one task with nothing beside it, then, if it kills its worker, picture by picture."""
        self._start()
        assert self._executor is not None
        try:
            return self._executor.submit(_run, task, slot * self._slot_bytes).result()
        except BrokenProcessPool:
            self._start()
        if task.captions:
            return _work(task, self._options, self._tokenize)
        pictures: list[Picture] = []
        offset, seconds = slot * self._slot_bytes, 0.0
        for source in task.sources:
            single = Task(tag=task.tag, sources=[source])
            try:
                done = self._executor.submit(_run, single, offset).result()
            except BrokenProcessPool:
                self._start()
                pictures.append(Picture(CRASHED, "the process that decoded it died"))
                continue
            offset += sum(prod(p.shape) for p in done.pictures if p.shape is not None)
            seconds += done.seconds
            pictures += done.pictures
        return Done(tag=task.tag, pictures=pictures, seconds=seconds)

    def _attach(self, done: Done, slot: int) -> Done:
        """Turn the shapes that a worker sent into views of the shared memory."""
        assert self._arena is not None
        offset, pictures = slot * self._slot_bytes, []
        for picture in done.pictures:
            if picture.shape is not None:
                size = prod(picture.shape)
                view = self._arena[offset : offset + size].view(picture.shape)
                picture = replace(picture, pixels=view)
                offset += size
            pictures.append(picture)
        return replace(done, pictures=pictures)

    def _start(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
        assert self._arena is not None
        context = multiprocessing.get_context("fork")
        self._executor = ProcessPoolExecutor(
            max_workers=self.workers,
            mp_context=context,
            initializer=_enter,
            initargs=(self._options, self._tokenize, self._arena, os.getpid()),
        )
        with warnings.catch_warnings():
            # Python 3.12 warns of forking beside threads; the workers touch neither the device
            # nor torch's thread pool.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._executor.submit(os.getpid).result()


def _finished(future: Future[Done]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


_here: tuple[ReadOptions, Tokenize, Tensor]


def _enter(options: ReadOptions, tokenize: Tokenize, arena: Tensor, parent: int) -> None:
    """Set up a worker: one thread, deaf to Ctrl-C, gone when its parent is."""
    global _here
    _here = (options, tokenize, arena)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run(task: Task, offset: int) -> Done:
    """In a worker: pixels go to the shared memory from `offset` on, all else travels back."""
    options, tokenize, arena = _here
    done = _work(task, options, tokenize)
    pictures = []
    for picture in done.pictures:
        if picture.pixels is not None:
            shape, size = tuple(picture.pixels.shape), picture.pixels.numel()
            arena[offset : offset + size].view(shape).copy_(picture.pixels)
            picture = replace(picture, pixels=None, shape=shape)
            offset += size
        pictures.append(picture)
    return replace(done, pictures=pictures)


def _work(task: Task, options: ReadOptions, tokenize: Tokenize) -> Done:
    start = time.perf_counter()
    if task.captions:
        tokens = tokenize(task.captions).numpy()
        return Done(tag=task.tag, tokens=tokens, seconds=time.perf_counter() - start)
    pictures = [read_picture(source, options) for source in task.sources]
    return Done(tag=task.tag, pictures=pictures, seconds=time.perf_counter() - start)

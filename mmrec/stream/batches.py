"""From lanes to batches: windows decoded ahead into reused buffers, batches gathered from them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from torch import Tensor

from mmrec.errors import InputError
from mmrec.stream.decode import Array
from mmrec.stream.partition import READ_AHEAD, Ints, Plan, Take
from mmrec.stream.rows import Buffers, Reads, RowReader, Table


@dataclass(frozen=True)
class Reader:
    """One of the processes that share an epoch.

    Attributes:
        rank, world_size: which slice of each global batch.
        first, step: which batches: first, first + step, …
        threads: that decode ahead; with 0 each batch decodes some rows ahead.
    """

    rank: int
    world_size: int
    first: int
    step: int
    threads: int


@dataclass(frozen=True)
class _Loaded:
    """A decoded window: where in the pool its rows lie, in the order of use."""

    window: int
    start: int
    slot: int
    index: Ints


class _Loading:
    """A window that is decoded ahead by the one thread there is, some rows with each batch."""

    def __init__(self, steps: Generator[int, None, _Loaded]) -> None:
        self._steps = steps
        self._loaded: _Loaded | None = None
        self._error: InputError | None = None
        self._rows = 0.0  # that may be decoded

    def advance(self, rows: float) -> None:
        """Decode `rows` rows more, on average; an error waits for whoever needs the window."""
        self._rows += rows
        while self._rows > 0 and self._loaded is None and self._error is None:
            try:
                self._rows -= next(self._steps)
            except StopIteration as stop:
                self._loaded = stop.value
            except InputError as error:
                self._error = error

    def result(self) -> _Loaded:
        """The window, the rest of it decoded now."""
        self.advance(math.inf)
        if self._error is not None:
            raise self._error
        assert self._loaded is not None
        return self._loaded


def read_batches(
    table: Table,
    plan: Plan,
    reader: Reader,
    reads: Reads,
    buffers: Buffers,
    empty: Callable[[int], dict[str, Tensor]],
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Yield (number of the global batch, its slice for this reader).

    `empty` is asked for each batch's tensors, to be filled, with the number of its rows.
    """
    work = _Work(table, plan, reader, buffers)
    try:
        for batch in range(reader.first, plan.num_batches, reader.step):
            start, stop = plan.slice_of(batch, reader.rank, reader.world_size)
            yield batch, work.gather(batch, empty(stop - start))
    finally:
        work.close(reads)


class _Work:
    """The windows of the lanes that this reader needs, the next ones being decoded.

    The pool holds one slot a lane, and one for each window that is being decoded: one a thread,
    and one without threads. A slot is a window's rows of every column.
    """

    def __init__(self, table: Table, plan: Plan, reader: Reader, buffers: Buffers) -> None:
        self._table, self._plan, self._reader = table, plan, reader
        mains = range(reader.first, plan.first_tail_batch, reader.step)
        tails = [b for b in range(reader.first, plan.num_batches, reader.step) if b not in mains]
        lanes = {t.lane for b in islice(mains, plan.times) for t in self._takes(b)}
        self._tail_lanes = {t.lane for b in tails for t in self._takes(b)}
        # A lane's windows are decoded one after the other, so more threads than lanes are idle.
        self._threads = min(reader.threads, len(lanes), READ_AHEAD)
        self._at_once = max(1, self._threads)
        slots = len(lanes) + self._at_once
        self._slot_rows = max((plan.longest_window(lane) for lane in lanes), default=0)
        self._buffers = buffers
        self._pool = buffers.take(table, slots * self._slot_rows)
        self._free = list(range(slots))
        self._planned: deque[list[Take]] = deque()  # of batches from the next one on
        self._loads = self._schedule(mains)
        self._following = next(self._loads, None)
        self._ahead: deque[tuple[int, int, Future[_Loaded] | _Loading]] = deque()
        self._current: dict[int, _Loaded] = {}
        self._tails: dict[int, tuple[dict[str, Array], Ints]] = {}
        self._readers: dict[int, RowReader] = {}
        self._used_readers: list[RowReader] = []
        self._scratch: dict[str, Array] = {}
        # Its threads are no daemons: the interpreter waits for them when it ends.
        self._executor = ThreadPoolExecutor(self._threads, "mmrec-read") if self._threads else None
        self._load_ahead()

    def close(self, reads: Reads) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
        for reader in self._used_readers:
            reads.row_groups += reader.reads.row_groups
            reads.rows += reader.reads.rows
            reader.close()
        self._buffers.give_back(self._pool)

    def _takes(self, batch: int) -> list[Take]:
        bounds = self._plan.slice_of(batch, self._reader.rank, self._reader.world_size)
        return self._plan.takes(batch, *bounds)

    # Loading

    def _schedule(self, batches: range) -> Iterator[tuple[int, int]]:
        """Every (lane, window) in the order in which the batches first need them."""
        current: dict[int, int] = {}
        for batch in batches:
            takes = self._takes(batch)
            self._planned.append(takes)
            for lane, _, first, count in takes:
                last = self._plan.window_of(lane, first + count - 1)
                if current.get(lane) == last:
                    continue
                for window in range(self._plan.window_of(lane, first), last + 1):
                    if current.get(lane) != window:
                        current[lane] = window
                        yield lane, window

    def _load_ahead(self) -> None:
        """Begin to decode the windows that are needed next, as far as there are slots."""
        while (
            self._free
            and self._following is not None
            and len(self._ahead) < self._at_once
            and all(lane != self._following[0] for lane, _, _ in self._ahead)
        ):
            lane, window = self._following
            steps = self._steps(lane, window, self._free.pop())
            loading: Future[_Loaded] | _Loading = _Loading(steps)
            if self._executor is not None:
                loading = self._executor.submit(loading.result)
            self._ahead.append((lane, window, loading))
            self._following = next(self._loads, None)

    def _advance(self, rows: int) -> None:
        """Without threads: decode some rows ahead, so that no batch waits for a whole window.

        Lanes need their next windows at uneven times, at least half the mean distance apart: hence
        twice as many rows as were used.
        """
        for _, _, loading in self._ahead:
            if isinstance(loading, _Loading):
                loading.advance(2 * rows)

    def _steps(self, lane: int, window: int, slot: int) -> Generator[int, None, _Loaded]:
        """Decode one window into a slot (in a thread; never two of one lane at a time)."""
        plan = self._plan
        if lane not in self._readers:
            self._readers[lane] = self._new_reader()
            if lane in self._tail_lanes and plan.spec.shuffle and window == 0:
                # The tail lies before the window, in the same row group: no second reading.
                self._tails[lane] = self._read_tail(lane, self._readers[lane])
        start, stop = plan.window_bounds(lane, window)
        base = slot * self._slot_rows
        pieces = plan.pieces(lane, False, start, stop - start)
        yield from self._readers[lane].steps(pieces, self._pool, base)
        if stop == plan.main_rows[lane] and plan.spec.shuffle:
            self._readers[lane].close()
        return _Loaded(window, start, slot, plan.window_order(lane, window) + base)

    def _new_reader(self, fragment: int | None = None) -> RowReader:
        """A reader; with `fragment`, one for the first rows of a row group."""
        reader = RowReader(self._table, fragment=fragment, prefix=fragment is not None)
        self._used_readers.append(reader)
        return reader

    def _read_tail(self, lane: int, reader: RowReader) -> tuple[dict[str, Array], Ints]:
        rows = self._plan.tail_rows[lane]
        blocks = self._table.blocks(rows)
        reader.read(self._plan.pieces(lane, True, 0, rows), blocks)
        return blocks, self._plan.tail_order(lane)

    def _fetch_tail(self, lane: int) -> tuple[dict[str, Array], Ints]:
        """A tail that this reader did not pass by: read the first rows of its lane."""
        reader = self._readers.get(lane)
        if reader is None or self._plan.spec.shuffle:
            first = next(self._plan.pieces(lane, True, 0, self._plan.tail_rows[lane]))
            reader = self._new_reader(min(self._table.fragment_rows(), first.stop))
        return self._read_tail(lane, reader)

    # Gathering

    def gather(self, batch: int, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Fill the tensors with this reader's slice of a global batch."""
        plan = self._plan
        out = _Out(tensors, self._scratch)
        parts: list[Ints] = []
        takes = self._planned.popleft() if self._planned else self._takes(batch)
        for lane, tail, first, count in takes:
            if tail:
                if lane not in self._tails:
                    self._tails[lane] = self._fetch_tail(lane)
                blocks, order = self._tails[lane]
                out.fill(blocks, order[first : first + count])
                continue
            while count:
                window = plan.window_of(lane, first)
                loaded = self._current.get(lane)
                if loaded is None or loaded.window != window:
                    self._flush(out, parts)
                    loaded = self._switch(lane, window)
                index = loaded.index[first - loaded.start : first - loaded.start + count]
                parts.append(index)
                first += len(index)
                count -= len(index)
        self._flush(out, parts)
        self._advance(len(out.tensors["row"]))
        return out.tensors

    def _flush(self, out: _Out, parts: list[Ints]) -> None:
        if parts:
            out.fill(self._pool, np.concatenate(parts) if len(parts) > 1 else parts[0])
            parts.clear()

    def _switch(self, lane: int, window: int) -> _Loaded:
        """Give the lane's old slot back and take the window that was decoded ahead."""
        old = self._current.pop(lane, None)
        if old is not None:
            self._free.append(old.slot)
        self._load_ahead()
        expected_lane, expected_window, loading = self._ahead.popleft()
        if (expected_lane, expected_window) != (lane, window):
            raise RuntimeError("windows are decoded in another order than they are used")
        loaded = loading.result()
        self._current[lane] = loaded
        self._load_ahead()
        return loaded


class _Out:
    """The tensors of one batch while they are being filled."""

    def __init__(self, tensors: dict[str, Tensor], scratch: dict[str, Array]) -> None:
        self._rows, self._filled, self._scratch = len(tensors["row"]), 0, scratch
        self.tensors = tensors
        self._arrays = {name: tensor.numpy() for name, tensor in self.tensors.items()}

    def fill(self, blocks: dict[str, Array], index: Ints) -> None:
        """Append the rows `index` of the blocks."""
        start, stop = self._filled, self._filled + len(index)
        for name, array in self._arrays.items():
            block, target = blocks[name], array[start:stop]
            # mode="clip": numpy buffers `out` in the other modes; the indices are valid anyway.
            if block.dtype == target.dtype:
                block.take(index, axis=0, out=target, mode="clip")
            else:
                scratch = self._scratch_for(name, block)[: len(index)]
                block.take(index, axis=0, out=scratch, mode="clip")
                target[...] = scratch
        self._filled = stop

    def _scratch_for(self, name: str, block: Array) -> Array:
        scratch = self._scratch.get(name)
        if scratch is None or len(scratch) < self._rows:
            scratch = np.empty((self._rows, *block.shape[1:]), dtype=block.dtype)
            self._scratch[name] = scratch
        return scratch

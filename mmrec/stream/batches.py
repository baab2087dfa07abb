"""From lanes to batches: windows decoded ahead into reused arrays, batches gathered from them."""

import math
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import numpy as np
from torch import Tensor

from mmrec.errors import InputError
from mmrec.io.parquet import Array, Ints
from mmrec.stream.partition import READ_AHEAD, LaneRows, Plan
from mmrec.stream.rows import RowGroups, RowReader

Arrays = dict[str, Array]


@dataclass(frozen=True)
class Reader:
    """One of the processes that share an epoch.

    Attributes:
        rank, world_size: which part of each global batch.
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
    """A decoded window: its first row in the lane, and where in the pool its rows lie.

    `base` is the first place in the pool that the window may use; `index` has the place of each
    row in the order of use.
    """

    window: int
    start: int
    base: int
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
    groups: RowGroups,
    plan: Plan,
    reader: Reader,
    spare: list[Arrays],
    empty: Callable[[int], dict[str, Tensor]],
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Yield (number of the global batch, this reader's part of it).

    Args:
        groups: what to read.
        plan: the epoch's order.
        reader: which batches, and which part of each.
        spare: arrays of an earlier epoch, to be used again; those of this one are left in it.
        empty: asked for each batch's tensors, to be filled, with the number of its rows.
    """
    work = _Work(groups, plan, reader, spare)
    try:
        for batch in range(reader.first, plan.num_batches, reader.step):
            yield batch, work.gather(batch, empty)
    finally:
        work.close()


class _Work:
    """The windows of the lanes that this reader needs, the next ones being decoded.

    The pool has room for a window of each lane, and for one that is being decoded in each thread
    (without threads, for one).
    """

    def __init__(self, groups: RowGroups, plan: Plan, reader: Reader, spare: list[Arrays]) -> None:
        self._groups, self._plan, self._reader, self._spare = groups, plan, reader, spare
        mains = range(reader.first, plan.first_tail_batch, reader.step)
        tails = [b for b in range(reader.first, plan.num_batches, reader.step) if b not in mains]
        lanes = {rows.lane for b in islice(mains, plan.times) for rows in self._lane_rows(b)}
        self._tail_lanes = {rows.lane for b in tails for rows in self._lane_rows(b)}
        # A lane's windows are decoded one after the other, so more threads than lanes are idle.
        threads = min(reader.threads, len(lanes), READ_AHEAD)
        self._at_once = max(1, threads)
        longest = max((plan.longest_window(lane) for lane in lanes), default=0)
        self._free = [longest * place for place in range(len(lanes) + self._at_once)]
        rows = longest * len(self._free)
        pool = spare.pop() if spare else groups.arrays(0)
        self._pool = pool if len(pool["row"]) >= rows else groups.arrays(rows)
        self._planned: deque[list[LaneRows]] = deque()  # of batches from the next one on
        self._loads = self._schedule(mains)
        self._following = next(self._loads, None)
        self._ahead: deque[tuple[int, int, Future[_Loaded] | _Loading]] = deque()
        self._current: dict[int, _Loaded] = {}
        self._tails: dict[int, tuple[Arrays, Ints]] = {}
        self._readers: dict[int, RowReader] = {}
        # Rows on their way into a batch's tensors of another type.
        self._scratch = groups.arrays(-(-plan.size_of(0) // reader.world_size))
        # Its threads are no daemons: the interpreter waits for them when it ends.
        self._executor = ThreadPoolExecutor(threads, "mmrec-read") if threads else None
        self._load_ahead()

    def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
        for reader in self._readers.values():
            reader.close()
        self._spare[:] = [self._pool]

    def _lane_rows(self, batch: int) -> list[LaneRows]:
        bounds = self._plan.part_of(batch, self._reader.rank, self._reader.world_size)
        return self._plan.lane_rows(batch, *bounds)

    # Loading

    def _schedule(self, batches: range) -> Iterator[tuple[int, int]]:
        """Every (lane, window) in the order in which the batches first need them."""
        current: dict[int, int] = {}
        for batch in batches:
            planned = self._lane_rows(batch)
            self._planned.append(planned)
            for lane, _, first, count in planned:
                last = self._plan.window_of(lane, first + count - 1)
                if current.get(lane) == last:
                    continue
                for window in range(self._plan.window_of(lane, first), last + 1):
                    if current.get(lane) != window:
                        current[lane] = window
                        yield lane, window

    def _load_ahead(self) -> None:
        """Begin to decode the windows that are needed next, as far as there is room."""
        while (
            self._free
            and self._following is not None
            and len(self._ahead) < self._at_once
            and all(lane != self._following[0] for lane, _, _ in self._ahead)
        ):
            lane, window = self._following
            loading: Future[_Loaded] | _Loading
            loading = _Loading(self._steps(lane, window, self._free.pop()))
            if self._executor is not None:
                loading = self._executor.submit(loading.result)
            self._ahead.append((lane, window, loading))
            self._following = next(self._loads, None)

    def _steps(self, lane: int, window: int, base: int) -> Generator[int, None, _Loaded]:
        """Decode one window into the pool (in a thread; never two of one lane at a time)."""
        plan = self._plan
        if lane not in self._readers:
            self._readers[lane] = RowReader(self._groups)
            if lane in self._tail_lanes and plan.spec.shuffle and window == 0:
                # The tail lies before the window, in the same row group: no second reading.
                self._tails[lane] = self._read_tail(lane, self._readers[lane])
        start, stop = plan.window_bounds(lane, window)
        wanted = plan.group_rows(lane, False, start, stop - start)
        yield from self._readers[lane].steps(wanted, self._pool, base)
        if stop == plan.main_rows[lane] and plan.spec.shuffle:
            self._readers[lane].close()
        return _Loaded(window, start, base, plan.window_order(lane, window) + base)

    def _read_tail(self, lane: int, reader: RowReader) -> tuple[Arrays, Ints]:
        rows = self._plan.tail_rows[lane]
        arrays = self._groups.arrays(rows)
        deque(reader.steps(self._plan.group_rows(lane, True, 0, rows), arrays, 0), maxlen=0)
        return arrays, self._plan.tail_order(lane)

    def _fetch_tail(self, lane: int) -> tuple[Arrays, Ints]:
        """A tail that this reader did not pass by: read the first rows of its lane."""
        if lane in self._readers and not self._plan.spec.shuffle:
            return self._read_tail(lane, self._readers[lane])
        first = next(self._plan.group_rows(lane, True, 0, self._plan.tail_rows[lane]))
        at_once = min(self._groups.decoded_rows(), first.stop)
        with closing(RowReader(self._groups, at_once=at_once, prefix=True)) as reader:
            return self._read_tail(lane, reader)

    # Gathering

    def gather(self, batch: int, empty: Callable[[int], dict[str, Tensor]]) -> dict[str, Tensor]:
        """This reader's part of a global batch."""
        planned = self._planned.popleft() if self._planned else self._lane_rows(batch)
        count = sum(rows.rows for rows in planned)
        out = _Out(empty(count), self._scratch)
        places: list[Ints] = []  # in the pool, of rows that are still to be copied
        for lane, tail, first, rows in planned:
            if tail:
                if lane not in self._tails:
                    self._tails[lane] = self._fetch_tail(lane)
                arrays, order = self._tails[lane]
                out.fill(arrays, order[first : first + rows])
                continue
            while rows:
                window = self._plan.window_of(lane, first)
                loaded = self._current.get(lane)
                if loaded is None or loaded.window != window:
                    # The window's room is about to be used again.
                    out.fill(self._pool, *places)
                    places.clear()
                    loaded = self._switch(lane, window)
                index = loaded.index[first - loaded.start : first - loaded.start + rows]
                places.append(index)
                first += len(index)
                rows -= len(index)
        out.fill(self._pool, *places)
        for _, _, loading in self._ahead:
            # No batch waits for a whole window. Lanes need their next windows at uneven times, at
            # least half the mean distance apart: hence twice as many rows as were used.
            if isinstance(loading, _Loading):
                loading.advance(2 * count)
        return out.tensors

    def _switch(self, lane: int, window: int) -> _Loaded:
        """Let go of the lane's old window and take the one that was decoded ahead."""
        old = self._current.pop(lane, None)
        if old is not None:
            self._free.append(old.base)
        self._load_ahead()
        *decoded, loading = self._ahead.popleft()
        assert decoded == [lane, window], "windows are decoded in the order in which they are used"
        self._current[lane] = loaded = loading.result()
        self._load_ahead()
        return loaded


class _Out:
    """The tensors of one batch while they are being filled."""

    def __init__(self, tensors: dict[str, Tensor], scratch: Arrays) -> None:
        self.tensors, self._filled, self._scratch = tensors, 0, scratch
        self._arrays = {name: tensor.numpy() for name, tensor in tensors.items()}

    def fill(self, arrays: Arrays, *places: Ints) -> None:
        """Append the rows at these places of the arrays."""
        if not places:
            return
        index = np.concatenate(places) if len(places) > 1 else places[0]
        start, stop = self._filled, self._filled + len(index)
        for name, out in self._arrays.items():
            array, target = arrays[name], out[start:stop]
            # mode="clip": numpy buffers `out` in the other modes; the indices are valid anyway.
            if array.dtype == target.dtype:
                array.take(index, axis=0, out=target, mode="clip")
            else:
                scratch = self._scratch[name][: len(index)]
                array.take(index, axis=0, out=scratch, mode="clip")
                target[...] = scratch
        self._filled = stop

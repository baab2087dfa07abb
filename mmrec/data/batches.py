"""From lanes to batches: windows decoded ahead into reused buffers, batches gathered from them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from mmrec.data.decode import Array
from mmrec.data.partition import Ints, Plan, Take
from mmrec.data.rows import Reads, RowReader, Table


@dataclass(frozen=True)
class Reader:
    """One of the processes that share an epoch.

    Attributes:
        rank, world_size: which slice of each global batch.
        first, step: which batches: first, first + step, …
    """

    rank: int
    world_size: int
    first: int
    step: int


@dataclass(frozen=True)
class _Loaded:
    """A decoded window: where in the pool its rows lie, in the order of use."""

    window: int
    start: int
    slot: int
    index: Ints


def read_batches(
    table: Table, plan: Plan, reader: Reader, reads: Reads
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Yield (number of the global batch, its slice for this reader as tensors)."""
    work = _Work(table, plan, reader, reads)
    try:
        for batch in range(reader.first, plan.num_batches, reader.step):
            yield batch, work.gather(batch)
    finally:
        work.close()


class _Work:
    """The windows of the lanes that this reader needs, one being decoded ahead by a thread.

    The pool holds one slot a lane and one more; a slot is a window's rows of every column.
    """

    def __init__(self, table: Table, plan: Plan, reader: Reader, reads: Reads) -> None:
        self._table, self._plan, self._reader, self._reads = table, plan, reader, reads
        mains = range(reader.first, plan.first_tail_batch, reader.step)
        tails = [b for b in range(reader.first, plan.num_batches, reader.step) if b not in mains]
        lanes = {t.lane for b in islice(mains, plan.times) for t in self._takes(b)}
        self._tail_lanes = {t.lane for b in tails for t in self._takes(b)}
        longest = max((plan.longest_window(lane) for lane in lanes), default=0)
        slots = len(lanes) + 1 if lanes else 0
        self._slot_rows = longest
        self._pool = table.blocks(slots * longest)
        self._free = list(range(slots))
        self._loads = self._schedule(mains)
        self._ahead: list[tuple[int, int, Future[_Loaded]]] = []
        self._current: dict[int, _Loaded] = {}
        self._tails: dict[int, tuple[dict[str, Array], Ints]] = {}
        self._readers: dict[int, RowReader] = {}
        self._scratch: dict[str, Array] = {}
        # A pool of one: loads run in order, and the interpreter waits for them when it ends.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mmrec-read")
        self._load_ahead()

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        for reader in self._readers.values():
            reader.close()

    def _takes(self, batch: int) -> list[Take]:
        bounds = self._plan.slice_of(batch, self._reader.rank, self._reader.world_size)
        return self._plan.takes(batch, *bounds)

    # Loading

    def _schedule(self, batches: range) -> Iterator[tuple[int, int]]:
        """Every (lane, window) in the order in which the batches first need them."""
        current: dict[int, int] = {}
        for batch in batches:
            for lane, _, first, count in self._takes(batch):
                last = self._plan.window_of(lane, first + count - 1)
                if current.get(lane) == last:
                    continue
                for window in range(self._plan.window_of(lane, first), last + 1):
                    if current.get(lane) != window:
                        current[lane] = window
                        yield lane, window

    def _load_ahead(self) -> None:
        while self._free and not self._ahead:
            following = next(self._loads, None)
            if following is None:
                return
            lane, window = following
            future = self._thread.submit(self._load, lane, window, self._free.pop())
            self._ahead.append((lane, window, future))

    def _load(self, lane: int, window: int, slot: int) -> _Loaded:
        """Decode one window into a slot (in the thread)."""
        plan = self._plan
        if lane not in self._readers:
            self._readers[lane] = RowReader(self._table, self._reads)
            if lane in self._tail_lanes and plan.spec.shuffle and window == 0:
                # The tail lies before the window, in the same row group: no second reading.
                self._tails[lane] = self._read_tail(lane, self._readers[lane])
        start, stop = plan.window_bounds(lane, window)
        base = slot * self._slot_rows
        pieces = plan.pieces(lane, False, start, stop - start)
        self._readers[lane].read(pieces, self._pool, base)
        if stop == plan.main_rows[lane] and plan.spec.shuffle:
            self._readers[lane].close()
        return _Loaded(window, start, slot, plan.window_order(lane, window) + base)

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
            fragment = min(self._table.fragment_rows(), first.stop)
            reader = RowReader(self._table, self._reads, fragment=fragment, prefix=True)
        return self._read_tail(lane, reader)

    # Gathering

    def gather(self, batch: int) -> dict[str, Tensor]:
        """This reader's slice of a global batch."""
        plan = self._plan
        start, stop = plan.slice_of(batch, self._reader.rank, self._reader.world_size)
        out = _Out(self._table, stop - start, self._scratch)
        parts: list[Ints] = []
        for lane, tail, first, count in plan.takes(batch, start, stop):
            if tail:
                if lane not in self._tails:
                    self._tails[lane] = self._thread.submit(self._fetch_tail, lane).result()
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
        expected_lane, expected_window, future = self._ahead.pop(0)
        if (expected_lane, expected_window) != (lane, window):
            raise RuntimeError("windows are decoded in another order than they are used")
        loaded = future.result()
        self._current[lane] = loaded
        self._load_ahead()
        return loaded


class _Out:
    """The tensors of one batch while they are being filled."""

    def __init__(self, table: Table, rows: int, scratch: dict[str, Array]) -> None:
        self._rows, self._filled, self._scratch = rows, 0, scratch
        self.tensors = {"row": torch.empty(rows, dtype=torch.int64)}
        for column in table.columns:
            shape = (rows,) if column.width is None else (rows, column.width)
            dtype: torch.dtype = getattr(torch, column.out.name)
            self.tensors[column.name] = torch.empty(shape, dtype=dtype)
        self._arrays = {name: tensor.numpy() for name, tensor in self.tensors.items()}

    def fill(self, blocks: dict[str, Array], index: Ints) -> None:
        """Append the rows `index` of the blocks."""
        start, stop = self._filled, self._filled + len(index)
        for name, array in self._arrays.items():
            block, target = blocks[name], array[start:stop]
            # mode="clip": numpy buffers `out` in the other modes; the indices are valid anyway.
            if block.dtype == target.dtype:
                np.take(block, index, axis=0, out=target, mode="clip")
            else:
                scratch = self._scratch_for(name, block)[: len(index)]
                np.take(block, index, axis=0, out=scratch, mode="clip")
                np.copyto(target, scratch, casting="unsafe")
        self._filled = stop

    def _scratch_for(self, name: str, block: Array) -> Array:
        scratch = self._scratch.get(name)
        if scratch is None or len(scratch) < self._rows:
            scratch = np.empty((self._rows, *block.shape[1:]), dtype=block.dtype)
            self._scratch[name] = scratch
        return scratch

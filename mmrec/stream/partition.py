"""Who reads which rows in which order: pure functions of their arguments.

Row groups are put in a permuted order and cut into T x P *lanes* of consecutive rows. Global batch
b takes its rows from the P lanes of time class b mod T, an equal share of each; rank r takes the
rows [r B / world, (r + 1) B / world) of that list, and a rank's worker w takes its batches
w, w + W, … as `torch.utils.data.DataLoader` expects. So a reader needs only its own lanes, and
the order never depends on how many readers there are.

Lanes are rarely whole multiples of a batch. The few rows left over (the lane's *tail*) form the
last batches, each fed first from its own lane, then from the lane that is nearest in worker and
rank. A tail is the first rows of its lane, so that another reader can fetch it by reading the first
pages of one row group.

B global batch size, T time classes, P places (each has a share of a batch), N rows.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mmrec.io.hashing import FULL, GOLDEN, mix64
from mmrec.io.parquet import Ints

READ_AHEAD = 2  # windows

_MAX_DECODED = 1.1  # rows decoded / rows of the file that cutting row groups into lanes may cost
_SNAP = 16  # a lane's end moves to a row group's end when that is nearer than a 16th of the lane


def permutation(n: int, *key: int) -> Ints:
    """A permutation of range(n) that depends on `key` alone, on any machine and numpy version.

    The numbers are ordered by the high bits of their splitmix64 hash, ties by themselves.

    >>> permutation(5, 0, 1), permutation(5, 0, 2)
    (array([0, 3, 1, 2, 4]), array([2, 1, 0, 4, 3]))
    """
    start = 0
    for part in key:
        start = mix64(start ^ mix64(part & FULL))
    numbers = np.arange(n, dtype=np.uint64)
    hashed = mix64(numbers * GOLDEN + ((start - GOLDEN) & FULL))
    # The number goes into the low bits, so that sorting values, not indices, gives the order.
    low = np.uint64((1 << n.bit_length()) - 1)
    hashed = (hashed & ~low) | numbers
    hashed.sort()
    order: Ints = (hashed & low).astype(np.int64)
    return order


class GroupRows(NamedTuple):
    """Rows [start, stop) of one row group."""

    group: int
    start: int
    stop: int


class LaneRows(NamedTuple):
    """`rows` rows of a lane from row `first` on, of its main part or of its tail."""

    lane: int
    tail: bool
    first: int
    rows: int


def shares(size: int, parts: int) -> list[int]:
    """`size` rows in `parts` near-equal parts: their bounds, parts + 1 numbers.

    >>> shares(7, 4)
    [0, 1, 3, 5, 7]
    """
    return [size * part // parts for part in range(parts + 1)]


@dataclass(frozen=True)
class Spec:
    """What the order depends on, besides the row groups' sizes.

    Attributes:
        batch_size: rows of a global batch, over all ranks.
        window: rows that are decoded at a time over all lanes (see `lane_window`).
        lanes: (T, P) asked for; `choose_lanes` may lower them.
        seed: of the shuffle.
        shuffle: False gives the rows in file order when lanes is (1, 1).
        drop_last: leave out the rows that fill no whole batch.
    """

    batch_size: int
    window: int
    lanes: tuple[int, int]
    seed: int
    shuffle: bool
    drop_last: bool


def lane_window(spec: Spec, lanes: tuple[int, int]) -> int:
    """Rows that one lane shuffles at a time; two windows more than lanes are being read ahead."""
    rows = spec.window // (lanes[0] * lanes[1] + READ_AHEAD)
    return max(1, rows if spec.shuffle else min(rows, max(8192, spec.batch_size)))


def cut_lanes(sizes: Ints, spec: Spec, lanes: tuple[int, int]) -> Ints:
    """Lane bounds (L + 1) in the sequence of row groups of these sizes, ends snapped where near.

    Lane p * T + t gets rows in proportion to its share of a batch, exactly, but for a bound that
    lies close to the bound of a row group: it moves there, so that no row group is read twice.
    """
    times, places = lanes
    bounds = shares(spec.batch_size, places)
    weights = np.repeat(np.diff(bounds), times)
    cumulative = np.concatenate([[0], np.cumsum(weights)])
    rows = int(sizes.sum())
    ideal = np.array([rows * int(c) // int(cumulative[-1]) for c in cumulative], dtype=np.int64)
    near = min(rows // (len(weights) * _SNAP), lane_window(spec, lanes) // 8)
    ends = np.concatenate([[0], np.cumsum(sizes)])
    right = np.clip(np.searchsorted(ends, ideal), 0, len(ends) - 1)
    left = np.maximum(right - 1, 0)
    nearest = np.where(ideal - ends[left] < ends[right] - ideal, ends[left], ends[right])
    cut = np.where(np.abs(nearest - ideal) <= near, nearest, ideal)
    cut[0], cut[-1] = 0, rows
    return np.maximum.accumulate(cut)


def choose_lanes(sizes: Ints, spec: Spec) -> tuple[int, int]:
    """The most lanes, at most `spec.lanes`, that make readers decode at most 1.1 x the rows.

    A lane that starts inside a row group costs decoding that row group's beginning again, so few
    row groups mean few lanes. A function of the data set and the settings alone, never of ranks
    or workers.
    """
    times, places = spec.lanes
    places = min(places, spec.batch_size)
    rows = int(sizes.sum())
    while times * places > 1 and rows:
        cut = cut_lanes(sizes, spec, (times, places))
        ends = np.concatenate([[0], np.cumsum(sizes)])
        starts, filled = cut[:-1], np.diff(cut) > 0
        begins = ends[np.searchsorted(ends, starts, side="right") - 1]
        if int(((starts - begins) * filled).sum()) <= rows * (_MAX_DECODED - 1):
            break
        if times >= places:
            times = (times + 1) // 2
        else:
            places = (places + 1) // 2
    return times, places


class Plan:
    """The order of one epoch.

    Args:
        sizes: rows of each row group, in file order.
        spec: the settings.
        epoch: number of the epoch; another epoch is another order when shuffling.
        lanes: (T, P), from `choose_lanes`.

    Attributes:
        num_batches: global batches of the epoch, the same for every rank.
    """

    def __init__(self, sizes: Ints, spec: Spec, *, epoch: int, lanes: tuple[int, int]) -> None:
        self.spec, self.epoch, self.lanes = spec, epoch, lanes
        self.times, self.places = lanes
        sizes = np.asarray(sizes, dtype=np.int64)
        filled = np.flatnonzero(sizes)
        if spec.shuffle:
            filled = filled[permutation(len(filled), spec.seed, epoch)]
        self._groups = filled
        self._ends = np.concatenate([[0], np.cumsum(sizes[filled])])
        rows = int(self._ends[-1])
        self.num_rows = rows // spec.batch_size * spec.batch_size if spec.drop_last else rows
        self.num_batches = -(-self.num_rows // spec.batch_size)
        cut = cut_lanes(sizes[filled], spec, lanes)
        self._starts = cut[:-1].tolist()
        lengths = np.diff(cut).tolist()
        self._shares: list[int] = np.diff(shares(spec.batch_size, self.places)).tolist()
        of_lane = [self._shares[lane // self.times] for lane in range(len(lengths))]
        self._rounds = min(n // share for n, share in zip(lengths, of_lane, strict=True))
        self.main_rows: list[int] = [self._rounds * share for share in of_lane]
        self.tail_rows: list[int] = [n - m for n, m in zip(lengths, self.main_rows, strict=True)]
        self.first_tail_batch = self._rounds * self.times
        self._tail_batches = self._deal_tails()
        self._window = lane_window(spec, lanes)
        # First windows differ, so that lanes need their next one at different times.
        parts = [(lane + 1) * GOLDEN % (1 << 64) / float(1 << 64) for lane in range(len(lengths))]
        self._first_windows = [
            max(1, math.ceil((part if len(parts) > 1 else 1.0) * self._window)) for part in parts
        ]

    def size_of(self, batch: int) -> int:
        """Rows of global batch `batch`; all but the last have `batch_size`."""
        return min(self.spec.batch_size, self.num_rows - batch * self.spec.batch_size)

    def part_of(self, batch: int, rank: int, world_size: int) -> tuple[int, int]:
        """The part [from, to) of global batch `batch` that `rank` yields; may be empty."""
        size = self.size_of(batch)
        return rank * size // world_size, (rank + 1) * size // world_size

    def lane_rows(self, batch: int, start: int, stop: int) -> list[LaneRows]:
        """Where rows [start, stop) of global batch `batch` come from, in order."""
        if batch >= self.first_tail_batch:
            whole = self._tail_batches[batch - self.first_tail_batch]
        else:
            turn, time = divmod(batch, self.times)
            whole = [
                LaneRows(place * self.times + time, False, turn * share, share)
                for place, share in enumerate(self._shares)
            ]
        return list(_clip(whole, start, stop))

    def _deal_tails(self) -> list[list[LaneRows]]:
        """The rows of the last batches: own lane first, then the nearest in time, then in place.

        Near in time means the same worker for as many worker counts as possible.
        """
        used = [0] * len(self.tail_rows)
        batches = []
        for batch in range(self.first_tail_batch, self.num_batches):
            found: list[LaneRows] = []
            time = batch % self.times
            bounds = shares(self.size_of(batch), self.places)
            for place in range(self.places):
                missing = bounds[place + 1] - bounds[place]
                for lane in self._lanes_by_distance(time, place):
                    count = min(missing, self.tail_rows[lane] - used[lane])
                    if count > 0:
                        found.append(LaneRows(lane, True, used[lane], count))
                        used[lane] += count
                        missing -= count
                    if missing == 0:
                        break
            batches.append(found)
        return batches

    def _lanes_by_distance(self, time: int, place: int) -> list[int]:
        lanes = [(p, t) for p in range(self.places) for t in range(self.times)]
        # The divisor that two time classes share: for how many worker counts they are one worker's.
        lanes.sort(key=lambda x: (abs(x[0] - place), -math.gcd(x[1] - time, self.times), x[1]))
        return [p * self.times + t for p, t in lanes]

    # A lane's rows. Tail first when shuffling, last when not: file order must stay file order.

    def group_rows(self, lane: int, tail: bool, first: int, count: int) -> Iterator[GroupRows]:
        """Where `count` rows of a lane's main part or tail lie, in lane order."""
        comes_first = tail == self.spec.shuffle
        offset = 0 if comes_first else (self.main_rows if tail else self.tail_rows)[lane]
        start = self._starts[lane] + offset + first
        stop = start + count
        index = int(np.searchsorted(self._ends, start, side="right")) - 1
        while start < stop:
            begin, end = int(self._ends[index]), int(self._ends[index + 1])
            until = min(end, stop)
            yield GroupRows(int(self._groups[index]), start - begin, until - begin)
            start, index = until, index + 1

    def window_of(self, lane: int, row: int) -> int:
        """Which window of the lane's main part holds `row`."""
        first = self._first_windows[lane]
        return 0 if row < first else 1 + (row - first) // self._window

    def window_bounds(self, lane: int, window: int) -> tuple[int, int]:
        """Rows [from, to) of the lane's main part that are shuffled together."""
        first = self._first_windows[lane]
        start = 0 if window == 0 else first + (window - 1) * self._window
        size = first if window == 0 else self._window
        return start, min(start + size, self.main_rows[lane])

    def longest_window(self, lane: int) -> int:
        """Rows of the lane's longest window, at most `lane_window`."""
        return min(self._window, self.main_rows[lane])

    def window_order(self, lane: int, window: int) -> Ints:
        """In which order a window's rows are used."""
        start, stop = self.window_bounds(lane, window)
        return self._order(stop - start, lane, window)

    def tail_order(self, lane: int) -> Ints:
        """In which order the rows of a lane's tail are used."""
        return self._order(self.tail_rows[lane], lane, -1)

    def _order(self, n: int, lane: int, window: int) -> Ints:
        if not self.spec.shuffle:
            return np.arange(n, dtype=np.int64)
        return permutation(n, self.spec.seed, self.epoch, lane, window)


def _clip(lane_rows: Sequence[LaneRows], start: int, stop: int) -> Iterator[LaneRows]:
    """The part [start, stop) of these rows laid end to end."""
    position = 0
    for lane, tail, first, rows in lane_rows:
        low, high = max(start - position, 0), min(stop - position, rows)
        if low < high:
            yield LaneRows(lane, tail, first + low, high - low)
        position += rows

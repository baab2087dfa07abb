"""One pass over a click log: exact counts of every row, and a sample of whole users.

Memory is a run of rows, a few arrays of one entry an item, and the sample; it does not grow with
the file. N items, L history length, V values of a level column.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmrec.audit.checks.statistics import FEWEST_CLUSTERS
from mmrec.audit.scan.chunk import Chunk, read_chunk
from mmrec.audit.scan.opening import RUN, level_columns, odd_types, open_clicks
from mmrec.audit.scan.sample import ROWS, Table, chosen, mix, right_aligned, row_keys
from mmrec.audit.watch import Watch
from mmrec.data.microlens import SPLITS
from mmrec.data.schema import ROW_ID
from mmrec.errors import InputError

Array = NDArray[Any]
Ints = NDArray[np.int64]

CLOSE_ROWS = 40_000  # rows whose histories are kept, to be compared with other rows of the user
CLOSE_USERS = 2_000


@dataclass
class Split:
    """What one pass over one click log found.

    Attributes:
        name, path, rows: the split, its file, its number of rows.
        types: column to arrow type; `odd_types` those that the loaders refuse, and why.
        width: entries of the longest history; `ragged` whether they differ.
        missing: column to rows with a null or NaN.
        lengths: (L + 1,) rows by number of real items.
        late_padding, holes: rows with 0 as the newest entry after an item, or between two items.
        unknown_target, unknown_history, padding_target: rows with ids outside the item table, or 0.
        labels: rows by label -1 (missing), 0, 1; `odd_labels` those neither.
        targets: (2 folds, 2 labels, N) rows by item; rows without label count as label 0.
        in_history: (N,) how often items stand in histories.
        hits: (2 labels, 3): rows, rows whose history holds the target, and at the newest place.
        neighbours: (2, 2) label by next row's label, for rows of different users and items.
        levels: level column to (N, V) rows by item and value.
        ranges: scalar column to smallest and largest value.
        sample: columns row, user, item, label, fold, length, hit, newest, stranger, key, and the
            further scalar columns, for the sampled users; `rate` is their share.
        close, histories: the sample's columns user, item, label, time and the (n, L) histories of
            a few users.
    """

    name: str
    path: Path
    rows: int
    types: dict[str, str]
    num_items: int
    odd_types: dict[str, str] = field(default_factory=dict)
    width: int = 0
    ragged: bool = False
    missing: Counter[str] = field(default_factory=Counter)
    lengths: Ints = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    late_padding: int = 0
    holes: int = 0
    first_late: int | None = None
    unknown_target: int = 0
    unknown_history: int = 0
    padding_target: int = 0
    odd_labels: int = 0
    labels: Ints = field(default_factory=lambda: np.zeros(3, dtype=np.int64))
    hits: Ints = field(default_factory=lambda: np.zeros((2, 3), dtype=np.int64))
    neighbours: Ints = field(default_factory=lambda: np.zeros((2, 2), dtype=np.int64))
    levels: dict[str, NDArray[np.int32]] = field(default_factory=dict)
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    rate: float = 1.0
    sample: dict[str, Array] = field(default_factory=dict)
    close: dict[str, Array] = field(default_factory=dict)
    histories: NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 1), dtype=np.int32))

    def __post_init__(self) -> None:
        self.targets = np.zeros((2, 2, self.num_items), dtype=np.int64)
        self.in_history = np.zeros(self.num_items, dtype=np.int64)

    @property
    def labelled(self) -> bool:
        """Whether there is any usable label."""
        return bool(self.labels[1:].sum())

    @property
    def positive_rate(self) -> float:
        """Share of positives among labelled rows."""
        return float(self.labels[2] / max(1, self.labels[1:].sum()))

    @property
    def scalars(self) -> list[str]:
        """Further scalar columns: neither user, item, label nor row ID."""
        plain = {"row", "user", "item", "label", "fold", "length", "hit", "newest", "stranger"}
        return [name for name in self.sample if name not in plain | {"key", ROW_ID}]


def scan(
    name: str,
    path: Path,
    *,
    num_items: int,
    watches: tuple[Watch, ...] = (),
    close_users: Ints | None = None,
    time: str | None = None,
    sample_rows: int = ROWS,
    progress: Callable[[int], object] = lambda rows: None,
) -> Split:
    """Read a click log once.

    Args:
        name: train, valid or test.
        path: its file.
        num_items: ids at or above it are unknown.
        watches: what to look for, of splits scanned before.
        close_users: users whose histories are kept besides a random few.
        time: the column of times, if any.
        sample_rows: about how many rows to sample.
        progress: called with the number of rows of each run.
    """
    with open_clicks(path) as file:
        rows = file.metadata.num_rows
        types = {field_.name: str(field_.type) for field_ in file.schema_arrow}
        split = Split(name, path, rows, types, num_items, odd_types(file.schema_arrow))
        split.levels = {
            column: np.zeros((num_items, values), dtype=np.int32)
            for column, values in level_columns(file, num_items).items()
        }
        split.rate = min(1.0, sample_rows / max(rows, 1))
        keep = _Keep(split, close_users, time)
        reader = file.iter_batches(batch_size=RUN)
        start, last = 0, None
        nobody = SPLITS.index(name) << 40  # rows without a user are nobody else's in other splits
        try:
            for batch in reader:
                chunk = read_chunk(batch, start, nobody=nobody)
                keys = _count(split, chunk)
                last = _next_to(split, chunk, last)
                for watch in watches:
                    watch.look(chunk, keys)
                keep.add(chunk, keys)
                start += batch.num_rows
                progress(batch.num_rows)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path} is damaged at or after row {start}: {error}") from None
    keep.finish()
    return split


def _count(split: Split, chunk: Chunk) -> NDArray[np.uint64]:
    """Add a chunk to the exact counts, put its unknown ids to 0, and give each row's key."""
    n = split.num_items
    split.missing.update(chunk.missing)
    split.odd_labels += chunk.odd_labels
    split.ragged |= chunk.ragged or (split.width not in (0, chunk.history.shape[1]))
    split.width = max(split.width, chunk.history.shape[1])
    keys = row_keys(chunk.history, chunk.user, chunk.target)

    unknown = (chunk.target < 0) | (chunk.target >= n)
    if unknown.any():
        split.unknown_target += int(unknown.sum())
        chunk.target[unknown] = 0
    split.padding_target += int((chunk.target[~unknown] == 0).sum())
    if chunk.history.size and (chunk.history.min() < 0 or chunk.history.max() >= n):
        outside = (chunk.history < 0) | (chunk.history >= n)
        split.unknown_history += int(outside.any(axis=1).sum())
        chunk.history = np.where(outside, 0, chunk.history)
        real = (chunk.history != 0) | outside
    else:
        real = chunk.history != 0
    length = real.sum(axis=1)
    grown = np.bincount(length, minlength=max(len(split.lengths), chunk.history.shape[1] + 1))
    grown[: len(split.lengths)] += split.lengths
    split.lengths = grown
    broken = (real[:, 1:] < real[:, :-1]).any(axis=1)  # a 0 right after an item
    late = broken & ~real[:, -1]
    split.late_padding += int(late.sum())
    split.holes += int((broken & ~late).sum())
    if late.any() and split.first_late is None:
        split.first_late = chunk.start + int(np.argmax(late))

    split.labels += np.bincount(chunk.label + 1, minlength=3)
    label = np.maximum(chunk.label, 0).astype(np.int64)
    fold = fold_of(chunk.start + np.arange(len(label)))
    split.targets += np.bincount((fold * 2 + label) * n + chunk.target, minlength=4 * n).reshape(
        2, 2, n
    )
    split.in_history += np.bincount(chunk.history.ravel(), minlength=n)
    for name, values in chunk.others.items():
        if not np.isnan(values).all():
            low, high = split.ranges.get(name, (np.inf, -np.inf))
            span = (float(np.nanmin(values)), float(np.nanmax(values)))
            split.ranges[name] = (min(low, span[0]), max(high, span[1]))
    for name, table in split.levels.items():
        value = chunk.others[name]
        there = ~np.isnan(value)
        cell = chunk.target[there] * table.shape[1] + value[there].astype(np.int64)
        table += np.bincount(cell, minlength=table.size).reshape(table.shape).astype(np.int32)
    return keys


def fold_of(row: Array) -> Ints:
    """(n,) each row's half, 0 or 1, at random but always the same."""
    half: Ints = (mix(row) & np.uint64(1)).astype(np.int64)
    return half


def _next_to(
    split: Split, chunk: Chunk, last: tuple[int, int, int] | None
) -> tuple[int, int, int] | None:
    """Count labels of neighbouring rows, from the last row of the chunk before."""
    user, item, label = chunk.user, chunk.target, chunk.label.astype(np.int64)
    if last is not None:
        user, item = np.r_[last[0], user], np.r_[last[1], item]
        label = np.r_[last[2], label]
    if not len(label):
        return last
    apart = (user[1:] != user[:-1]) & (item[1:] != item[:-1])
    apart &= (label[1:] >= 0) & (label[:-1] >= 0)
    pairs = label[:-1][apart] * 2 + label[1:][apart]
    split.neighbours += np.bincount(pairs, minlength=4).reshape(2, 2)
    return int(user[-1]), int(item[-1]), int(label[-1])


class _Keep:
    """Gathers the sample of a split, and the histories of a few users."""

    def __init__(self, split: Split, close_users: Ints | None, time: str | None) -> None:
        self.split, self.time = split, time
        self.close_users = close_users
        self.close_rate = min(1.0, CLOSE_ROWS / 2 / max(split.rows, 1))
        self.sample, self.close = Table(), Table()
        self.histories: list[Array] = []
        self.room = CLOSE_ROWS
        self.by_row: bool | None = None

    def _chosen(self, chunk: Chunk, rate: float) -> NDArray[np.bool_]:
        """Whole users; where a log has hardly any, a share of them could be all or nothing."""
        if self.by_row is None:
            self.by_row = len(np.unique(chunk.user)) < FEWEST_CLUSTERS
        rows = chunk.start + np.arange(len(chunk.user))
        return chosen(rows if self.by_row else chunk.user, rate)

    def add(self, chunk: Chunk, keys: NDArray[np.uint64]) -> None:
        history, target = chunk.history, chunk.target
        own = (history == target[:, None]) & (target != 0)[:, None]
        hit, newest = own.any(axis=1), own[:, -1]
        for value in (0, 1):
            rows = np.maximum(chunk.label, 0) == value
            counts = [int(rows.sum()), int(hit[rows].sum()), int(newest[rows].sum())]
            self.split.hits[value] += counts
        self._add_sample(chunk, keys, hit, newest)
        near = self._chosen(chunk, self.close_rate)
        if self.close_users is not None:
            near |= np.isin(chunk.user, self.close_users)
        rows = np.flatnonzero(near)[: self.room]
        if len(rows):
            self.room -= len(rows)
            when = chunk.others.get(self.time or "", np.full(len(target), np.nan))
            self.close.add(
                user=chunk.user[rows],
                item=target[rows],
                label=chunk.label[rows],
                time=when[rows],
            )
            self.histories.append(history[rows].astype(np.int32))

    def _add_sample(
        self, chunk: Chunk, keys: NDArray[np.uint64], hit: Array, newest: Array
    ) -> None:
        rows = np.flatnonzero(self._chosen(chunk, self.split.rate))
        index = chunk.start + rows
        total = len(chunk.target)
        other = (rows + total // 2) % max(total, 1)  # a row far off in the run: another user's
        stranger = (chunk.history[other] == chunk.target[rows][:, None]).any(axis=1)
        stranger &= (chunk.target[rows] != 0) & (chunk.user[other] != chunk.user[rows])
        self.sample.add(
            row=index,
            user=chunk.user[rows],
            item=chunk.target[rows].astype(np.int32),
            label=chunk.label[rows],
            fold=fold_of(index).astype(np.int8),
            length=(chunk.history[rows] != 0).sum(axis=1).astype(np.int32),
            hit=hit[rows],
            newest=newest[rows],
            stranger=stranger,
            key=keys[rows],
            **{name: values[rows] for name, values in chunk.others.items()},
        )

    def finish(self) -> None:
        self.split.sample = self.sample.columns()
        self.split.close = self.close.columns()
        self.split.histories = right_aligned(self.histories)

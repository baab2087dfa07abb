"""One pass over a click log: exact counts of every row, and a sample of whole users.

Comes in: files of `files.py`. Goes out: `split.Split`, for the checks. Memory is a batch, a few
arrays of one entry an item, and the sample; it does not grow with the file.
B rows of a batch, N items, V values of a level column.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmrec.audit.scan.reading import read_rows
from mmrec.audit.scan.rows import FEWEST_USERS, Array, Rows, chosen, find, pair_keys, stacked
from mmrec.audit.scan.split import MOST_CELLS, QUANTILES, Counts, Overlap, Split
from mmrec.data.microlens import SPLITS
from mmrec.data.schema import (
    COLUMNS_LABELLED,
    COLUMNS_TEST,
    CONTEXT,
    HISTORY,
    LABEL,
    ROW_ID,
    TARGET,
    USER,
)
from mmrec.errors import InputError
from mmrec.io.lenient import BATCH, batches, kinds_of, span
from mmrec.io.parquet import INTEGER, INTEGERS, NUMBER
from mmrec.io.sources import Source

SAMPLE_ROWS = 500_000  # an AUC over so many rows has a standard error below 0.001
FOLLOWED_ROWS = 40_000  # rows whose histories are kept, to be compared with others of the user
FOLLOWED_USERS = 2_000
MOST_LEVELS = 256  # an integer column below this many values is a level, counted item by item
TIMES = ("timestamp", "time", "ts", "datetime", "event_time")
KINDS = dict.fromkeys((USER, TARGET, ROW_ID, *CONTEXT), INTEGER)
KINDS |= {HISTORY: INTEGERS, LABEL: NUMBER}


def time_column(source: Source, asked: str | None) -> str | None:
    """The column of each row's time: the one asked for, or the first of `TIMES` that there is."""
    names = [*kinds_of(source)]
    if asked is not None and asked not in names:
        raise InputError(f"time must be a column of train, got {asked}, train has {names}")
    return asked or next((name for name in TIMES if name in names), None)


def highest_item(sources: Iterable[Source]) -> int:
    """The largest item id of click logs, at least 1."""
    columns = [(source, name) for source in sources for name in (TARGET, HISTORY)]
    there = [(source, name) for source, name in columns if name in kinds_of(source)]
    highest = max([1, *(max(span(source, name) or [1]) for source, name in there)])
    if highest > MOST_CELLS:
        raise InputError(
            f"item ids must be dense or item_info.parquet there, got ids up to {highest}"
        )
    return highest


def scan_splits(
    sources: Mapping[str, Source],
    *,
    num_items: int,
    sample_rows: int = SAMPLE_ROWS,
    progress: Callable[[int], object] = lambda rows: None,
) -> dict[str, Split]:
    """Read train last, so that it can be searched for what valid and test hold; see `scan`."""
    found: dict[str, Split] = {}
    for name in sorted(sources, key=lambda name: name == "train"):
        found[name] = scan(
            name,
            sources[name],
            num_items=num_items,
            others=[other for other in found.values() if other.counts.rows],
            sample_rows=sample_rows,
            progress=progress,
        )
    return {name: found[name] for name in sources}


def scan(
    name: str,
    source: Source,
    *,
    num_items: int,
    others: Sequence[Split] = (),
    sample_rows: int = SAMPLE_ROWS,
    progress: Callable[[int], object] = lambda rows: None,
) -> Split:
    """Read a click log once.

    Args:
        name: train, valid or test.
        source: its file.
        num_items: ids at or above it are unknown.
        others: splits read before, whose users, pairs and rows are looked for.
        sample_rows: about how many rows to sample.
        progress: called with the number of rows of each batch.
    """
    split = _open(name, source, num_items)
    keeper = _Keeper(split, sample_rows, others)
    searches = [_Search(other.name, other.sample) for other in others]
    start, last = 0, np.zeros((3, 0), dtype=np.int64)
    nobody = SPLITS.index(name) << 40  # rows without a user are nobody else's in other splits
    for batch in batches(source, size=BATCH):
        rows = read_rows(batch, split.counts, start=start, nobody=nobody)
        _count_rows(split, rows)
        _count_values(split, rows)
        last = _count_neighbours(split, rows, last)
        for search in searches:
            search.look(rows)
        keeper.add(rows)
        start += len(rows.row)
        progress(len(rows.row))
    split.sample, split.followed = stacked(keeper.sample), stacked(keeper.followed)
    split.overlaps = {search.split: search.overlap() for search in searches}
    split.counts = _finished(split, keeper.rate)
    return split


def _open(name: str, source: Source, num_items: int) -> Split:
    """A split of which no row is read, but whose columns are known."""
    kinds = kinds_of(source)
    levels: dict[str, NDArray[np.int32]] = {}
    for column, kind in kinds.items():
        if column not in (USER, TARGET, LABEL, ROW_ID) and pa.types.is_integer(kind):
            ends = span(source, column)
            if ends and ends[0] >= 0 and ends[1] < min(MOST_LEVELS, MOST_CELLS // num_items):
                levels[column] = np.zeros((num_items, ends[1] + 1), dtype=np.int32)
    wanted = COLUMNS_TEST if name == "test" else COLUMNS_LABELLED
    counts = Counts(
        split=name,
        rows=source.num_rows,
        num_items=num_items,
        absent=[column for column in wanted if column not in kinds],
        refused={
            column: (str(kinds[column]), kind.name)
            for column, kind in KINDS.items()
            if column in kinds and not kind.accepts(kinds[column])
        },
    )
    return Split(name, counts, {column: str(kind) for column, kind in kinds.items()}, levels)


def _count_rows(split: Split, rows: Rows) -> None:
    """Labels, items, lengths of histories, and histories that hold their row's item."""
    n = split.counts.num_items
    split.counts.unlabelled += int((rows.label < 0).sum())
    label = np.maximum(rows.label, 0).astype(np.int64)
    cell = (rows.fold * 2 + label) * n + rows.item
    split.targets += np.bincount(cell, minlength=4 * n).reshape(2, 2, n)
    split.in_history += np.bincount(rows.history.ravel(), minlength=n)
    newest = rows.hit & (rows.history[:, -1] == rows.item)
    some = (label, label[rows.hit], label[newest])
    split.hits += np.stack([np.bincount(labels, minlength=2) for labels in some], axis=1)
    size = max(len(split.lengths), rows.history.shape[1] + 1)
    lengths = np.bincount(rows.length, minlength=size)
    lengths[: len(split.lengths)] += split.lengths
    split.lengths = lengths


def _count_values(split: Split, rows: Rows) -> None:
    """Ranges of all further columns, and level columns item by item."""
    for name, values in rows.others.items():
        there = ~np.isnan(values)
        if there.any():
            ends = [*split.ranges.get(name, ()), values[there].min(), values[there].max()]
            split.ranges[name] = (float(min(ends)), float(max(ends)))
        if name in split.levels:
            table = split.levels[name]
            cell = rows.item[there] * table.shape[1] + values[there].astype(np.int64)
            table += np.bincount(cell, minlength=table.size).reshape(table.shape).astype(np.int32)


def _count_neighbours(split: Split, rows: Rows, last: Array) -> Array:
    """Labels of neighbouring rows; `last` is the row before (3, 1), and so is what returns."""
    table = np.concatenate([last, [rows.user, rows.item, rows.label]], axis=1)
    (user, item, label), (next_user, next_item, next_label) = table[:, :-1], table[:, 1:]
    apart = (user != next_user) & (item != next_item) & (label >= 0) & (next_label >= 0)
    pairs = (label * 2 + next_label)[apart]
    split.neighbours += np.bincount(pairs, minlength=4).reshape(2, 2)
    return table[:, -1:]


def _finished(split: Split, rate: float) -> Counts:
    """Counts that follow from all rows, and from the sample, which has `rate` of the users."""
    lengths, sample, rows = split.lengths, split.sample, max(1, int(split.lengths.sum()))
    unlabelled = split.counts.unlabelled
    negatives, positives = (int(count) for count in split.targets.sum(axis=(0, 2)))
    keys, place = np.unique(sample.key, return_inverse=True)
    labels = np.zeros((len(keys), 3), dtype=np.bool_)
    labels[place, sample.label + 1] = True  # missing, 0, 1
    unasked = {LABEL} if split.name == "test" else set()
    return replace(
        split.counts,
        missing={n: c for n, c in split.counts.missing.items() if c and n not in unasked},
        constant={n: a for n, (a, b) in split.ranges.items() if a == b and n != ROW_ID},
        users=round(len(np.unique(sample.user)) / rate),
        items_shown=int((split.targets.sum(axis=(0, 1))[1:] > 0).sum()),
        positives=positives,
        negatives=negatives - unlabelled,
        history_width=len(lengths) - 1,
        mean_length=float(np.arange(len(lengths)) @ lengths / rows),
        length_quantiles=np.searchsorted(np.cumsum(lengths) / rows, QUANTILES).tolist(),
        empty_histories=int(lengths[0]),
        holding_target=int(split.hits[:, 1].sum()),
        sampled=len(place),
        repeated=len(place) - len(keys),
        both_labels=int((labels.sum(axis=1) > 1).sum()),
    )


class _Keeper:
    """Gathers a sample of whole users, and the rows of fewer users with their histories."""

    def __init__(self, split: Split, sample_rows: int, others: Sequence[Split]) -> None:
        rows = max(split.counts.rows, 1)
        self.rate, self.followed_rate = min(1.0, sample_rows / rows), FOLLOWED_ROWS / 2 / rows
        users = [np.unique(other.sample.user) for other in others]
        self.known = [some[chosen(some, FOLLOWED_USERS / max(1, len(some)))] for some in users]
        self.sample: list[Rows] = []
        self.followed: list[Rows] = []
        self.room = FOLLOWED_ROWS
        self.by_row: bool | None = None

    def add(self, rows: Rows) -> None:
        if self.by_row is None:  # of hardly any users, a share could be all or nothing
            self.by_row = len(np.unique(rows.user)) < FEWEST_USERS
        unit = rows.row if self.by_row else rows.user
        bare = replace(rows, history=rows.history[:, :0])
        self.sample.append(bare.where(chosen(unit, self.rate)))
        near = chosen(unit, self.followed_rate)
        if self.known:
            near |= np.isin(rows.user, np.concatenate(self.known))
        followed = rows.where(np.flatnonzero(near)[: self.room])
        self.room -= len(followed.row)
        self.followed.append(replace(followed, history=followed.history.astype(np.int32)))


class _Search:
    """Looks for the sampled rows of one split among those of another, a batch at a time."""

    def __init__(self, split: str, sample: Rows) -> None:
        self.split = split
        columns = (sample.user, pair_keys(sample.user, sample.item), sample.key)
        self.sought: list[Array] = [np.unique(values) for values in columns]
        self.found = [np.zeros(len(values), dtype=np.bool_) for values in self.sought]

    def look(self, rows: Rows) -> None:
        known = find(self.sought[0], rows.user)[1]
        users, items = rows.user[known], rows.item[known]
        for number, values in enumerate((users, pair_keys(users, items), rows.key[known])):
            place, there = find(self.sought[number], values)
            self.found[number][place[there]] = True

    def overlap(self) -> Overlap:
        counts = [n for found in self.found for n in (len(found), int(found.sum()))]
        return Overlap(self.split, *counts)

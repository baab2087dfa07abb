"""One pass over a click log: exact counts of every row, and a sample of whole users.

Comes in: files of `files.py`. Goes out: `split.Split`, for the checks. Memory is a batch, a few
arrays of one entry an item, and the sample; it does not grow with the file.
B rows of a batch, N items, T labels.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from mmrec.audit.scan.columns import Columns
from mmrec.audit.scan.features import length_of, newest_of
from mmrec.audit.scan.names import MOST_CELLS, MOST_NAMES, ByName, distinct
from mmrec.audit.scan.reading import read_rows
from mmrec.audit.scan.rows import FEWEST_USERS, Array, Rows, chosen, find, pair_keys, stacked
from mmrec.audit.scan.split import QUANTILES, Counts, Keys, Overlap, Split
from mmrec.data.checks import kinds_of as kinds_needed
from mmrec.data.clicks import SPLITS
from mmrec.errors import InputError
from mmrec.io.lenient import BATCH, batches, is_scalar, kinds_of, span, whole
from mmrec.io.sources import Source
from mmrec.schema import Clicks

SAMPLE_ROWS = 500_000  # an AUC over so many rows has a standard error below 0.001
FOLLOWED_ROWS = 40_000  # rows whose histories are kept, to be compared with others of the user
FOLLOWED_USERS = 2_000
TIMES = ("timestamp", "time", "ts", "datetime", "event_time")  # where no column has the role


def time_column(source: Source, roles: Clicks, asked: str | None) -> str | None:
    """The column of each row's time.

    The one asked for, else the schema's, else the first of `TIMES` that has no other role.
    """
    names = [*kinds_of(source)]
    if asked is not None and asked not in names:
        raise InputError(f"time must be a column of train, got {asked}, train has {names}")
    if asked is not None and not is_scalar(kinds_of(source)[asked]):
        kind = kinds_of(source)[asked]
        raise InputError(f"time must be a column of numbers or time stamps, {asked} holds {kind}")
    free = [name for name in TIMES if name not in dict(roles.roles())]
    usual = free if roles.time is None else [roles.time]
    return asked or next((name for name in usual if name in names), None)


def highest_item(sources: Iterable[Source], roles: Clicks) -> int:
    """The largest item id of click logs, at least 1."""
    columns = [(source, name) for source in sources for name in (roles.target, roles.history)]
    there = [(source, name) for source, name in columns if name in kinds_of(source)]
    highest = max([1, *(max(span(source, name) or [1]) for source, name in there)])
    if highest > MOST_CELLS:
        raise InputError(
            f"item ids must be dense or item_info.parquet there, got ids up to {highest}"
        )
    return highest


@dataclass(frozen=True)
class Plan:
    """How click logs are read.

    Attributes:
        roles: of their columns.
        num_items: ids at or above it are unknown.
        columns: those to look at, where there; None looks at all, also those without a role.
        sample_rows: about how many rows to sample, per split.
    """

    roles: Clicks
    num_items: int
    columns: Collection[str | None] | None = None
    sample_rows: int = SAMPLE_ROWS

    def kinds(self, source: Source) -> dict[str, pa.DataType]:
        """Column to arrow type of those to look at."""
        kinds = kinds_of(source)
        if self.columns is None:
            return kinds
        return {name: kind for name, kind in kinds.items() if name in self.columns}


def scan_splits(
    sources: Mapping[str, Source],
    plan: Plan,
    progress: Callable[[int], object] = lambda rows: None,
) -> dict[str, Split]:
    """Read train last, so that it can be searched for what valid and test hold; see `scan`."""
    found: dict[str, Split] = {}
    for name in sorted(sources, key=lambda name: name == "train"):
        others = [other for other in found.values() if other.counts.rows]
        found[name] = scan(name, sources[name], plan, others, progress)
    return {name: found[name] for name in sources}


def scan(
    name: str,
    source: Source,
    plan: Plan,
    others: Sequence[Split] = (),
    progress: Callable[[int], object] = lambda rows: None,
) -> Split:
    """Read a click log once.

    Args:
        name: train, valid or test.
        source: its file.
        plan: how.
        others: splits read before, whose users, pairs and rows are looked for.
        progress: called with the number of rows of each batch.
    """
    split = _open(name, source, plan)
    keeper = _Keeper(split, plan.sample_rows, others)
    sought = others if split.has_users else ()
    searches = [_Search(other.name, other.sample) for other in sought]
    start, last = 0, np.zeros((2 + len(plan.roles.labels), 0), dtype=np.int64)
    nobody = SPLITS.index(name) << 40  # rows without a user are nobody else's in other splits
    for batch in batches(source, [*split.types], size=BATCH):
        rows = read_rows(batch, split, start=start, nobody=nobody)
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
    _finish(split, keeper.rate)
    return split


def _open(name: str, source: Source, plan: Plan) -> Split:
    """A split of which no row is read, but whose columns are known."""
    roles, kinds = plan.roles, plan.kinds(source)
    labelled, test = (kinds_needed(roles, labelled=some) for some in (True, False))
    columns = Columns.of(
        name,
        source.num_rows,
        kinds,
        wanted=test if name == "test" else labelled,
        optional=labelled | test,
        needed=(roles.user, roles.history, roles.target, *roles.labels),
    )
    split = Split(
        name=name,
        roles=roles,
        counts=Counts(name, source.num_rows, plan.num_items),
        columns=columns,
        types={column: str(kind) for column, kind in kinds.items()},
        by_name=_tables(source, plan),
    )
    key = roles.row_id
    if name == "test" and key is not None and key in kinds:
        split.keys = Keys.of(name, key, whole(source, [key])[key])
    return split


def _tables(source: Source, plan: Plan) -> dict[str, ByName]:
    """Blank tables of the categorical columns, and of integers without a role that look like one.

    They do where all lie in 0 … `MOST_NAMES` - 1.
    """
    kinds, known = plan.kinds(source), dict(plan.roles.roles())
    wanted = kinds_needed(plan.roles, labelled=True)
    listed = {name for name, role in known.items() if role == "categorical" and name in kinds}
    room = min(MOST_NAMES, MOST_CELLS // plan.num_items)
    tables: dict[str, ByName | None] = {}
    for name, kind in kinds.items():
        if name in listed and wanted[name].accepts(kind):
            names = distinct(source, name, MOST_NAMES)
            tables[name] = ByName.of(names, plan.num_items, columns=len(listed))
        elif name not in known and pa.types.is_integer(kind):
            names = distinct(source, name, MOST_NAMES)
            if names is not None and len(names) and names[0] >= 0 and names[-1] < room:
                tables[name] = ByName.of(names, plan.num_items, columns=1)
    return {name: table for name, table in tables.items() if table is not None}


def _count_rows(split: Split, rows: Rows) -> None:
    """Labels, items, lengths of histories, and histories that hold their row's item."""
    n = split.counts.num_items
    place = rows.fold * n + rows.item
    np.add.at(split.asked.reshape(-1), place, 1)
    split.in_history += np.bincount(rows.history.ravel(), minlength=n)
    split.counts.holding_target += int(rows.hit.sum())
    newest = rows.hit & (rows.history[:, -1] == rows.item)
    for name, one in split.by_label.items():
        label = rows.labels[name].astype(np.int64)
        there = label >= 0
        one.counts.unlabelled += int((~there).sum())
        cell = (rows.fold * 2 + label) * n + rows.item
        np.add.at(one.targets.reshape(-1), cell[there], 1)
        some = (label[there], label[there & rows.hit], label[there & newest])
        one.hits += np.stack([np.bincount(labels, minlength=2) for labels in some], axis=1)
    size = max(len(split.lengths), rows.history.shape[1] + 1)
    lengths = np.bincount(rows.length, minlength=size)
    lengths[: len(split.lengths)] += split.lengths
    split.lengths = lengths


def _count_values(split: Split, rows: Rows) -> None:
    """Ranges of all that is known of rows, and categorical columns item by item."""
    for name, values in rows.others.items():
        there = ~np.isnan(values)
        if there.any():
            ends = [*split.ranges.get(name, ()), values[there].min(), values[there].max()]
            split.ranges[name] = (float(min(ends)), float(max(ends)))
        if name in split.by_name:
            split.by_name[name].add(rows.item, values)


def _count_neighbours(split: Split, rows: Rows, last: Array) -> Array:
    """Labels of neighbouring rows; `last` is the row before (2 + T, 1), and so is what returns."""
    table = np.concatenate([last, [rows.user, rows.item, *rows.labels.values()]], axis=1)
    (user, item, *labels), (next_user, next_item, *next_labels) = table[:, :-1], table[:, 1:]
    apart = (user != next_user) & (item != next_item)
    for one, label, next_label in zip(split.by_label.values(), labels, next_labels, strict=True):
        pairs = (label * 2 + next_label)[apart & (label >= 0) & (next_label >= 0)]
        one.neighbours += np.bincount(pairs, minlength=4).reshape(2, 2)
    return table[:, -1:]


def _finish(split: Split, rate: float) -> None:
    """What follows from all rows, and from the sample, which has `rate` of the users."""
    lengths, sample, rows = split.lengths, split.sample, max(1, int(split.lengths.sum()))
    keys, place = np.unique(sample.key, return_inverse=True)
    both = np.zeros(len(keys), dtype=np.bool_)
    for label, one in split.by_label.items():
        negatives, positives = (int(count) for count in one.targets.sum(axis=(0, 2)))
        one.counts = replace(one.counts, negatives=negatives, positives=positives)
        if one.counts.labelled:
            one.counts.rate = positives / (negatives + positives)
        seen = np.zeros((len(keys), 3), dtype=np.bool_)
        seen[place, sample.labels[label] + 1] = True  # missing, 0, 1
        # Where there are several labels, a missing one is none that differs.
        both |= seen[:, min(1, len(split.by_label) - 1) :].sum(axis=1) > 1
    split.columns.constant = _constant(split)
    unasked = split.roles.labels if split.name == "test" else ()
    for label in unasked:
        split.columns.missing.pop(label, None)
    split.counts = replace(
        split.counts,
        users=round(len(np.unique(sample.user)) / rate) if split.has_users else 0,
        items_shown=int((split.asked.sum(axis=0)[1:] > 0).sum()),
        history_width=len(lengths) - 1,
        mean_length=float(np.arange(len(lengths)) @ lengths / rows),
        length_quantiles=np.searchsorted(np.cumsum(lengths) / rows, QUANTILES).tolist(),
        empty_histories=int(lengths[0]),
        sampled=len(place),
        repeated=len(place) - len(keys),
        both_labels=int(both.sum()),
    )


def _constant(split: Split) -> dict[str, float]:
    """Columns with one value in all rows, NaN where they hold nothing."""
    roles, lists, numbers = split.roles, split.sample.lists, split.numbers
    apart = {roles.row_id, *lists, *map(length_of, lists), *map(newest_of, roles.history_numeric)}
    same = {n: low for n, (low, high) in split.ranges.items() if low == high and n not in apart}
    if roles.weight is not None and same.get(roles.weight):
        del same[roles.weight]  # all rows count alike
    of_lists = {n: numbers[n].smallest for n in roles.history_numeric if n in numbers}
    same |= {n: low for n, low in of_lists.items() if low == numbers[n].largest}
    empty = [name for name, one in numbers.items() if one.values and not one.finite]
    empty += [name for name in lists if split.ranges.get(length_of(name)) == (0.0, 0.0)]
    return same | dict.fromkeys(empty, math.nan)


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
        followed = replace(rows, lists={}).where(np.flatnonzero(near)[: self.room])
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

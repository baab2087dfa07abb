"""Level columns against the item: does a row that disagrees with its item's level know the label?

A level such as likes_level should be a function of the item. Where rows of one label were given
the level of another moment, or of another item, the disagreement marks them.
N items, V values of a level, n rows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mmrec.audit.checks.statistics import (
    NOTHING,
    Array,
    Measured,
    Standard,
    clusters_of,
    difference,
    item_means,
    measure,
    within,
)
from mmrec.audit.findings import Finding
from mmrec.audit.scan.items import UNKNOWN
from mmrec.audit.scan.rows import Bools, Rows
from mmrec.audit.scan.split import Split
from mmrec.io.parquet import Ints

Source = Literal["usual", "item_feature"]


@dataclass(frozen=True)
class Disagreement:
    """Rows of a split whose level is not what `source` says of their item.

    That is its usual value in train, or what item_feature gives.

    Attributes:
        share: of the rows whose item the source knows.
        auc: of disagreeing, against the label.
        inside_items, inside_values: z of the same among rows of one item, and of one value.
        adds: AUC that it adds to item means.
    """

    split: str
    column: str
    source: Source
    share: float = 0.0
    auc: Measured = NOTHING
    inside_items: float = 0.0
    inside_values: float = 0.0
    adds: Measured = NOTHING


@dataclass(frozen=True)
class Levels:
    """Every level column, split and source."""

    disagreements: list[Disagreement]


def measure_levels(splits: Mapping[str, Split], given: Mapping[str, Ints]) -> Levels:
    """Every level column against the item's usual value in train, and against `given` by item."""
    train, disagreements = splits["train"], []
    for name in train.levels:
        some = [s for s in splits.values() if s.counts.labelled and name in s.sample.others]
        disagreements += [_against_usual(train, split, name) for split in some]
        if name in given:
            disagreements += [_against_given(train, split, name, given[name]) for split in some]
    return Levels(disagreements)


def _against_usual(train: Split, split: Split, name: str) -> Disagreement:
    rows, table = split.sample.labelled(), train.levels[name]
    value = _values(rows, name)
    known, differs = differs_from_usual(table, rows.item, value, leave_out=split is train)
    blank = Disagreement(split.name, name, "usual")
    return _measured(blank, train, rows.where(known), differs[known])


def _against_given(train: Split, split: Split, name: str, given: Ints) -> Disagreement:
    rows = split.sample.labelled()
    rows = rows.where(given[rows.item] != UNKNOWN)
    blank = Disagreement(split.name, name, "item_feature")
    return _measured(blank, train, rows, given[rows.item] != _values(rows, name))


def _values(rows: Rows, name: str) -> Ints:
    return np.nan_to_num(rows.others[name], nan=UNKNOWN).astype(np.int64)


def _measured(blank: Disagreement, train: Split, rows: Rows, differs: Bools) -> Disagreement:
    if not differs.any():
        return blank
    cluster = clusters_of(rows.user)
    # An item that is often shown differs more and may be clicked more, and so may a value that is
    # common: only what still holds inside an item and inside a value is the disagreement's own.
    return replace(
        blank,
        share=float(differs.mean()),
        auc=measure(rows.label, differs, cluster),
        inside_items=within(rows.item, differs, rows.label, cluster),
        inside_values=within(rows.others[blank.column], differs, rows.label, cluster),
        adds=added(train, rows, differs, cluster),
    )


def added(train: Split, rows: Rows, flag: Bools, cluster: Array) -> Measured:
    """AUC that a flag adds to item means: what it is worth beside an honest model.

    logit(item mean) + w flag, less logit(item mean) alone, on one half of the rows; w is the log
    odds ratio of the flag in the other half, the item means are of the same half of train.
    """
    first, second = rows.fold == 0, rows.fold == 1
    positive = rows.label > 0

    def log_odds(label: Bools) -> float:
        there, total = (flag & label & first).sum() + 0.5, (label & first).sum() + 1.0
        return float(np.log(there / (total - there)))

    mean = item_means(train.targets, (0,))[rows.item[second]].clip(1e-6, 1 - 1e-6)
    base = np.log(mean / (1 - mean))
    weight = log_odds(positive) - log_odds(~positive)
    return difference(positive[second], base + weight * flag[second], base, cluster[second])


def differs_from_usual(
    table: Array, item: Array, value: Array, *, leave_out: bool
) -> tuple[Bools, Bools]:
    """Whether each row differs from the commonest value of its item, and where that is known.

    With `leave_out` the row itself is taken from the counts first, so that a rare item does not
    agree with itself; ties count as agreement.

    Args:
        table: (N, V) rows of train by item and value.
        item, value: (n,) ids and values; a value outside the table always differs.

    Returns:
        (n,) known, False where no other row tells; (n,) differs.
    """
    inside = (value >= 0) & (value < table.shape[1])
    place = np.where(inside, value, 0)
    own = np.where(inside, table[item, place], 0).astype(np.int64)
    top = np.partition(table, -2, axis=1)[:, -2:] if table.shape[1] > 1 else np.c_[table * 0, table]
    highest, second = top[item, 1].astype(np.int64), top[item, 0].astype(np.int64)
    if leave_out:
        # Without itself, a row of the commonest value competes with the second commonest.
        rival = np.where(own == highest, second, highest)
        own = own - inside
        return np.maximum(own, rival) > 0, own < rival
    return highest > 0, own < highest


def judge_levels(levels: Levels, standard: Standard) -> Iterator[Finding]:
    """Where disagreeing marks a label, inside items and inside values."""
    for one in levels.disagreements:
        own = min(abs(one.inside_items), abs(one.inside_values)) > standard.z
        if own and standard.found(one.auc):
            moves = standard.real(one.adds, 0.0) and one.adds.value > standard.resolution
            yield Finding("serious" if moves else "warning", "level_disagrees", one)

"""Categorical columns against the item: does a row that disagrees with its item know the label?

A category of the item, such as how popular it is, should be a function of it. Where rows of one
label were given the category of another moment, or of another item, the disagreement marks them.
N items, V values of a column, n rows.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

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
from mmrec.audit.findings import Finding, Severity
from mmrec.audit.scan.rows import Bools, Rows, pair_keys
from mmrec.audit.scan.split import Split
from mmrec.io.parquet import Ints


@dataclass(frozen=True)
class Disagreement:
    """Rows of a split whose category is not what `source` says of their item.

    That is its `usual` value in train, or what the table of this name gives.

    Attributes:
        share: of the rows whose item the source knows.
        auc: of disagreeing, against the label.
        inside_items, inside_values: z of the same among rows of one item, and of one value.
        adds: AUC that it adds to item means.
        of_item, of_user: chance that two rows of train of one item, or of one user, have the same
            category, for the label where it is larger; not asked where nothing is marked.
    """

    split: str
    column: str
    source: str
    share: float = 0.0
    auc: Measured = NOTHING
    inside_items: float = 0.0
    inside_values: float = 0.0
    adds: Measured = NOTHING
    of_item: float = math.nan
    of_user: float = math.nan

    def marks(self, standard: Standard) -> bool:
        """Whether disagreeing tells the label, inside items and inside values."""
        own = min(abs(self.inside_items), abs(self.inside_values)) > standard.z
        return own and standard.found(self.auc)

    @property
    def owned(self) -> bool:
        """Whether the category goes with the item, and not rather with the user or the moment."""
        return self.of_item > max(self.of_user, 0.5)


@dataclass(frozen=True)
class Categories:
    """Every categorical column, split and source."""

    disagreements: list[Disagreement]


def measure_categories(
    splits: Mapping[str, Split],
    label: str,
    given: Mapping[str, Mapping[str, Array]],
    standard: Standard,
) -> Categories:
    """Every categorical column against the item's usual value in train, and against tables.

    Args:
        splits: click logs.
        label: the one that a disagreement may mark.
        given: table to column to name by item, (N,) NaN where it has none.
        standard: of the label; whose a category is, is asked where that matters.
    """
    train, disagreements = splits["train"], []
    for name in train.by_name:
        some = [
            (split.name, split.sample.labelled(label))
            for split in splits.values()
            if split.by_label[label].counts.labelled and name in split.sample.others
        ]
        tables = [table for table, columns in given.items() if name in columns]
        found = [_against_usual(train, split, rows, name) for split, rows in some]
        for table in tables:
            blanks = [(Disagreement(split, name, table), rows) for split, rows in some]
            by_item = given[table][name]
            found += [_against_given(blank, train, rows, by_item) for blank, rows in blanks]
        if any(one.marks(standard) for one in found):
            found = _owned(found, train.sample.labelled(label))
        disagreements += found
    return Categories(disagreements)


def _against_usual(train: Split, split: str, rows: Rows, name: str) -> Disagreement:
    table, itself = train.by_name[name], split == train.name
    place = table.places(rows.others[name])
    known, differs = differs_from_usual(table.rows, rows.item, place, leave_out=itself)
    blank = Disagreement(split, name, "usual")
    return _measured(blank, train, rows.where(known), differs[known])


def _against_given(blank: Disagreement, train: Split, rows: Rows, given: Array) -> Disagreement:
    rows = rows.where(~np.isnan(given[rows.item]))
    return _measured(blank, train, rows, given[rows.item] != rows.others[blank.column])


def _owned(found: list[Disagreement], rows: Rows) -> list[Disagreement]:
    """With whose category one column is, as rows of train tell."""
    parts = [rows.where(rows.label == label) for label in (0, 1)]
    names = [some.others[found[0].column] for some in parts]
    of_item, of_user = (
        max(agreement(getattr(some, whose), one) for some, one in zip(parts, names, strict=True))
        for whose in ("item", "user")
    )
    return [replace(one, of_item=of_item, of_user=of_user) for one in found]


def agreement(group: Array, names: Array) -> float:
    """Chance that two rows (n,) of a group have the same name; 0 where no group has two."""
    there = ~np.isnan(names)
    group, names = group[there], names[there].astype(np.int64)
    _, sizes = np.unique(group, return_counts=True)
    _, same = np.unique(pair_keys(group, names), return_counts=True)
    pairs, alike = (float((n * (n - 1.0)).sum()) for n in (sizes, same))
    return alike / pairs if pairs else 0.0


def _measured(blank: Disagreement, train: Split, rows: Rows, differs: Bools) -> Disagreement:
    if not differs.any():
        return blank
    cluster = clusters_of(rows.user)
    (label,) = rows.labels
    # An item that is often shown differs more and may be clicked more, and so may a value that is
    # common: only what still holds inside an item and inside a value is the disagreement's own.
    return replace(
        blank,
        share=float(differs.mean()),
        auc=measure(rows.label, differs, cluster),
        inside_items=within(rows.item, differs, rows.label, cluster),
        inside_values=within(rows.others[blank.column], differs, rows.label, cluster),
        adds=added(train.by_label[label].targets, rows, differs, cluster),
    )


def added(targets: Ints, rows: Rows, flag: Bools, cluster: Array) -> Measured:
    """AUC that a flag adds to item means: what it is worth beside an honest model.

    logit(item mean) + w flag, less logit(item mean) alone, on one half of the rows; w is the log
    odds ratio of the flag in the other half, the item means are of the same half of train.
    """
    first, second = rows.fold == 0, rows.fold == 1
    positive = rows.label > 0

    def log_odds(label: Bools) -> float:
        there, total = (flag & label & first).sum() + 0.5, (label & first).sum() + 1.0
        return float(np.log(there / (total - there)))

    mean = item_means(targets, (0,))[rows.item[second]].clip(1e-6, 1 - 1e-6)
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


def judge_categories(categories: Categories, standard: Standard) -> Iterator[Finding]:
    """Where disagreeing marks a label, inside items and inside values."""
    for one in categories.disagreements:
        if one.marks(standard):
            moves = standard.real(one.adds, 0.0) and one.adds.value > standard.resolution
            severity: Severity = "serious" if moves else "warning"
            yield Finding(severity if one.owned else "notice", "category_disagrees", one)

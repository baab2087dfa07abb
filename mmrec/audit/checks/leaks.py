"""Leaks: does anything know the label that no honest feature could know?"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mmrec.audit.checks.statistics import (
    NOTHING,
    Array,
    Measured,
    Standard,
    clusters_of,
    difference,
    group_means,
    item_means,
    list_means,
    measure,
)
from mmrec.audit.findings import Finding, Name
from mmrec.audit.scan.features import newest_of
from mmrec.audit.scan.rows import Rows
from mmrec.audit.scan.split import ByLabel, Split

Subject = Literal["column", "id", "missing", "row_number", "row_id", "label_before"]


@dataclass(frozen=True)
class Score:
    """What one thing tells of the label by itself.

    Attributes:
        subject: a column's values (by size or, of a categorical column, by each value's positive
            rate in the other half of train: whichever tells more), the order of ids, whether a
            column is missing, the number or the key of a row, or the label of the row before.
        honest: AUC of item means or user means, the better of the two.
        of_item: whether it is a function of the item, which can tell no more than the item.
    """

    split: str
    subject: Subject
    column: str
    auc: Measured
    honest: float
    of_item: bool = False


@dataclass(frozen=True)
class TargetInHistory:
    """Rows of train whose history holds the item that they ask about.

    A stranger's history is the measure, because a popular item stands in many and is clicked more.

    Attributes:
        rows: all rows with the label; `holding` those, `newest` those where it is the newest entry.
        of_positives, of_negatives, of_strangers: share of rows by label, and by chance.
        auc: of holding it; `beyond_strangers` how much more than with a stranger's history.
        more_than_strangers: difference of the two shares.
    """

    rows: int
    holding: int
    newest: int
    of_positives: float
    of_negatives: float
    of_strangers: float
    auc: Measured
    beyond_strangers: Measured
    more_than_strangers: Measured


@dataclass(frozen=True)
class Leaks:
    """AUCs against the label of what is not a model.

    Attributes:
        means: positive rates of items and users of one half of train, on the other half.
        scores: every column of train, and the order of rows.

    Nothing is measured where train has one label only.
    """

    means: dict[str, Measured]
    scores: list[Score]
    target_in_history: TargetInHistory | None


def measure_leaks(splits: Mapping[str, Split], label: str) -> Leaks:
    """The AUC against a label of everything that is not a model."""
    train = splits["train"]
    one, roles, rows = train.by_label[label], train.roles, train.sample.labelled(label)
    if not one.counts.measurable or not len(rows.row):
        return Leaks({}, [], None)
    cluster = clusters_of(rows.user)
    means = _means(one, rows, cluster)
    if not train.has_users:
        del means["users"]
    honest = max([0.5, *(mean.value for mean in means.values())])
    ids = {roles.user: rows.user, roles.target: rows.item}
    columns = rows.others | {name: ids[name] for name in ids if name in train.types}
    columns["history length"] = rows.length
    apart = {roles.row_id, roles.weight}  # no input of a model
    probe = _Probe(train, rows, cluster, honest)
    scores = [
        score
        for name, values in columns.items()
        if name not in apart
        for score in probe.column(name, values)
    ]
    row_number = measure(rows.label, rows.row, cluster)
    before = _label_before(one.neighbours.astype(float))
    scores.append(Score("train", "row_number", "", row_number, honest))
    scores.append(Score("train", "label_before", "", before, honest))
    scores += _row_ids(splits, label, honest)
    return Leaks(means, scores, _target_in_history(one, rows, cluster))


def _row_ids(splits: Mapping[str, Split], label: str, honest: float) -> Iterator[Score]:
    for name, split in splits.items():
        key = split.roles.row_id
        if key is not None and key in split.sample.others and split.by_label[label].counts.labelled:
            some = split.sample.labelled(label)
            auc = measure(some.label, some.others[key], clusters_of(some.user))
            yield Score(name, "row_id", key, auc, honest)


def _means(one: ByLabel, rows: Rows, cluster: Array) -> dict[str, Measured]:
    other = rows.fold == 1
    means = {
        "items": item_means(one.targets, (0,))[rows.item],
        "users": group_means(rows.user, rows.label, ~other),
    }
    return {n: measure(rows.label[other], m[other], cluster[other]) for n, m in means.items()}


class _Probe:
    """What single columns of train tell of the label."""

    def __init__(self, train: Split, rows: Rows, cluster: Array, honest: float) -> None:
        self.train, self.rows, self.cluster, self.honest = train, rows, cluster, honest
        self.other, roles = rows.fold == 1, train.roles
        self.ids = {roles.user, roles.target, roles.group}
        self.named = {*train.by_name}
        self.named |= {column.name for column in roles.categorical}
        self.named |= {newest_of(column.name) for column in roles.history_categorical}

    def column(self, name: str, values: Array) -> Iterator[Score]:
        there = ~np.isnan(values.astype(float))
        if not there.all():
            missing = measure(self.rows.label, ~there, self.cluster)
            yield Score("train", "missing", name, missing, self.honest)
        found, of_item = self._by_name(name, values), name == self.train.roles.target
        if name not in self.rows.lists:  # whose names have no order
            some = (self.rows.label[there], values[there], self.cluster[there])
            found.insert(0, measure(*some))
        if name in self.train.by_name:
            of_item = bool(((self.train.by_name[name].rows > 0).sum(axis=1) <= 1).all())
        auc = max(found, key=lambda measured: abs(measured.value - 0.5))
        subject: Subject = "id" if name in self.ids else "column"
        yield Score("train", subject, name, auc, self.honest, of_item)

    def _by_name(self, name: str, values: Array) -> list[Measured]:
        """Of each name's positive rate, and of the values of a list, in the other half."""
        if name not in self.named:
            return []
        label, other = self.rows.label, self.other
        # A missing one is no whole number, so none of the names.
        means = [group_means(np.nan_to_num(values, nan=-0.5), label, ~other)]
        if name in self.rows.lists:
            means.append(list_means(self.rows.lists[name], label, ~other))
        return [measure(label[other], mean[other], self.cluster[other]) for mean in means]


def _label_before(table: Array) -> Measured:
    """AUC of a neighbour's label: (1 + P(1 | 1) - P(1 | 0)) / 2, from the 2 x 2 table."""
    n = float(table.sum())
    margins = np.r_[table.sum(axis=0), table.sum(axis=1)]
    if margins.min() == 0:
        return NOTHING
    rates = table[:, 1] / table.sum(axis=1)
    error = math.sqrt(float((rates * (1 - rates) / table.sum(axis=1)).sum())) / 2
    null = math.sqrt(margins[0] * margins[1] / n / (margins[2] * margins[3])) / 2
    return Measured(0.5 + float(rates[1] - rates[0]) / 2, error, null, int(n))


def _target_in_history(one: ByLabel, rows: Rows, cluster: Array) -> TargetInHistory:
    total, holding, newest = (int(count) for count in one.hits.sum(axis=0))
    negatives, positives = one.hits[:, 1] / np.maximum(1, one.hits[:, 0])
    more = rows.hit.astype(float) - rows.stranger
    error = float(more.std()) / math.sqrt(len(more))
    return TargetInHistory(
        rows=total,
        holding=holding,
        newest=newest,
        of_positives=float(positives),
        of_negatives=float(negatives),
        of_strangers=float(rows.stranger.mean()),
        auc=measure(rows.label, rows.hit, cluster),
        beyond_strangers=difference(rows.label, rows.hit, rows.stranger, cluster),
        more_than_strangers=Measured(float(more.mean()), error, error, len(more)),
    )


def judge_leaks(leaks: Leaks, standard: Standard) -> Iterator[Finding]:
    """What tells more than an honest feature could."""
    order: dict[Subject, Name] = {
        "row_number": "row_order",
        "row_id": "row_order",
        "label_before": "neighbouring_labels",
    }
    for score in leaks.scores:
        name = order.get(score.subject, "single_column")
        if standard.decides(score.auc, score.honest) and not score.of_item:
            yield Finding("serious", name, score)
        elif standard.found(score.auc):
            yield Finding("warning" if score.subject in order else "notice", name, score)
    target = leaks.target_in_history
    if target is not None and target.holding:
        yield _judge_target(target, standard)


def _judge_target(target: TargetInHistory, standard: Standard) -> Finding:
    beyond = target.beyond_strangers
    known = standard.real(target.auc) and standard.real(beyond, 0.0)
    if known and abs(beyond.value) > standard.resolution:
        return Finding("serious", "target_in_history", target)
    # The sign test: cut after the click, a history ends with its target.
    at_end = 2 * target.newest - target.holding > standard.z * math.sqrt(target.holding)
    if at_end and standard.share(target.newest, target.rows):
        return Finding("serious", "target_ends_history", target)
    more = target.more_than_strangers.z(0.0) > standard.z
    return Finding("warning" if more else "notice", "target_in_history", target)

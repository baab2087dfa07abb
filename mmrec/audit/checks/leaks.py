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
    measure,
)
from mmrec.audit.findings import Finding, Name
from mmrec.audit.scan.rows import Rows
from mmrec.audit.scan.split import Split
from mmrec.data.schema import ROW_ID, TARGET, USER

Subject = Literal["column", "missing", "row_number", "row_id", "label_before"]


@dataclass(frozen=True)
class Score:
    """What one thing tells of the label by itself.

    Attributes:
        subject: a column's values (by size or, of a level column, by each value's positive rate in
            the other half of train: whichever tells more), whether a column is missing, the
            number or the column ID of a row, or the label of the row before.
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
        rows: all rows; `holding` those, `newest` those where it is the newest entry.
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


def measure_leaks(splits: Mapping[str, Split]) -> Leaks:
    """The AUC of everything that is not a model."""
    train = splits["train"]
    rows = train.sample.labelled()
    if not train.counts.measurable or not len(rows.row):
        return Leaks({}, [], None)
    cluster = clusters_of(rows.user)
    means = _means(train, rows, cluster)
    honest = max([0.5, *(mean.value for mean in means.values())])
    columns = rows.others | {USER: rows.user, TARGET: rows.item, "history length": rows.length}
    columns.pop(ROW_ID, None)
    scores = [
        score
        for name, values in columns.items()
        for score in _column(train, rows, cluster, name, values, honest)
    ]
    row_number = measure(rows.label, rows.row, cluster)
    before = _label_before(train.neighbours.astype(float))
    scores.append(Score("train", "row_number", "", row_number, honest))
    scores.append(Score("train", "label_before", "", before, honest))
    for name, split in splits.items():
        if ROW_ID in split.sample.others and split.counts.labelled:
            some = split.sample.labelled()
            auc = measure(some.label, some.others[ROW_ID], clusters_of(some.user))
            scores.append(Score(name, "row_id", ROW_ID, auc, honest))
    return Leaks(means, scores, _target_in_history(train, rows, cluster))


def _means(train: Split, rows: Rows, cluster: Array) -> dict[str, Measured]:
    other = rows.fold == 1
    means = {
        "items": item_means(train.targets, (0,))[rows.item],
        "users": group_means(rows.user, rows.label, ~other),
    }
    return {n: measure(rows.label[other], m[other], cluster[other]) for n, m in means.items()}


def _column(
    train: Split, rows: Rows, cluster: Array, name: str, values: Array, honest: float
) -> Iterator[Score]:
    there = ~np.isnan(values.astype(float))
    if not there.all():
        missing = measure(rows.label, ~there, cluster)
        yield Score("train", "missing", name, missing, honest)
    auc, of_item = measure(rows.label[there], values[there], cluster[there]), name == TARGET
    if name in train.levels:
        other = rows.fold == 1
        mean = group_means(np.nan_to_num(values), rows.label, ~other)
        by_value = measure(rows.label[other], mean[other], cluster[other])
        auc = max(auc, by_value, key=lambda measured: abs(measured.value - 0.5))
        of_item = bool(((train.levels[name] > 0).sum(axis=1) <= 1).all())
    yield Score("train", "column", name, auc, honest, of_item)


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


def _target_in_history(train: Split, rows: Rows, cluster: Array) -> TargetInHistory:
    total, holding, newest = (int(count) for count in train.hits.sum(axis=0))
    negatives, positives = train.hits[:, 1] / np.maximum(1, train.hits[:, 0])
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

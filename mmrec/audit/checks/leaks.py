"""Leak checks: does anything know the label that no honest feature could know?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mmrec.audit.checks.context import SMOOTHING, Array, Context, item_means, labelled, user_means
from mmrec.audit.checks.statistics import NOTHING, Measured, clusters_of, difference, measure
from mmrec.audit.report import Finding
from mmrec.audit.scan.scan import Split
from mmrec.data.schema import ROW_ID, TARGET, USER

MOVE = "Find out how it came about; leave the column out of the model until then."


def check_leaks(context: Context) -> tuple[list[Finding], dict[str, Any]]:
    """The AUC of everything that is not a model; facts by score."""
    train = context.train
    if min(train.labels[1:]) == 0 or not len(train.sample["row"]):
        return [], {}
    rows = labelled(train)
    cluster = clusters_of(rows["user"])
    honest = _honest(context, rows, cluster)
    context.honest = max([0.5, *(m.value for m in honest.values())])
    scores = _scores(train, rows, cluster)
    facts: dict[str, Any] = {
        "AUC of means, out of fold": {k: m.to_json() for k, m in honest.items()},
        "AUC of single columns in train": {k: m.to_json() for k, (m, _) in scores.items()},
    }
    findings = [f for name, pair in scores.items() for f in _single(context, name, *pair)]
    findings += _row_order(context, rows, cluster, facts)
    findings += _target_in_history(context, rows, cluster, facts)
    return findings, facts


def _honest(context: Context, rows: dict[str, Array], cluster: Array) -> dict[str, Measured]:
    """What items and users alone tell: the means of one half of train on the other half."""
    other = rows["fold"] == 1
    items = item_means(context.train, (0,))[rows["item"][other]]
    users = user_means(rows, 0)[other]
    label = rows["label"][other]
    return {
        "item means": measure(label, items, cluster[other]),
        "user means": measure(label, users, cluster[other]),
    }


def _scores(
    train: Split, rows: dict[str, Array], cluster: Array
) -> dict[str, tuple[Measured, Measured]]:
    """Each column as a score, by size and by the mean label of its values in the other half."""
    columns = {name: rows[name] for name in train.scalars}
    columns[f"{USER} (id order)"] = rows["user"]
    columns[f"{TARGET} (id order)"] = rows["item"]
    columns["history length"] = rows["length"]
    scores = {}
    for name, values in columns.items():
        there = ~np.isnan(values.astype(float))
        by_size = measure(rows["label"][there], values[there], cluster[there])
        if not there.all():
            missing = measure(rows["label"], ~there, cluster)
            scores[f"{name} is missing"] = (missing, NOTHING)
        by_mean = _by_value(rows, values, cluster) if name in train.levels else NOTHING
        scores[name] = (by_size, by_mean)
    return scores


def _by_value(rows: dict[str, Array], values: Array, cluster: Array) -> Measured:
    """AUC of each value's positive rate in half 0, on the rows of half 1."""
    level = np.nan_to_num(values).astype(np.int64)
    first, second = rows["fold"] == 0, rows["fold"] == 1
    size = int(level.max(initial=0)) + 1
    count = np.bincount(level[first], minlength=size)
    positive = np.bincount(level[first], weights=rows["label"][first] > 0, minlength=size)
    average = positive.sum() / max(1, count.sum())
    mean = (positive + SMOOTHING * average) / (count + SMOOTHING)
    return measure(rows["label"][second], mean[level[second]], cluster[second])


def _single(context: Context, name: str, by_size: Measured, by_mean: Measured) -> list[Finding]:
    best = max(by_size, by_mean, key=lambda m: abs(m.value - 0.5))
    if name in context.train.levels:
        exact = context.train.levels[name]
        of_item = bool(((exact > 0).sum(axis=1) <= 1).all())
    else:
        of_item = name.startswith(TARGET)
    # What is a function of the item can tell no more than the item itself, so it is no leak.
    if context.standard.decides(best, context.honest) and not of_item:
        return [
            Finding(
                "serious",
                "single_column",
                f"{name} alone has AUC {_auc(best)} in train, where item or user means have "
                f"{context.honest:.3f}: it all but is the label.",
                "Ask whether its value is known before the click. " + MOVE,
                {"column": name, "auc": best.to_json(), "honest": context.honest},
            )
        ]
    if context.standard.found(best):
        kind = "a function of the item" if of_item else "not a function of the item"
        return [
            Finding(
                "notice",
                "single_column",
                f"{name}, {kind}, has AUC {_auc(best)} against the label in train by itself.",
                "Expect a model that has it to do at least as well; judge models by what they add.",
                {"column": name, "auc": best.to_json(), "honest": context.honest},
            )
        ]
    return []


def _row_order(
    context: Context, rows: dict[str, Array], cluster: Array, facts: dict[str, Any]
) -> list[Finding]:
    findings = []
    order = measure(rows["label"], rows["row"], cluster)
    next_to = _neighbours(context.train)
    facts["AUC of row order in train"] = {
        "row number": order.to_json(),
        "label of the row before": next_to.to_json(),
    }
    ids = {}
    for split in context.splits.values():
        if ROW_ID in split.sample and split.labelled:
            some = labelled(split)
            ids[split.name] = measure(some["label"], some[ROW_ID], clusters_of(some["user"]))
    if ids:
        facts["AUC of the column ID"] = {k: m.to_json() for k, m in ids.items()}
    what = [
        ("row_order", "the row number in train", order),
        (
            "neighbouring_labels",
            "the label of the row before in train, of another user and item,",
            next_to,
        ),
        *(("row_order", f"the column ID of {name}", measured) for name, measured in ids.items()),
    ]
    for name, words, measured in what:
        if not context.standard.found(measured):
            continue
        serious = context.standard.decides(measured, context.honest)
        findings.append(
            Finding(
                "serious" if serious else "warning",
                name,
                f"{words.capitalize()} has AUC {_auc(measured)} against the label: rows are "
                "ordered by it, so batches read in order, or shuffled in a window, are all alike.",
                "Shuffle the rows of the file once, and keep row numbers out of the model.",
                {"auc": measured.to_json(), "honest": context.honest},
            )
        )
    return findings


def _neighbours(train: Split) -> Measured:
    """AUC of a neighbour's label: (1 + P(1 | 1) - P(1 | 0)) / 2, from the 2 x 2 table."""
    table = train.neighbours.astype(float)
    n = float(table.sum())
    margins = np.r_[table.sum(axis=0), table.sum(axis=1)]
    if margins.min() == 0:
        return NOTHING
    rates = table[:, 1] / table.sum(axis=1)
    error = math.sqrt(float((rates * (1 - rates) / table.sum(axis=1)).sum())) / 2
    null = math.sqrt(margins[0] * margins[1] / n / (margins[2] * margins[3])) / 2
    return Measured(0.5 + float(rates[1] - rates[0]) / 2, error, null, int(n))


def _target_in_history(
    context: Context, rows: dict[str, Array], cluster: Array, facts: dict[str, Any]
) -> list[Finding]:
    """Against a stranger's history, because a popular item stands in many and is clicked more."""
    own = measure(rows["label"], rows["hit"], cluster)
    beyond = difference(rows["label"], rows["hit"], rows["stranger"], cluster)
    total, hit, newest = context.train.hits.sum(axis=0)
    rate = context.train.hits[:, 1] / np.maximum(1, context.train.hits[:, 0])
    facts["target in history, train"] = {
        "rows": int(hit),
        "share of positives": float(rate[1]),
        "share of negatives": float(rate[0]),
        "rows with it newest": int(newest),
        "share in a stranger's history": float(rows["stranger"].mean()),
        "AUC": own.to_json(),
        "AUC beyond a stranger's": beyond.to_json(),
    }
    evidence = facts["target in history, train"]
    if not hit:
        return []
    known = context.standard.real(own) and abs(beyond.z(0.0)) > context.standard.z
    words = f"{hit:,} of {total:,} histories of train hold the very item that the row asks about"
    rates = f"({rate[1]:.1%} of positives, {rate[0]:.1%} of negatives)"
    if known and abs(beyond.value) > context.standard.resolution:
        return [
            Finding(
                "serious",
                "target_in_history",
                f"{words} {rates}: AUC {_auc(own)} from this alone. Either the history was taken "
                "after the click, or negatives were drawn from items never met.",
                "Cut each history before its row's click; where people do come back to items, "
                "draw negatives from met items too.",
                evidence,
            )
        ]
    # The sign test: cut after the click, a history ends with its target.
    at_end = 2 * newest - hit > context.standard.z * math.sqrt(hit)
    if at_end and context.standard.share(int(newest), int(total)):
        return [
            Finding(
                "serious",
                "target_in_history",
                f"{words} {rates}, mostly as its newest entry: histories end with the row itself, "
                "which at serving time they cannot.",
                "Cut each history before its row.",
                evidence,
            )
        ]
    strangers = float(rows["stranger"].mean())
    more = rows["hit"].astype(float) - rows["stranger"]
    error = float(more.std()) / math.sqrt(max(1, len(more)))
    beyond_chance = error > 0 and float(more.mean()) / error > context.standard.z
    return [
        Finding(
            "warning" if beyond_chance else "notice",
            "target_in_history",
            f"{words} {rates}; a stranger's history holds it in {strangers:.1%} of rows. "
            "It does not tell the label.",
            "Fine where people come back to items; otherwise look at how histories were cut.",
            evidence,
        )
    ]


def _auc(measured: Measured) -> str:
    low, high = measured.interval()
    return f"{measured.value:.3f} [{low:.3f}, {high:.3f}]"

"""Checks of form: columns, ids, padding, labels, duplicates."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmrec.audit.checks.context import Context
from mmrec.audit.report import Finding
from mmrec.audit.scan.scan import Split
from mmrec.data.schema import COLUMNS_LABELLED, COLUMNS_TEST, HISTORY, LABEL, ROW_ID, TARGET, USER

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def check_shape(context: Context) -> tuple[list[Finding], dict[str, Any]]:
    """All checks of form; facts by split."""
    findings: list[Finding] = []
    facts: dict[str, Any] = {
        "items, with the padding": context.num_items,
        "splits": {name: _facts(split) for name, split in context.splits.items()},
        "columns": {name: split.types for name, split in context.splits.items()},
    }
    facts["history lengths"] = {
        name: split.lengths.tolist() for name, split in context.splits.items()
    }
    for split in context.splits.values():
        findings += _columns(split) + _histories(split) + _ids(split)
        findings += _duplicates(split, context)
        if split.name != "test":
            findings += _labels(split)
    findings += _constants(context)
    if context.valid is None:
        findings.append(
            Finding(
                "warning",
                "no_valid",
                "There is no labelled valid.parquet, so nothing says how a model does on new rows.",
                "Hold rows back: by user if test has new users, by time if it has later rows.",
            )
        )
    return findings, facts


def _facts(split: Split) -> dict[str, Any]:
    lengths = np.arange(len(split.lengths))
    cumulated = np.cumsum(split.lengths) / max(1, split.lengths.sum())
    users = len(np.unique(split.sample["user"])) if split.sample else 0
    return {
        "rows": split.rows,
        "users": round(users / split.rate) if split.rate else 0,
        "items shown": int((split.targets.sum(axis=(0, 1))[1:] > 0).sum()),
        "positive rate": split.positive_rate if split.labelled else None,
        "rows without label": int(split.labels[0]),
        "history width": split.width,
        "mean length": float((lengths * split.lengths).sum() / max(1, split.lengths.sum())),
        **{f"length q{int(q * 100)}": int(np.searchsorted(cumulated, q)) for q in QUANTILES},
        "empty histories": int(split.lengths[0]),
        "right-padded": split.late_padding,
        "with gaps": split.holes,
        "unknown target": split.unknown_target,
        "unknown in history": split.unknown_history,
        "repeated rows, sampled": _repeats(split),
        "holds its target": int(split.hits[:, 1].sum()),
        "sampled": len(split.sample.get("row", ())),
    }


def _repeats(split: Split) -> int:
    """Sampled rows whose user, item and history an earlier one has."""
    return len(split.sample["key"]) - len(np.unique(split.sample["key"])) if split.sample else 0


def _columns(split: Split) -> list[Finding]:
    findings = []
    wanted = COLUMNS_TEST if split.name == "test" else COLUMNS_LABELLED
    absent = [name for name in wanted if name not in split.types]
    if absent:
        serious = any(name in (USER, HISTORY, TARGET, LABEL) for name in absent)
        findings.append(
            Finding(
                "serious" if serious else "warning",
                "missing_column",
                f"{split.name} has no column {', '.join(absent)}.",
                "Add it, or leave out what needs it.",
                {"split": split.name, "columns": absent},
            )
        )
    if split.odd_types:
        listed = ", ".join(f"{name} is {kind}" for name, kind in split.odd_types.items())
        findings.append(
            Finding(
                "serious",
                "column_type",
                f"In {split.name}, {listed}: the loaders refuse it, and what here rests on the "
                "column may be left out.",
                "Write the column again in the type named.",
                {"split": split.name, "columns": split.odd_types},
            )
        )
    missing = {name: n for name, n in split.missing.items() if n}
    if split.name == "test":
        missing.pop(LABEL, None)
    if missing:
        listed = ", ".join(f"{name} in {count:,} rows" for name, count in missing.items())
        findings.append(
            Finding(
                "serious",
                "missing_values",
                f"{split.name} has nulls or NaN: {listed}; readers refuse them, "
                "and a NaN that gets through makes every weight NaN.",
                "Drop these rows, or write the value that missing stands for (0 is padding).",
                {"split": split.name, "rows": missing},
            )
        )
    if split.rows == 0:
        findings.append(
            Finding("serious", "empty_split", f"{split.name} has no rows.", "Write it again.")
        )
    return findings


def _histories(split: Split) -> list[Finding]:
    findings = []
    if split.late_padding:
        findings.append(
            Finding(
                "serious",
                "right_padded_history",
                f"{split.late_padding:,} of {split.rows:,} histories of {split.name} are padded "
                f"on the right (first in row {split.first_late}): the newest places, which a "
                "ranker reads first, hold padding, and a mask built for the left hides items.",
                "Move the zeros to the left.",
                {"split": split.name, "rows": split.late_padding, "first row": split.first_late},
            )
        )
    if split.holes:
        findings.append(
            Finding(
                "warning",
                "holes_in_history",
                f"{split.holes:,} histories of {split.name} have zeros between items.",
                "Close the gaps; padding belongs on the left.",
                {"split": split.name, "rows": split.holes},
            )
        )
    if split.rows and split.lengths[0] == split.rows and HISTORY in split.types:
        findings.append(
            Finding(
                "warning",
                "no_history",
                f"Every history of {split.name} is empty, so sequence encoders learn nothing.",
                "Check how histories were made.",
                {"split": split.name},
            )
        )
    return findings


def _ids(split: Split) -> list[Finding]:
    findings = []
    if split.unknown_target or split.unknown_history:
        findings.append(
            Finding(
                "serious",
                "unknown_items",
                f"{split.unknown_target:,} targets and {split.unknown_history:,} histories of "
                f"{split.name} have ids that are not in the item table (0..{split.num_items - 1}): "
                "an index error on the device, or another item's vector.",
                "Add these items to item_info, or drop the rows.",
                {
                    "split": split.name,
                    "targets": split.unknown_target,
                    "histories": split.unknown_history,
                },
            )
        )
    if split.padding_target:
        findings.append(
            Finding(
                "serious",
                "padding_as_target",
                f"{split.padding_target:,} rows of {split.name} ask about item 0, the padding.",
                "Number items from 1.",
                {"split": split.name, "rows": split.padding_target},
            )
        )
    return findings


def _labels(split: Split) -> list[Finding]:
    findings = []
    if split.odd_labels:
        findings.append(
            Finding(
                "serious",
                "label_values",
                f"{split.odd_labels:,} labels of {split.name} are neither 0 nor 1.",
                "Make labels 0 or 1.",
                {"split": split.name, "rows": split.odd_labels},
            )
        )
    if LABEL in split.types and split.rows and min(split.labels[1:]) == 0:
        findings.append(
            Finding(
                "serious",
                "one_label",
                f"{split.name} has {split.labels[2]:,} positives and {split.labels[1]:,} "
                "negatives, so no AUC exists.",
                "Put both kinds of rows into it.",
                {"split": split.name},
            )
        )
    return findings


def _duplicates(split: Split, context: Context) -> list[Finding]:
    if not split.sample or split.name == "test":
        return []
    again = _repeats(split)
    if not again:
        return []
    keys, place = np.unique(split.sample["key"], return_inverse=True)
    label = split.sample["label"]
    high = np.full(len(keys), -2)
    low = np.full(len(keys), 2)
    np.maximum.at(high, place, label)
    np.minimum.at(low, place, label)
    torn = int((high != low).sum())
    rows = len(place)
    return [
        Finding(
            "warning" if context.standard.share(again, rows) else "notice",
            "duplicate_rows",
            f"{again:,} of {rows:,} sampled rows of {split.name} repeat another row's user, item "
            f"and history; {torn:,} of the repeated rows bear both labels.",
            "Drop repeats, unless a row stands for one showing and an item is shown many times.",
            {"split": split.name, "repeats": again, "both labels": torn, "rows": rows},
        )
    ]


def _constants(context: Context) -> list[Finding]:
    findings = []
    for name, (low, high) in context.train.ranges.items():
        if low == high and name != ROW_ID:
            findings.append(
                Finding(
                    "warning",
                    "constant_column",
                    f"{name} is {low:g} in every row of train: a model can learn nothing from it, "
                    "and meets whatever other values valid and test hold unprepared.",
                    "Leave the column out, or find where its values were lost.",
                    {"column": name, "value": low},
                )
            )
    return findings

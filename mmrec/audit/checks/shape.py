"""Form: columns, ids, padding, labels, repeated rows, all counted by the scan."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mmrec.audit.checks.statistics import Standard
from mmrec.audit.findings import Finding, Severity, found
from mmrec.audit.scan.columns import Columns
from mmrec.audit.scan.items import Content
from mmrec.audit.scan.numbers import Numbers
from mmrec.audit.scan.split import Counts, Keys, LabelCounts, Split


@dataclass(frozen=True)
class Drawn:
    """Rows of label 0 that nobody saw: how they were drawn, as the schema says."""

    how: str


@dataclass(frozen=True)
class Shape:
    """Facts of form.

    Attributes:
        roles: column of the click log to its role.
        counts, types, lengths: by split; arrow type by column, rows by length of their history.
        by_label: rows by label, of every split.
        columns: those that break a rule, by table.
        numbers: numeric columns of all tables.
        keys: columns whose values stand once each.
        drawn: how negatives were drawn; None = they were logged.
    """

    roles: dict[str, str]
    counts: dict[str, Counts]
    types: dict[str, dict[str, str]]
    lengths: dict[str, list[int]]
    by_label: list[LabelCounts]
    columns: dict[str, Columns]
    numbers: list[Numbers]
    keys: list[Keys]
    drawn: Drawn | None = None


def measure_shape(splits: Mapping[str, Split], content: Content) -> Shape:
    """Facts of form."""
    negatives = splits["train"].roles.negatives
    columns = {name: split.columns for name, split in splits.items()}
    numbers = [one for split in splits.values() for one in split.numbers.values()]
    keys = [split.keys for split in splits.values()]
    if content.table is not None:
        columns["item_info"] = content.table.columns
        numbers += content.table.numbers.values()
        keys.append(content.table.keys)
    if content.features is not None:
        columns["features"] = content.features
    return Shape(
        roles=dict(splits["train"].roles.roles()),
        counts={name: split.counts for name, split in splits.items()},
        types={name: split.types for name, split in splits.items()},
        lengths={name: split.lengths.tolist() for name, split in splits.items()},
        by_label=[one.counts for split in splits.values() for one in split.by_label.values()],
        columns=columns,
        numbers=numbers,
        keys=[some for some in keys if some is not None],
        drawn=None if negatives is None else Drawn(negatives),
    )


def judge_shape(shape: Shape, standard: Standard) -> Iterator[Finding]:
    """What of it breaks training, or misleads."""
    if shape.drawn is not None:
        yield Finding("notice", "drawn_negatives", shape.drawn)
    history = next(name for name, role in shape.roles.items() if role == "history")
    for split, counts in shape.counts.items():
        yield from _judge_columns(shape.columns[split])
        yield from _judge_counts(counts, standard, has_history=history in shape.types[split])
        for label in shape.by_label:
            if label.split == split != "test":
                yield from _judge_label(label, shape.types[split])
    for table, columns in shape.columns.items():
        if table not in shape.counts:
            yield from _judge_columns(columns)
        if table not in ("valid", "test"):
            yield from found(columns, (bool(columns.constant), "warning", "constant_column"))
    for keys in shape.keys:
        severity: Severity = "serious" if keys.table in shape.counts else "warning"
        yield from found(keys, (keys.repeated > 0, severity, "repeated_keys"))
    if not any(label.split == "valid" and label.labelled for label in shape.by_label):
        yield Finding("warning", "no_valid")


def _judge_columns(columns: Columns) -> Iterator[Finding]:
    return found(
        columns,
        (bool(columns.absent), "serious" if columns.fatal else "warning", "missing_column"),
        (bool(columns.refused), "serious", "column_type"),
        (bool(columns.missing), "serious", "missing_values"),
        (bool(columns.outside), "serious", "values_outside"),
        (bool(columns.infinite), "serious", "infinite_numbers"),
        (bool(columns.uneven), "serious", "uneven_history"),
    )


def _judge_counts(counts: Counts, standard: Standard, *, has_history: bool) -> Iterator[Finding]:
    empty = has_history and 0 < counts.rows == counts.empty_histories
    unknown = counts.unknown_targets + counts.unknown_histories > 0
    many = standard.share(counts.repeated, counts.sampled)
    repeated = counts.repeated > 0 and counts.split != "test"
    return found(
        counts,
        (counts.rows == 0, "serious", "empty_split"),
        (counts.right_padded > 0, "serious", "right_padded_history"),
        (counts.with_gaps > 0, "warning", "holes_in_history"),
        (empty, "warning", "no_history"),
        (unknown, "serious", "unknown_items"),
        (counts.padding_targets > 0, "serious", "padding_as_target"),
        (repeated, "warning" if many else "notice", "duplicate_rows"),
    )


def _judge_label(label: LabelCounts, types: Mapping[str, str]) -> Iterator[Finding]:
    rows = label.positives + label.negatives + label.unlabelled
    alone = label.label in types and rows > 0 and not label.measurable
    return found(
        label,
        (label.odd_labels > 0, "serious", "label_values"),
        (alone, "serious", "one_label"),
    )

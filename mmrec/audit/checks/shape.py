"""Form: columns, ids, padding, labels, repeated rows, all counted by the scan."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mmrec.audit.checks.statistics import Standard
from mmrec.audit.findings import Finding, found
from mmrec.audit.scan.split import Counts, Split
from mmrec.data.schema import HISTORY, LABEL, TARGET, USER

NEEDED = {USER, HISTORY, TARGET, LABEL}


@dataclass(frozen=True)
class Shape:
    """Facts of form, by split: counts, arrow type by column, rows by length of their history."""

    counts: dict[str, Counts]
    types: dict[str, dict[str, str]]
    lengths: dict[str, list[int]]


def measure_shape(splits: Mapping[str, Split]) -> Shape:
    """Facts of form."""
    return Shape(
        counts={name: split.counts for name, split in splits.items()},
        types={name: split.types for name, split in splits.items()},
        lengths={name: split.lengths.tolist() for name, split in splits.items()},
    )


def judge_shape(shape: Shape, standard: Standard) -> Iterator[Finding]:
    """What of it breaks training, or misleads."""
    for split, counts in shape.counts.items():
        test, types = split == "test", shape.types[split]
        needed = bool(NEEDED & {*counts.absent})
        empty = 0 < counts.rows == counts.empty_histories and HISTORY in types
        unknown = counts.unknown_targets + counts.unknown_histories > 0
        many = standard.share(counts.repeated, counts.sampled)
        alone = LABEL in types and counts.rows > 0 and not counts.measurable
        yield from found(
            counts,
            (bool(counts.absent), "serious" if needed else "warning", "missing_column"),
            (bool(counts.refused), "serious", "column_type"),
            (bool(counts.missing), "serious", "missing_values"),
            (counts.rows == 0, "serious", "empty_split"),
            (counts.right_padded > 0, "serious", "right_padded_history"),
            (counts.with_gaps > 0, "warning", "holes_in_history"),
            (empty, "warning", "no_history"),
            (unknown, "serious", "unknown_items"),
            (counts.padding_targets > 0, "serious", "padding_as_target"),
            (counts.repeated > 0 and not test, "warning" if many else "notice", "duplicate_rows"),
            (counts.odd_labels > 0 and not test, "serious", "label_values"),
            (alone and not test, "serious", "one_label"),
        )
    train = shape.counts["train"]
    yield from found(train, (bool(train.constant), "warning", "constant_column"))
    if "valid" not in shape.counts or not shape.counts["valid"].labelled:
        yield Finding("warning", "no_valid")

"""What a check finds: a kind, how bad it is, and the figures that it rests on.

The checks of `checks/` make findings; `report/sentences.py` is where they are put in words.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["serious", "warning", "notice"]
SEVERITIES: tuple[Severity, ...] = ("serious", "warning", "notice")
"""From the worst to the mildest."""

MEANING: dict[Severity, str] = {
    "serious": "the AUC will be wrong, or training will break",
    "warning": "results may mislead, or be worse than they need be",
    "notice": "worth knowing when results are read",
}
"""Severity -> what it says of the data, as the report heads its sections."""

Name = Literal[
    # item tables and files
    "no_item_info", "item_info_ids", "damaged_table",
    # shape
    "missing_column", "column_type", "missing_values", "values_outside", "infinite_numbers",
    "uneven_history", "empty_split", "right_padded_history", "holes_in_history", "no_history",
    "unknown_items", "padding_as_target", "duplicate_rows", "label_values", "one_label",
    "constant_column", "repeated_keys", "no_valid", "drawn_negatives",
    # leaks, categories, future items
    "single_column", "row_order", "neighbouring_labels", "target_in_history",
    "target_ends_history", "category_disagrees", "future_items", "future_in_train",
    # shift, groups
    "users_shared", "rows_in_train", "unseen_items", "popularity_shift", "shift",
    "item_means_shift", "label_rate_shift", "groups_of_one_label",
    # content
    "no_vectors", "broken_vectors", "constant_vectors", "duplicate_vectors", "zero_vectors",
    "constant_dimensions", "missing_images", "broken_images", "duplicate_images",
    "images_not_decoded", "empty_titles", "duplicate_titles", "content_probe",
]  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One thing that the data are.

    Attributes:
        severity: see `MEANING`.
        name: its kind, such as `target_in_history`.
        evidence: the figures behind it, a dataclass of the check that found it; None where it is
            about something that is not there.
        label: the label that it is about; None where there is but one, or it is about none.
    """

    severity: Severity
    name: Name
    evidence: Any = None
    label: str | None = None


def found(evidence: object, *rules: tuple[bool, Severity, Name]) -> Iterator[Finding]:
    """A finding for each rule that holds."""
    return (Finding(severity, name, evidence) for holds, severity, name in rules if holds)

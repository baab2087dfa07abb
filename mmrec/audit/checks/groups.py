"""Groups: does ranking within them say anything?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from mmrec.audit.findings import Finding, found
from mmrec.audit.scan.split import Split


@dataclass(frozen=True)
class Groups:
    """Sampled rows with a label, by the group that they are ranked in.

    Attributes:
        rows, groups: how many; `mixed` the rows whose group has both labels.
    """

    split: str
    column: str
    rows: int
    groups: int
    mixed: int


@dataclass(frozen=True)
class Grouped:
    """Of every labelled split, where the log has groups."""

    groups: list[Groups]


def measure_groups(splits: Mapping[str, Split], label: str) -> Grouped:
    """Rows that can be ranked right or wrong."""
    some = [split for split in splits.values() if split.by_label[label].counts.labelled]
    return Grouped([one for one in (_measure(split, label) for split in some) if one is not None])


def _measure(split: Split, label: str) -> Groups | None:
    column, rows = split.roles.group, split.sample.labelled(label)
    if column is None or column not in rows.others:
        return None
    _, place, size = np.unique(rows.others[column], return_inverse=True, return_counts=True)
    positive = np.bincount(place, weights=rows.label, minlength=len(size))
    mixed = size[(positive > 0) & (positive < size)]
    return Groups(split.name, column, len(rows.row), len(size), int(mixed.sum()))


def judge_groups(grouped: Grouped) -> Iterator[Finding]:
    """Groups that have one label each."""
    for groups in grouped.groups:
        yield from found(groups, (groups.mixed == 0, "warning", "groups_of_one_label"))

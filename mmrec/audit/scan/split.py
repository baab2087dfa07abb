"""What one pass over one click log finds; `clicks.py` fills it in.

N items with the padding, L entries of the longest history.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from mmrec.audit.scan.columns import Columns
from mmrec.audit.scan.names import ByName
from mmrec.audit.scan.numbers import Numbers
from mmrec.audit.scan.rows import Rows
from mmrec.io.parquet import Ints
from mmrec.schema import Clicks

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass
class Counts:
    """What is counted in a split.

    Attributes:
        split, rows, num_items: its name, its rows, N.
        users, items_shown: users, estimated where the sample is not the whole, 0 where the log
            tells of none; items asked about.
        history_width: L, padding included; `mean_length` and `length_quantiles` (at `QUANTILES`)
            of items in a history.
        empty_histories, right_padded, with_gaps: histories without an item, with 0 as the newest
            entry after an item, with 0 between items; `first_right_padded` is a row's number.
        holding_target: rows whose history holds the item that they ask about.
        unknown_targets, unknown_histories, padding_targets: rows with ids outside 0..N - 1, or
            that ask about item 0.
        sampled, repeated: rows in the sample, and those whose user, item and history an earlier
            one has; `both_labels` users, items and histories with rows of different labels.
    """

    split: str
    rows: int
    num_items: int
    users: int = 0
    items_shown: int = 0
    history_width: int = 0
    mean_length: float = 0.0
    length_quantiles: list[int] = field(default_factory=list)
    empty_histories: int = 0
    right_padded: int = 0
    first_right_padded: int | None = None
    with_gaps: int = 0
    holding_target: int = 0
    unknown_targets: int = 0
    unknown_histories: int = 0
    padding_targets: int = 0
    sampled: int = 0
    repeated: int = 0
    both_labels: int = 0


@dataclass
class LabelCounts:
    """Rows of a split by one of its labels.

    Attributes:
        unlabelled: rows without it; `odd_labels` those of them with a value that is neither.
        rate: share of positives among the rows that have the label, NaN where none has.
    """

    split: str
    label: str
    positives: int = 0
    negatives: int = 0
    unlabelled: int = 0
    odd_labels: int = 0
    rate: float = math.nan

    @property
    def labelled(self) -> bool:
        """Whether there is any usable label."""
        return self.positives + self.negatives > 0

    @property
    def measurable(self) -> bool:
        """Whether there is an AUC."""
        return min(self.positives, self.negatives) > 0


class ByLabel:
    """What is counted of one label.

    Attributes:
        targets: (2 folds, 2 labels, N) rows by item.
        hits: (2 labels, 3): rows, rows whose history holds the target, and at the newest place.
        neighbours: (2, 2) label by next row's label, for rows of different users and items.
    """

    def __init__(self, split: str, label: str, num_items: int) -> None:
        self.counts = LabelCounts(split, label)
        self.targets = np.zeros((2, 2, num_items), dtype=np.int64)
        self.hits = np.zeros((2, 3), dtype=np.int64)
        self.neighbours = np.zeros((2, 2), dtype=np.int64)


@dataclass(frozen=True)
class Overlap:
    """Of the sampled users, pairs of user and item, and whole rows of a split: those in train."""

    split: str
    users: int
    users_found: int
    pairs: int
    pairs_found: int
    rows: int
    rows_found: int


@dataclass(frozen=True)
class Keys:
    """A column whose values stand once each: of `rows`, those whose value an earlier row has."""

    table: str
    column: str
    rows: int
    repeated: int

    @classmethod
    def of(cls, table: str, column: str, array: pa.Array) -> Keys:
        """Count them."""
        values = array.drop_null()
        return cls(table, column, len(values), len(values) - len(values.unique()))


@dataclass
class Split:
    """A click log that was read.

    Attributes:
        roles: of its columns.
        types: column to arrow type.
        columns: those that break a rule.
        by_name: categorical column to its rows by item and name.
        numbers: numeric column to its moments.
        keys: ids of the rows, where they are handed back with predictions.
        lengths: (L + 1,) rows by number of real items.
        asked: (2 folds, N) rows by item.
        by_label: what is counted of each label.
        in_history: (N,) how often items stand in histories.
        ranges: what else is known of a row to its smallest and largest value.
        sample: rows of whole users; `followed` those of fewer users, with their histories.
        overlaps: other split to what of its sample stands in this one.
    """

    name: str
    roles: Clicks
    counts: Counts
    columns: Columns
    types: dict[str, str]
    by_name: dict[str, ByName]
    sample: Rows = field(init=False)
    followed: Rows = field(init=False)
    keys: Keys | None = None
    numbers: dict[str, Numbers] = field(default_factory=dict)
    lengths: Ints = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    overlaps: dict[str, Overlap] = field(default_factory=dict)

    def __post_init__(self) -> None:
        items, labels = self.counts.num_items, self.roles.labels
        self.asked = np.zeros((2, items), dtype=np.int64)
        self.in_history = np.zeros(items, dtype=np.int64)
        self.by_label = {label: ByLabel(self.name, label, items) for label in labels}

    @property
    def has_users(self) -> bool:
        """Whether the log tells its users apart."""
        return self.roles.user in self.types

    @property
    def labelled(self) -> bool:
        """Whether any row has a usable label."""
        return any(one.counts.labelled for one in self.by_label.values())

"""What one pass over one click log finds; `clicks.py` fills it in.

N items with the padding, L entries of the longest history, V values of a level column.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mmrec.audit.scan.rows import Rows
from mmrec.io.parquet import Ints

MOST_CELLS = 64_000_000  # entries of a table by item
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass
class Counts:
    """What is counted in a split.

    Attributes:
        split, rows, num_items: its name, its rows, N.
        absent: columns of the layout that it has not; `refused` column to the type that it has
            and the one that the loaders need; `missing` column to rows with a null or NaN;
            `constant` column to the one value that it has in all rows.
        users, items_shown: users, estimated where the sample is not the whole; items asked about.
        positives, negatives, unlabelled: rows by label; `odd_labels` the unlabelled ones that have
            another label than 0 and 1.
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
    absent: list[str]
    refused: dict[str, tuple[str, str]]
    missing: dict[str, int] = field(default_factory=Counter)
    constant: dict[str, float] = field(default_factory=dict)
    users: int = 0
    items_shown: int = 0
    positives: int = 0
    negatives: int = 0
    unlabelled: int = 0
    odd_labels: int = 0
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

    @property
    def labelled(self) -> bool:
        """Whether there is any usable label."""
        return self.positives + self.negatives > 0

    @property
    def measurable(self) -> bool:
        """Whether there is an AUC."""
        return min(self.positives, self.negatives) > 0


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


@dataclass
class Split:
    """A click log that was read.

    Attributes:
        types: column to arrow type.
        lengths: (L + 1,) rows by number of real items.
        targets: (2 folds, 2 labels, N) rows by item; rows without label count as label 0.
        in_history: (N,) how often items stand in histories.
        hits: (2 labels, 3): rows, rows whose history holds the target, and at the newest place.
        neighbours: (2, 2) label by next row's label, for rows of different users and items.
        levels: level column to (N, V) rows by item and value.
        ranges: scalar column to smallest and largest value.
        sample: rows of whole users; `followed` those of fewer users, with their histories.
        overlaps: other split to what of its sample stands in this one.
    """

    name: str
    counts: Counts
    types: dict[str, str]
    levels: dict[str, NDArray[np.int32]]
    sample: Rows = field(init=False)
    followed: Rows = field(init=False)
    lengths: Ints = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    hits: Ints = field(default_factory=lambda: np.zeros((2, 3), dtype=np.int64))
    neighbours: Ints = field(default_factory=lambda: np.zeros((2, 2), dtype=np.int64))
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    overlaps: dict[str, Overlap] = field(default_factory=dict)

    def __post_init__(self) -> None:
        items = self.counts.num_items
        self.targets = np.zeros((2, 2, items), dtype=np.int64)
        self.in_history = np.zeros(items, dtype=np.int64)

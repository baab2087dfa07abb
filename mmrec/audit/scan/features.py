"""The columns of a click log that are neither history, target, user nor label, as numbers.

Comes in: a batch of arrow columns. Goes out: numbers, one a row; what is odd is counted.
B rows, W places for the values of a list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from mmrec.audit.scan.columns import any_of, beyond, count, holes
from mmrec.audit.scan.names import codes_of, names_of
from mmrec.audit.scan.numbers import Numbers
from mmrec.audit.scan.rows import Array, Bools
from mmrec.audit.scan.split import Split
from mmrec.io.lenient import floats, integers, is_scalar, lists
from mmrec.io.parquet import Ints, is_list


def newest_of(column: str) -> str:
    """The name of what a history feature says of the newest item."""
    return f"newest {column}"


def length_of(column: str) -> str:
    """The name of how many values a list has."""
    return f"length of {column}"


@dataclass(frozen=True)
class Features:
    """Of a batch, as in `Rows`: `others` by name (B,) float64, `lists` by column (B, W) int32."""

    others: dict[str, Array] = field(default_factory=dict)
    lists: dict[str, Array] = field(default_factory=dict)


def read_features(batch: Mapping[str, pa.Array], newest: Array, split: Split) -> Features:
    """Numbers of every column that has any; of a history feature its newest value.

    Args:
        batch: all columns.
        newest: (B,) the last entry of each history, 0 where it is empty.
        split: where odd values and moments are counted.
    """
    roles, reader = split.roles, _Reader(batch, newest, split)
    for name, array in batch.items():
        if is_scalar(array.type):
            reader.scalar(name, array)
        elif not is_list(array.type):
            count(split.columns.missing, name, np.asarray(array.is_null().to_numpy(False)))
        elif name in reader.aligned:
            reader.history_feature(name, array)
        elif name in reader.limits:
            reader.list_of_categories(name, array)
    for known in (roles.target, roles.user, *roles.labels):
        reader.found.others.pop(known or "", None)
    return reader.found


class _Reader:
    """Fills `found`, a column at a time."""

    def __init__(self, batch: Mapping[str, pa.Array], newest: Array, split: Split) -> None:
        roles, history = split.roles, batch.get(split.roles.history)
        self.roles, self.columns, self.numbers = roles, split.columns, split.numbers
        self.there = newest != 0
        self.limits = {c.name: c.limit for c in (*roles.categorical, *roles.history_categorical)}
        self.aligned = {*roles.history_numeric, *(c.name for c in roles.history_categorical)}
        self.real: Bools | None = None  # entries of all histories end to end that are items
        if self.aligned and history is not None and is_list(history.type):
            items, self.lengths = lists(history)
            self.real = integers(items) != 0
        self.found = Features()

    def scalar(self, name: str, array: pa.Array) -> None:
        named = name in (*self.limits, self.roles.group) and pa.types.is_integer(array.type)
        values = names_of(array) if named else floats(array)
        self.found.others[name] = values
        if name in self.roles.numeric:
            self._add(name, values)
        elif name not in self.roles.labels or len(self.roles.labels) == 1:
            count(self.columns.missing, name, np.isnan(values))
        if name == self.roles.weight:
            count(self.columns.outside, name, values < 0)
        if name in (self.roles.weight, *self.roles.numeric):
            count(self.columns.infinite, name, np.isinf(values))
        if self.limits.get(name) is not None:
            count(self.columns.outside, name, beyond(values, self.limits[name]))

    def list_of_categories(self, name: str, array: pa.Array) -> None:
        lengths = self._categories(name, array)
        values = integers(lists(array)[0])
        self.found.others[name], self.found.lists[name] = names_of(array), codes_of(values, lengths)
        self.found.others[length_of(name)] = lengths.astype(np.float64)

    def history_feature(self, name: str, array: pa.Array) -> None:
        values, lengths = lists(array)
        numbers = names_of(values) if name in self.limits else floats(values)
        if name in self.limits:
            self._categories(name, array)
        else:
            count(self.columns.missing, name, np.asarray(array.is_null().to_numpy(False)))
            count(self.columns.infinite, name, any_of(np.isinf(numbers), lengths))
            # What stands beside padding is no value.
            fits = self.real is not None and len(self.real) == len(numbers)
            self._add(name, numbers[self.real] if fits else numbers)
        if self.real is not None:
            count(self.columns.uneven, name, lengths != self.lengths)
        last, some = np.full(len(lengths), np.nan), self.there & (lengths > 0)
        last[some] = numbers[np.cumsum(lengths)[some] - 1]
        self.found.others[newest_of(name)] = last

    def _categories(self, name: str, array: pa.Array) -> Ints:
        """Count odd lists, return their lengths."""
        values, lengths = lists(array)
        count(self.columns.missing, name, holes(array, values, lengths))
        outside = beyond(integers(values), self.limits[name])
        count(self.columns.outside, name, any_of(outside, lengths))
        return lengths

    def _add(self, name: str, values: Array) -> None:
        blank = Numbers(self.columns.table, name)
        self.numbers[name] = self.numbers.get(name, blank).and_of(values)

"""Rows of a click log as numpy columns: a batch of them, or those that are kept of all batches.

Kept are whole users, drawn by a hash, so that all splits keep the same ones: errors are computed
over users, so a sample must hold a user with all its rows or not at all. Next: `reading.py`.
n rows, L entries of a history.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrec.io.hashing import FULL, mix64

Array = NDArray[Any]
Bools = NDArray[np.bool_]
Hashes = NDArray[np.uint64]

FEWEST_USERS = 30  # below, a variance between users is a guess: rows stand for themselves


@dataclass(frozen=True)
class Rows:
    """n rows.

    Attributes:
        row: (n,) int64 number in the file.
        user: (n,) int64, a hash of names that are no numbers.
        item: (n,) int64, what is asked about; 0 where it is missing or not in the item table.
        history: (n, L) ids, left-padded with 0; width 0 in a sample.
        length: (n,) items in the history.
        hit: (n,) bool, whether the history holds the item.
        stranger: (n,) bool, whether the history of another user's row does.
        key: (n,) hash of user, item and history as they are in the file.
        labels: label column to (n,) int8 in {0, 1}, -1 where it is missing or neither.
        others: what else is known of a row by name, (n,) float64, NaN where missing.
        lists: columns of lists of categories, (n, W) int32, see `names.codes_of`.
    """

    row: Array
    user: Array
    item: Array
    history: Array
    length: Array
    hit: Array
    stranger: Array
    key: Array
    labels: dict[str, Array]
    others: dict[str, Array]
    lists: dict[str, Array]

    def where(self, some: Array) -> Rows:
        """The rows of a mask, or of these places."""

        def part(values: Any) -> Any:
            return {n: v[some] for n, v in values.items()} if type(values) is dict else values[some]

        return Rows(**{name: part(values) for name, values in vars(self).items()})

    def labelled(self, label: str) -> Rows:
        """The rows that have this label, and no other label of theirs."""
        values = self.labels[label]
        return replace(self, labels={label: values}).where(values >= 0)

    @property
    def label(self) -> Array:
        """(n,) the label of rows that have one only."""
        (label,) = self.labels.values()
        return label

    @property
    def fold(self) -> Array:
        """(n,) each row's half of the file, 0 or 1, at random but always the same."""
        return np.asarray(mix(self.row) & np.uint64(1), dtype=np.int64)

    @property
    def full(self) -> Bools:
        """(n,) whether a history has no padding, so that it may have dropped what was older."""
        return np.asarray(self.length >= self.history.shape[1])


def stacked(parts: list[Any]) -> Any:
    """Arrays of consecutive rows as one, also in dicts and `Rows`; matrices flush right."""
    kind = type(parts[0])
    if kind is Rows:
        return Rows(**stacked([vars(part) for part in parts]))
    if kind is dict:
        return {name: stacked([part[name] for part in parts]) for name in parts[0]}
    if parts[0].ndim == 2:
        width = max(part.shape[1] for part in parts)
        parts = [np.pad(part, ((0, 0), (width - part.shape[1], 0))) for part in parts]
    return np.concatenate(parts)


def find(sought: Array, values: Array) -> tuple[Array, Bools]:
    """Place of each value in `sought`, which ascends, and whether it is there at all."""
    if not len(sought):
        return np.zeros(values.shape, dtype=np.int64), np.zeros(values.shape, dtype=np.bool_)
    place = np.searchsorted(sought, values).clip(max=len(sought) - 1)
    return place, sought[place] == values


def mix(values: Array) -> Hashes:
    """64 well-mixed bits of each integer."""
    return mix64(np.asarray(values).astype(np.uint64))


def chosen(values: Array, rate: float) -> Bools:
    """(n,) True for the same random share `rate` of values, whenever asked."""
    if rate >= 1:
        return np.ones(len(values), dtype=np.bool_)
    return np.asarray(mix(values) < np.uint64(int(rate * FULL)))


def row_keys(history: Array, user: Array, item: Array) -> Hashes:
    """(n,) one hash of user, item and history; padding on the left changes nothing."""
    width = history.shape[1]
    multipliers = mix(np.arange(width)[::-1]) | np.uint64(1)  # by distance from the newest
    return mix(mix(history.view(np.uint64) @ multipliers) ^ pair_keys(user, item))


def pair_keys(user: Array, item: Array) -> Hashes:
    """(n,) one hash of user and item."""
    return mix(mix(user) + np.asarray(item).astype(np.uint64))

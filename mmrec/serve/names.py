"""Items by the names that the person gave them, and the rows in which they stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrec.errors import InputError, require

Ids = NDArray[np.int64]


class Names:
    """Names -> rows and back; without keys an item's name is its id.

    Args:
        num_items: N, with the padding.
        keys: (N,) integers or strings, the first of which names nothing; None = ids.

    >>> names = Names(3, ["", "lamp", "chair"])
    >>> names.rows(["chair", "lamp"], "candidates").tolist(), names.of(np.array([2]))
    ([2, 1], ['chair'])
    """

    def __init__(self, num_items: int, keys: Sequence[Any] | None = None) -> None:
        self._size = num_items
        self._keys = None if keys is None else list(keys)
        self._rows = None if keys is None else {k: row for row, k in enumerate(keys) if row}

    @property
    def kind(self) -> type:
        """What a name is: `int` or `str`."""
        return int if self._keys is None or len(self._keys) < 2 else type(self._keys[1])

    def __len__(self) -> int:
        return self._size

    def rows(self, names: Any, where: str, *, skip_unknown: bool = False) -> Ids:
        """(n,) rows of these names.

        Args:
            where: what they are, for the sentence of an error.
            skip_unknown: leave out names of no item.

        Raises:
            InputError: no list of names, a name of another type, or of no item.
        """
        found = self._numbers(names, where) if self.kind is int else self._strings(names, where)
        if self._rows is None:
            known = (found > 0) & (found < self._size)
            rows = np.where(known, found, 0)
        else:
            get = self._rows.get
            rows = np.fromiter((get(name, 0) for name in found.tolist()), np.int64, len(found))
            known = rows > 0
        if known.all():
            return rows
        if skip_unknown:
            return rows[known]
        name = found[int(np.argmin(known)) :][:1].tolist()[0]
        raise InputError(f"{where} are items of the catalogue, {shown(name)} is none of them")

    def of(self, rows: Ids) -> list[Any]:
        """The names of rows."""
        if self._keys is None:
            return list(rows.tolist())
        return [self._keys[row] for row in rows.tolist()]

    def append(self, count: int, keys: Sequence[Any] | None) -> list[Any]:
        """Take in new items; returns their names.

        Raises:
            InputError: names where there are no keys, none where there are, one that is taken.
        """
        first, self_keys = self._size, self._keys
        if self_keys is None or self._rows is None:
            require(keys is None, "items of this catalogue are named by their ids, got keys")
            self._size += count
            return list(range(first, self._size))
        given = [] if keys is None else list(keys)
        fit = len(given) == count and all(type(key) is self.kind for key in given)
        require(
            fit and len(set(given)) == count and not any(key in self._rows for key in given),
            f"{count} new items need as many new keys of type {self.kind.__name__}, "
            f"got {given[:3]}{' …' if len(given) > 3 else ''}",
        )
        self_keys.extend(given)
        self._rows.update((key, first + place) for place, key in enumerate(given))
        self._size += count
        return given

    def _numbers(self, names: Any, where: str) -> NDArray[Any]:
        found = whole_numbers(names)
        if found is None:
            raise InputError(f"{where} must be a list of whole numbers, got {shown(names)}")
        return found

    def _strings(self, names: Any, where: str) -> NDArray[Any]:
        listed = names.tolist() if isinstance(names, np.ndarray) else names
        good = isinstance(listed, list | tuple) and all(type(name) is str for name in listed)
        if not good:
            raise InputError(f"{where} must be a list of strings, got {shown(names)}")
        found = np.empty(len(listed), dtype=object)
        found[:] = listed
        return found


def whole_numbers(values: Any) -> NDArray[np.int64] | None:
    """(n,) of a list of integers; None of anything else."""
    try:
        found = np.asarray(values)
        good = found.ndim == 1 and (found.dtype.kind in "iu" or not found.size)
    except (ValueError, TypeError, OverflowError):
        return None
    return found.astype(np.int64) if good else None


def shown(value: Any) -> str:
    """A value in a sentence, cut."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"

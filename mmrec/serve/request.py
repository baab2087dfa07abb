"""One user's request, and how it becomes tensors; every mistake in it is one sentence.

Next: `scorer.py`. L history, N candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmrec.errors import InputError, require
from mmrec.schema import ABSENT, Clicks
from mmrec.serve.names import Ids, Names, shown, whole_numbers
from mmrec.serve.network import SharedRanker

NOBODY = ABSENT  # the user of a request that names none


@dataclass(frozen=True)
class Request:
    """A user and the items that are ranked for them.

    Attributes:
        history: names of items, oldest first.
        candidates: names of items; None = the whole catalogue.
        user: as in the click log; None = nobody that is known.
        columns: the schema's columns of this request -> a value, a list where the column holds
            lists, or of a history column one value an item. Numbers may be left out or None.
        each: columns of the rows that differ by candidate -> one value a candidate.
    """

    history: Any
    candidates: Any = None
    user: int | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    each: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_plain(cls, values: Any, *, besides: Sequence[str] = ()) -> Request:
        """From a JSON object of the attributes.

        Args:
            besides: what else a request may hold, which was taken out; for messages.

        Raises:
            InputError: no object, a name that is none of them, or no history.
        """
        names = [one.name for one in fields(cls)]
        require(isinstance(values, Mapping), f"a request is a JSON object, got {shown(values)}")
        unknown = sorted(set(map(str, values)) - set(names))
        require(not unknown, f"a request has {', '.join((*names, *besides))}, got {shown(unknown)}")
        require("history" in values, "a request needs a history, which may be empty: []")
        for name in ("columns", "each"):
            value = values.get(name, {})
            good = isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
            require(good, f"{name} must be an object of columns, got {shown(value)}")
        return cls(**values)


@dataclass(frozen=True)
class Read:
    """A request as arrays: rows of items and columns in the order of the schema.

    Attributes:
        history: (L,) int64. candidates: (N,) int64. user: int64.
        categorical: (1 or N, P) int64. numeric: (1 or N, F) float32.
        history_categorical: (L, C) int64. history_numeric: (L, F) float32.
    """

    history: Ids
    candidates: Ids
    user: int
    categorical: NDArray[np.int64]
    numeric: NDArray[np.float32]
    history_categorical: NDArray[np.int64]
    history_numeric: NDArray[np.float32]


class Reader:
    """Requests -> `Read`.

    Args:
        names: of items.
        clicks: the columns of the rows; None = requests have none.
        network: which of the columns are read, and how many values they hold.
        newest: items of a history that are read; None = all.
        skip_unknown: leave items out of a history that are not in the catalogue.
    """

    def __init__(
        self,
        names: Names,
        clicks: Clicks | None,
        network: SharedRanker,
        *,
        newest: int | None = None,
        skip_unknown: bool = False,
    ) -> None:
        self.names, self.newest, self.skip_unknown = names, newest, skip_unknown
        encoder = network.categorical
        self.places: list[int] = [] if encoder is None or clicks is None else encoder.places
        self.categorical: tuple[str, ...] = ()
        self.numeric: tuple[str, ...] = ()
        self.history_categorical: tuple[str, ...] = ()
        self.history_numeric: tuple[str, ...] = ()
        self.known: set[str] = set()
        self.of_rows: set[str] = set()
        if clicks is None:
            return
        self.known = {name for name, _ in clicks.roles()}
        self.of_rows = {name for name, role in clicks.roles() if role in ("categorical", "numeric")}
        if encoder is not None:
            self.categorical = tuple(column.name for column in clicks.categorical)
        if network.numeric is not None:
            self.numeric = clicks.numeric
        categories, numbers = network.history_widths
        if categories:
            self.history_categorical = tuple(c.name for c in clicks.history_categorical)
        if numbers:
            self.history_numeric = clicks.history_numeric

    def read(self, request: Request) -> Read:
        """The arrays of a request.

        Raises:
            InputError: anything in it that the ranker cannot be given.
        """
        unknown = sorted({*request.columns, *request.each} - self.known)
        require(not unknown, f"columns are those of the schema, got {shown(unknown)}")
        other = sorted(set(request.each) - self.of_rows)
        require(not other, f"what differs by candidate is a row's column, got {shown(other)}")
        history = self.names.rows(request.history, "history items", skip_unknown=self.skip_unknown)
        asked = request.candidates
        every = np.arange(1, len(self.names))
        rows = every if asked is None else self.names.rows(asked, "candidates")
        count, length = len(rows), len(request.history)
        kept = slice(None)
        if self.skip_unknown and len(history) < length:
            kept = self._known(request.history)
        newest = slice(None if self.newest is None else max(0, len(history) - self.newest), None)
        return Read(
            history=history[newest],
            candidates=rows,
            user=NOBODY if request.user is None else _whole(request.user),
            categorical=self._categorical(request, count),
            numeric=self._numeric(request, count),
            history_categorical=self._beside(
                request, self.history_categorical, length, _integers, np.int64
            )[kept][newest],
            history_numeric=self._beside(
                request, self.history_numeric, length, _numbers, np.float32
            )[kept][newest],
        )

    def _known(self, names: Any) -> Any:
        """(L,) bool, which of these are items."""
        return np.array([len(self.names.rows([n], "", skip_unknown=True)) > 0 for n in names], bool)

    def _categorical(self, request: Request, count: int) -> NDArray[np.int64]:
        parts = []
        for name, places in zip(self.categorical, self.places, strict=True):
            if name in request.each:
                values = _each(request, name, count)
                parts.append(_lists(values, places, name))
            else:
                require(
                    name in request.columns, f"the column {name} is needed, the request has none"
                )
                parts.append(_lists([request.columns[name]], places, name))
        return _side_by_side(parts, np.int64)

    def _numeric(self, request: Request, count: int) -> NDArray[np.float32]:
        parts = []
        for name in self.numeric:
            if name in request.each:
                found = _numbers(_each(request, name, count), name)
            else:
                found = _numbers([request.columns.get(name)], name)
            parts.append(found.reshape(-1, 1))
        return _side_by_side(parts, np.float32)

    def _beside(
        self, request: Request, columns: Sequence[str], length: int, read: Any, dtype: Any
    ) -> NDArray[Any]:
        """(L, columns): what is known of the moment of each history item."""
        found = np.zeros((length, len(columns)), dtype=dtype)
        for place, name in enumerate(columns):
            given = request.columns.get(name)
            if given is None and read is _numbers:
                found[:, place] = np.nan
                continue
            require(
                given is not None or not length,
                f"the column {name} is needed, one value a history item, the request has none",
            )
            values = read([] if given is None else given, name)
            require(
                len(values) == length,
                f"the column {name} must hold one value a history item, {length}, "
                f"got {len(values)}",
            )
            found[:, place] = values
        return found


def _each(request: Request, name: str, count: int) -> Any:
    values = request.each[name]
    if not isinstance(values, list | tuple | np.ndarray) or len(values) != count:
        raise InputError(
            f"the column {name} must hold one value a candidate, {count}, got {shown(values)}"
        )
    return values


def _side_by_side(parts: Sequence[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    """(1 or N, ·): those alike for all candidates repeated where others are not."""
    if not parts:
        return np.zeros((1, 0), dtype=dtype)
    count = max((len(part) for part in parts), key=lambda rows: (rows != 1, rows))
    return np.concatenate([np.broadcast_to(p, (count, p.shape[1])) for p in parts], axis=1)


def _lists(values: Any, places: int, name: str) -> NDArray[np.int64]:
    """(n, places), flush right: one value each, or a list of at most so many."""
    if places == 1 and not any(isinstance(value, list | tuple) for value in values):
        return _integers(values, name).reshape(-1, 1)
    found = np.full((len(values), places), ABSENT, dtype=np.int64)
    for row, value in enumerate(values):
        given = _integers(value if isinstance(value, list | tuple | np.ndarray) else [value], name)
        given = given[-places:]  # no ranker has seen longer ones
        found[row, places - len(given) :] = given
    return found


def _integers(values: Any, name: str) -> NDArray[np.int64]:
    found = whole_numbers(values)
    if found is None:
        raise InputError(f"the column {name} holds whole numbers, got {shown(values)}")
    return found


def _numbers(values: Any, name: str) -> NDArray[np.float32]:
    try:
        listed = [np.nan if v is None else v for v in values]
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
            found = np.asarray(listed, dtype=np.float32)
        strange = any(isinstance(v, str | bool) for v in listed)
        good = found.ndim == 1 and not np.isinf(found).any() and not strange
    except (ValueError, TypeError, OverflowError):
        good = False
    if not good:
        raise InputError(f"the column {name} holds finite numbers, or none, got {shown(values)}")
    return found


def _whole(user: Any) -> int:
    good = isinstance(user, int | np.integer) and not isinstance(user, bool)
    if not good or not -(2**63) <= int(user) < 2**63:
        raise InputError(f"user must be a whole number of 64 bits, got {shown(user)}")
    return int(user)


def tensors(arrays: Sequence[NDArray[Any]], length: int, *, left: bool, fill: float = 0) -> Tensor:
    """(U, length, …) of arrays (n, …), filled up on the left or on the right."""
    if len(arrays) == 1 and len(arrays[0]) == length and arrays[0].flags.writeable:
        return torch.from_numpy(arrays[0]).unsqueeze(0)
    shape = (len(arrays), length, *arrays[0].shape[1:])
    found = np.full(shape, fill, dtype=arrays[0].dtype)
    for row, array in enumerate(arrays):
        begin = length - len(array) if left else 0
        found[row, begin : begin + len(array)] = array
    return torch.from_numpy(found)

"""Which columns play which role: what the library is told of a data set.

A data set says it in `schema.json` beside its files; `mmrec.data.microlens.MICROLENS` holds where
there is none. Column names stand nowhere else.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from mmrec.errors import InputError, modality_names, positive
from mmrec.io.plain import from_plain, from_table, to_plain

FILE = "schema.json"
MOST_HASHES = 1 << 30
ABSENT = -(2**63)  # stands where a list of categories has no more values


@dataclass(frozen=True)
class Categorical:
    """A column of integers that are names: one a row, or a list of them.

    As plain data it is a table of what follows, or the name alone.

    Attributes:
        name: of the column.
        min_count: values in fewer rows of train are read as unknown, and train what that means.
        hash_size: None gives each value a vector of its own; a number spreads all values, those of
            tomorrow too, over so many vectors.
        limit: values must lie in 0 … limit - 1; None = any integer.
    """

    name: str
    min_count: int = 1
    hash_size: int | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.hash_size is not None and self.hash_size > MOST_HASHES:
            raise InputError(
                f"hash_size of column {self.name} must be at most {MOST_HASHES:,}, "
                f"got {self.hash_size}"
            )
        for what in ("min_count", "hash_size", "limit"):
            value = getattr(self, what)
            if value is not None or what == "min_count":
                positive(**{f"{what} of column {self.name}": value})

    @classmethod
    def from_plain(cls, values: Any, where: str) -> Categorical:
        """From a table of the attributes, or a name."""
        if isinstance(values, Mapping) and "name" not in values:
            raise InputError(f"{where} is a name, or a table with a name, got {dict(values)}")
        return from_table(cls, {"name": values} if isinstance(values, str) else values, where)


@dataclass(frozen=True)
class Clicks:
    """Columns of the click log.

    Attributes:
        history: item ids, left-padded with 0, oldest first.
        target: the item whose click is predicted.
        labels: 0 or 1, one column a task; where there are several, a null is left out of its
            task's loss and metrics.
        user: who is told apart by intervals and, where known, by a vector.
        row_id: key handed back with the prediction, integers or strings; None = the row's number.
        time: of the row; not an input by itself.
        group: rows that are ranked against each other.
        weight: of the row in the loss.
        categorical: see `Categorical`.
        numeric: numbers; null and NaN are missing ones.
        history_categorical, history_numeric: lists as long as the row's history, one value an item.
        negatives: how rows of label 0 were drawn, where nobody saw them; None = they were logged.
    """

    history: str
    target: str
    labels: tuple[str, ...]
    user: str | None = None
    row_id: str | None = None
    time: str | None = None
    group: str | None = None
    weight: str | None = None
    categorical: tuple[Categorical, ...] = ()
    numeric: tuple[str, ...] = ()
    history_categorical: tuple[Categorical, ...] = ()
    history_numeric: tuple[str, ...] = ()
    negatives: str | None = None

    def roles(self) -> Iterator[tuple[str, str]]:
        """Every (column, role)."""
        for role in ("history", "target", "user", "row_id", "time", "group", "weight"):
            if getattr(self, role) is not None:
                yield getattr(self, role), role
        for role in ("labels", "numeric", "history_numeric"):
            yield from ((name, role) for name in getattr(self, role))
        for role in ("categorical", "history_categorical"):
            yield from ((column.name, role) for column in getattr(self, role))


@dataclass(frozen=True)
class Items:
    """Columns of the item table and of the files beside it.

    Attributes:
        id: the item's number, 1 … N - 1; 0 is the padding.
        key: the person's own name of the item.
        tags: lists of tag ids, 0 = no tag.
        categorical, numeric: as for the clicks, of the item.
        modalities: name -> column of its vectors in the feature file.
        vectors: a ready content vector in the item table itself.
        title: what is read to make the text's vectors.
    """

    id: str
    key: str | None = None
    tags: str | None = None
    categorical: tuple[Categorical, ...] = ()
    numeric: tuple[str, ...] = ()
    modalities: Mapping[str, str] = field(default_factory=dict)
    vectors: str | None = None
    title: str | None = None

    def __post_init__(self) -> None:
        modality_names(self.modalities)
        taken = {self.id: "the id"} | {f"has_{name}": f"{name}'s mask" for name in self.modalities}
        for name, column in self.modalities.items():
            if not column or not isinstance(column, str) or column in taken:
                raise InputError(
                    "each modality has a column of vectors of its own, that of "
                    f"{name} is {column!r}" + (f", {taken[column]}" if column in taken else "")
                )
            taken[column] = f"{name}'s vectors"

    def roles(self) -> Iterator[tuple[str, str]]:
        """Every (column of the item table, role)."""
        for role in ("id", "key", "tags", "vectors"):
            if getattr(self, role) is not None:
                yield getattr(self, role), role
        yield from ((name, "numeric") for name in self.numeric)
        yield from ((column.name, "categorical") for column in self.categorical)


@dataclass(frozen=True)
class Schema:
    """The roles of a data set's columns, as plain data: `schema.json`.

    >>> schema = Schema(Clicks("seen", "item", ("bought",), numeric=("price",)), Items("item"))
    >>> Schema.from_dict(schema.to_dict()) == schema
    True

    Raises:
        InputError: no label, or a column that has two roles.
    """

    clicks: Clicks
    items: Items

    def __post_init__(self) -> None:
        if not self.clicks.labels:
            raise InputError("a schema needs at least one label, got none")
        for part, roles in (("clicks", self.clicks.roles()), ("items", self.items.roles())):
            found = list(roles)
            for column, role in found:
                if not column or column == "row":
                    raise InputError(
                        f"columns need names other than row, which counts them, {role} of {part} "
                        f"is {column!r}"
                    )
            name, count = Counter(name for name, _ in found).most_common(1)[0]
            if count > 1:
                both = " and ".join(role for column, role in found if column == name)
                raise InputError(f"a column has one role, {name} of {part} is given as {both}")

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts and strings, for JSON."""
        return cast(dict[str, Any], to_plain(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Schema:
        """Back from `to_dict`; a name that no schema has is an `InputError`."""
        return from_plain(cls, values)

    @classmethod
    def read(cls, path: Path) -> Schema:
        """From a JSON file.

        Raises:
            InputError: it cannot be read, or holds something else than a schema.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_each_once)
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path} cannot be read as JSON: {error}") from None
        try:
            return from_plain(cls, values, where="schema")
        except InputError as error:
            raise InputError(f"{path}: {error}") from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A table of a JSON file; of two values of one name, JSON itself would keep the second."""
    name, count = Counter(name for name, _ in pairs).most_common(1)[0] if pairs else ("", 1)
    if count > 1:
        raise ValueError(f"{name} is given {count} times in one table")
    return dict(pairs)

"""What is odd about the columns of a table: which are not there, and how many rows break a rule.

Filled in by `features.py` and `reading.py` for click logs, by `items.py` for the item table.
n rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from mmrec.audit.scan.rows import Array, Bools
from mmrec.io.lenient import floats
from mmrec.io.parquet import Ints, Kind


@dataclass
class Columns:
    """The columns of a table that break a rule.

    Attributes:
        table: train, valid, test, item_info or features; `rows` of it.
        absent: columns that the schema names and the table has not; `fatal` whether nothing can
            be trained without one of them.
        refused: column to the type that it has and the one that the loaders need.
        missing: column to rows with a null or NaN where none may be.
        outside: column to rows with a value that its role rules out: a category not in
            0 … limit - 1, a weight below 0, a tag that is no dense id.
        infinite: column to rows with an infinite number.
        uneven: history feature to rows where it is not as long as the history.
        constant: column to the one value that it has in all rows, NaN where it holds nothing.
    """

    table: str
    rows: int
    absent: list[str] = field(default_factory=list)
    fatal: bool = False
    refused: dict[str, tuple[str, str]] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=Counter)
    outside: dict[str, int] = field(default_factory=Counter)
    infinite: dict[str, int] = field(default_factory=Counter)
    uneven: dict[str, int] = field(default_factory=Counter)
    constant: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        table: str,
        rows: int,
        there: Mapping[str, pa.DataType],
        *,
        wanted: Mapping[str, Kind],
        optional: Mapping[str, Kind],
        needed: Collection[str | None] = (),
    ) -> Columns:
        """Before a row is read.

        Args:
            table, rows: as above.
            there: column to the type that it has.
            wanted: columns that the schema names; `optional` others, where there.
            needed: those of them without which nothing can be trained.
        """
        refused = {
            name: (str(there[name]), kind.name)
            for name, kind in {**optional, **wanted}.items()
            if name in there and not kind.accepts(there[name])
        }
        absent = [name for name in wanted if name not in there]
        fatal = not {*needed}.isdisjoint(absent)
        return cls(table, rows, absent=absent, fatal=fatal, refused=refused)


def count(rows: dict[str, int], name: str, bad: Bools) -> None:
    """Count the rows (n,) where a column breaks a rule."""
    if bad.any():
        rows[name] += int(bad.sum())


def beyond(values: Array, limit: int | None) -> Bools:
    """(n,) whether a category lies outside 0 … limit - 1; NaN does not."""
    if limit is None:
        return np.zeros(len(values), dtype=np.bool_)
    return np.asarray((values < 0) | (values >= limit))


def any_of(flags: Bools, lengths: Ints) -> Bools:
    """(n,) whether a value of each list is flagged; `flags` of all lists end to end."""
    found = np.zeros(len(lengths), dtype=np.bool_)
    if flags.any():
        found[np.repeat(np.arange(len(lengths)), lengths)[flags]] = True
    return found


def holes(array: pa.Array, values: pa.Array, lengths: Ints) -> Bools:
    """(n,) whether a row misses its list or one of its values, which are given end to end."""
    absent = np.array(array.is_null().to_numpy(False))
    if values.null_count or pa.types.is_floating(values.type):
        absent |= any_of(~np.isfinite(floats(values)), lengths)
    return absent

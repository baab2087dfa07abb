"""Categories as numbers: a name a row, also of a list, and rows by item and name.

Names are float64, NaN where missing, so that they stand beside all other columns of `Rows`: whole
numbers below 2^53 as they are, all else hashed below that.
n rows, N items, V names, W places for the values of a list.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmrec.audit.scan.rows import Array, find, mix
from mmrec.io.lenient import batches, floats, integers, lists
from mmrec.io.parquet import Ints, is_list, left_pad
from mmrec.io.sources import Source

MOST_CELLS = 64_000_000  # entries of a table by item
MOST_NAMES = 256  # a column of more is counted in `BUCKETS`
BUCKETS = 64  # two names look alike in one of so many cases
MOST_VALUES = 16  # of a list are kept in the sample, the last ones
_EXACT = 2.0**53
_SPARE = np.uint64(12)  # bits of a hash that float64 cannot hold beside the others


def names_of(array: pa.Array) -> Array:
    """(n,) float64 name of each row; of a list one name for its values, in whatever order."""
    if is_list(array.type):
        values, lengths = lists(array)
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mix(integers(values)))])
        ends = np.cumsum(lengths)
        return np.asarray(mix(sums[ends] - sums[ends - lengths]) >> _SPARE, dtype=np.float64)
    names = floats(array)
    far = np.abs(names) >= _EXACT
    if far.any():
        names = np.where(far, (mix(integers(array)) >> _SPARE).astype(np.float64), names)
    return names


def codes_of(values: Ints, lengths: Ints) -> NDArray[np.int32]:
    """(n, W) 1 + 30 bits of each value of lists laid end to end, 0 on the left of shorter ones."""
    width = min(MOST_VALUES, int(lengths.max(initial=0)))
    bits = (mix(values) >> np.uint64(34)).astype(np.int32) + np.int32(1)
    return np.asarray(left_pad(bits, lengths, width, np.empty((len(lengths), width), np.int32)))


def distinct(source: Source, column: str, most: int) -> Array | None:
    """The names of a column in ascending order, None where there are more than `most`."""
    found = np.zeros(0)
    for batch in batches(source, [column]):
        array = batch[column]
        some = np.unique(names_of(array if is_list(array.type) else array.unique()))
        found = np.union1d(found, some[~np.isnan(some)])
        if len(found) > most:
            return None
    return found


@dataclass(frozen=True)
class ByName:
    """Rows by item and name of a categorical column.

    Attributes:
        names: (V,) in ascending order; None where they are too many, and hashed into V buckets.
        rows: (N, V).
    """

    names: Array | None
    rows: NDArray[np.int32]

    @classmethod
    def of(cls, names: Array | None, num_items: int, *, columns: int) -> ByName | None:
        """Empty, for one of so many columns; None without a name, or room for two."""
        room = MOST_CELLS // num_items
        if names is not None and not len(names):
            return None
        if names is not None and len(names) <= room:
            return cls(names, np.zeros((num_items, len(names)), dtype=np.int32))
        width = min(BUCKETS, room // columns)
        return cls(None, np.zeros((num_items, width), dtype=np.int32)) if width > 1 else None

    def add(self, item: Ints, names: Array) -> None:
        """Count rows (n,)."""
        place = self.places(names)
        some, width = place >= 0, self.rows.shape[1]
        cells = self.rows.reshape(-1)  # a view
        np.add.at(cells, item[some] * width + place[some], np.int32(1))

    def places(self, names: Array) -> Ints:
        """(n,) 0 … V - 1, -1 for a name that is not among them."""
        if self.names is None:
            there = ~np.isnan(names)
            bucket = mix(np.nan_to_num(names).astype(np.int64)) % np.uint64(self.rows.shape[1])
            return np.where(there, bucket.astype(np.int64), -1)
        place, there = find(self.names, names)
        return np.where(there, place, -1)

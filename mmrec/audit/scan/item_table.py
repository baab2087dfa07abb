"""The columns of the item table that have a role: which break a rule, and moments of the numbers.

Comes in: item_info. Goes out: `ItemTable`, for the checks. n rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from mmrec.audit.scan.columns import Columns, any_of, beyond, count, holes
from mmrec.audit.scan.names import names_of
from mmrec.audit.scan.numbers import Numbers
from mmrec.audit.scan.rows import Array, Bools
from mmrec.audit.scan.split import Keys
from mmrec.data.checks import CATEGORIES
from mmrec.data.items import TAG_LIMIT
from mmrec.io.lenient import floats, integers, kinds_of, lists, whole
from mmrec.io.parquet import BOOLEAN, INTEGER, INTEGERS, KEY, NUMBER, VECTOR, Kind, is_list
from mmrec.io.sources import Source
from mmrec.schema import Items


@dataclass
class ItemTable:
    """Columns that break a rule, the moments of numeric ones, and the items' own keys."""

    columns: Columns
    numbers: dict[str, Numbers] = field(default_factory=dict)
    keys: Keys | None = None


def feature_columns(source: Source, items: Items) -> Columns:
    """The modalities' columns of a feature file against the schema."""
    wanted = {items.id: INTEGER} | dict.fromkeys(items.modalities.values(), VECTOR)
    masks = {f"has_{name}": BOOLEAN for name in items.modalities}
    kinds, rows, needed = kinds_of(source), source.num_rows, (items.id,)
    return Columns.of("features", rows, kinds, wanted=wanted, optional=masks, needed=needed)


def read_item_table(source: Source, items: Items) -> ItemTable:
    """Read all columns with a role but the vectors."""
    kinds, wanted = kinds_of(source), _kinds(items)
    optional = {items.id: INTEGER} | ({} if items.vectors is None else {items.vectors: VECTOR})
    rows = source.num_rows
    columns = Columns.of("item_info", rows, kinds, wanted=wanted, optional=optional)
    table = ItemTable(columns)
    named = {c.name: c.limit for c in items.categorical}
    if items.tags is not None:
        named[items.tags] = TAG_LIMIT
    there = [n for n in (items.id, *wanted) if n in kinds and n not in columns.refused]
    arrays = whole(source, there)
    id_array = arrays.pop(items.id, None)
    real = np.ones(rows, dtype=np.bool_) if id_array is None else integers(id_array) > 0
    for name, array in arrays.items():
        if name in items.numeric:
            _read_numbers(name, floats(array), real, table)
        elif name in named:
            _read_categories(name, array, named[name], real, table)
        else:
            count(columns.missing, name, np.array(array.is_null().to_numpy(False)) & real)
            table.keys = Keys.of("item_info", name, array.filter(pa.array(real)))
    return table


def _kinds(items: Items) -> dict[str, Kind]:
    kinds: dict[str, Kind] = dict.fromkeys(items.numeric, NUMBER)
    kinds |= {column.name: CATEGORIES for column in items.categorical}
    kinds |= {} if items.tags is None else {items.tags: INTEGERS}
    return kinds | ({} if items.key is None else {items.key: KEY})


def _read_numbers(name: str, values: Array, real: Bools, table: ItemTable) -> None:
    """Infinite ones, moments, and whether it is one number for all items."""
    count(table.columns.infinite, name, np.isinf(values))
    numbers = Numbers(table.columns.table, name).and_of(values[real])
    table.numbers[name] = numbers
    if numbers.values and not numbers.finite:
        table.columns.constant[name] = math.nan
    elif numbers.finite == numbers.values > 1 and numbers.smallest == numbers.largest:
        table.columns.constant[name] = numbers.smallest


def _read_categories(
    name: str, array: pa.Array, limit: int | None, real: Bools, table: ItemTable
) -> None:
    """Odd rows, and whether it is one category for all items."""
    if is_list(array.type):
        values, lengths = lists(array)
        absent = holes(array, values, lengths)
        outside = any_of(beyond(integers(values), limit), lengths)
    else:
        absent = np.asarray(array.is_null().to_numpy(False))
        outside = beyond(integers(array), limit)
    count(table.columns.missing, name, absent)
    count(table.columns.outside, name, outside)
    names = names_of(array)[real]
    if len(names) > 1 and not is_list(array.type) and (names == names[0]).all():
        table.columns.constant[name] = float(names[0])

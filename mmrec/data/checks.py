"""Does a file of clicks keep to its schema? Read once, in bounded memory.

The first breach is one sentence that names file, column and row. Next: `clicks.py` opens a whole
data set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from mmrec.errors import InputError
from mmrec.io.parquet import (
    BOOLEAN,
    INTEGER,
    INTEGERS,
    KEY,
    NUMBER,
    NUMBERS,
    TIME,
    Array,
    Column,
    Kind,
    either,
    first_repeat,
    is_list,
    open_parquet,
    read_columns,
    row_of,
)
from mmrec.schema import ABSENT, Categorical, Clicks

CATEGORIES = either(either(INTEGER, BOOLEAN), INTEGERS)
_RESOLVED = 0.05  # of the standard deviation that rounding to float32 may change a number by


@dataclass(frozen=True)
class ClickLog:
    """What a checked file of clicks turned out to be.

    Attributes:
        num_rows: its rows.
        widths: list column -> its longest list; that of the history is at least 1.
        columns: all columns with a role.
    """

    num_rows: int
    widths: Mapping[str, int]
    columns: tuple[str, ...] = ()


def kinds_of(clicks: Clicks, *, labelled: bool) -> dict[str, Kind]:
    """The columns that a split must have, and what they hold."""
    kinds = {clicks.history: INTEGERS, clicks.target: INTEGER}
    kinds |= dict.fromkeys((column.name for column in clicks.categorical), CATEGORIES)
    kinds |= dict.fromkeys((column.name for column in clicks.history_categorical), INTEGERS)
    kinds |= dict.fromkeys(clicks.numeric, NUMBER) | dict.fromkeys(clicks.history_numeric, NUMBERS)
    if clicks.user is not None:
        kinds[clicks.user] = INTEGER
    if not labelled:
        return kinds if clicks.row_id is None else kinds | {clicks.row_id: KEY}
    kinds |= dict.fromkeys(clicks.labels, NUMBER)
    more = {clicks.time: TIME, clicks.group: INTEGER, clicks.weight: NUMBER}
    return kinds | {name: kind for name, kind in more.items() if name is not None}


def check_clicks(
    path: str | Path,
    clicks: Clicks,
    *,
    num_items: int | None = None,
    labelled: bool,
    values: bool = True,
) -> ClickLog:
    """Check a file of clicks against its schema and say what is in it.

    Args:
        path: the parquet file.
        clicks: the roles of its columns.
        num_items: item ids must be below it; None sets no upper bound.
        labelled: True asks for the labels, False for the row ids (a test file).
        values: False checks the columns and their types only.

    Raises:
        InputError: anything that breaks the schema.
    """
    kinds = kinds_of(clicks, labelled=labelled)
    source = open_parquet(path, kinds)
    lists = [name for name in kinds if is_list(source.schema.field(name).type)]
    widths = dict.fromkeys(lists, 1)
    checks = _checks(clicks, num_items, set(lists), labelled=labelled) if values else {}
    labels: dict[str, set[float]] = {name: set() for name in clicks.labels}
    weighed = clicks.weight is None or not (values and labelled)
    for columns in read_columns(source, [name for name in kinds if values or name in lists]):
        history = columns[clicks.history].lengths()
        for name in lists:
            lengths = columns[name].lengths()
            widths[name] = max(widths[name], int(lengths.max(initial=0)))
            if name in clicks.history_numeric or any(
                name == column.name for column in clicks.history_categorical
            ):
                _same_lengths(columns[name], lengths, history)
        for name, check in checks.items():
            check(columns[name])
        if not weighed and clicks.weight is not None:
            weighed = bool(columns[clicks.weight].floats().any())
        if values and labelled:
            for name in clicks.labels:
                labels[name] |= _labels(columns[name], missing=len(clicks.labels) > 1)
    if not weighed:
        raise InputError(f"some weight is above 0, all are 0 in {path}, column {clicks.weight}")
    for name, seen in labels.items():
        if values and labelled and len(seen) < 2:
            only = f"every one is {seen.pop():g}" if seen else "there is none"
            raise InputError(f"labels must be both 0 and 1, {only} in {path}, column {name}")
    if values and not labelled and clicks.row_id is not None:
        _check_row_ids(path, clicks.row_id)
    return ClickLog(num_rows=source.num_rows, widths=widths, columns=tuple(kinds))


def read_row_ids(path: str | Path, name: str) -> Array:
    """The row ids of a file, in its order: integers as int64, strings as objects."""
    source = open_parquet(path, {name: KEY})
    parts = [columns[name] for columns in read_columns(source, [name])]
    for part in parts:
        part.refuse_null()
    ids = pa.chunked_array([part.array for part in parts])
    return np.asarray(ids.to_numpy() if pa.types.is_integer(ids.type) else ids.to_pylist())


def _checks(
    clicks: Clicks, num_items: int | None, lists: set[str], *, labelled: bool
) -> dict[str, Callable[[Column], None]]:
    """Column -> the check of its values."""
    checks: dict[str, Callable[[Column], None]] = {
        clicks.history: lambda column: _check_history(column, num_items),
        clicks.target: lambda column: _check_ids(column, num_items),
    }
    if clicks.user is not None:
        checks[clicks.user] = lambda column: column.refuse_where(
            column.numbers() < 0, "user ids are 0 or more"
        )
    for column in (*clicks.categorical, *clicks.history_categorical):
        checks[column.name] = check_categories(column, listed=column.name in lists)
    for name in clicks.numeric:
        checks[name] = _check_numbers
    for name in clicks.history_numeric:
        checks[name] = _check_lists_of_numbers
    if labelled and clicks.weight is not None:
        checks[clicks.weight] = _check_weights
    whole = (clicks.group, clicks.time) if labelled else ()
    return checks | {name: Column.refuse_null for name in whole if name is not None}


def _check_history(column: Column, num_items: int | None) -> None:
    flat, lengths = column.lists()
    if not flat.size:
        return
    last = None if num_items is None else num_items - 1
    bad = _outside(flat, 0, last)
    if bad.any():
        position = int(np.argmax(bad))
        rule = f"histories hold item ids {_span(0, last)}"
        column.refuse(row_of(position, lengths), rule, flat[position])
    padding = flat == 0
    late = padding[1:] & ~padding[:-1]  # a 0 right after an item, or the start of the next list
    starts = np.cumsum(lengths)[:-1]
    late[starts[(starts > 0) & (starts < flat.size)] - 1] = False
    if late.any():
        position = int(np.argmax(late)) + 1
        rule = "histories are left-padded: only 0 before the first item and no 0 after it"
        row = row_of(position, lengths)
        column.refuse(row, rule, f"0 after item {flat[position - 1]}")


def _same_lengths(column: Column, lengths: Array, history: Array) -> None:
    if (lengths != history).any():
        first = int(np.argmax(lengths != history))
        rule = f"a history feature is as long as the row's history, here {history[first]}"
        column.refuse(first, rule, f"a list of {lengths[first]}")


def _check_ids(column: Column, num_items: int | None) -> None:
    last = None if num_items is None else num_items - 1
    bad = _outside(column.numbers(), 1, last)
    column.refuse_where(bad, f"item ids lie in {_span(1, last)} (0 is padding)")


def check_categories(categorical: Categorical, *, listed: bool) -> Callable[[Column], None]:
    """The check of a categorical column's values."""
    last = None if categorical.limit is None else categorical.limit - 1

    def check(column: Column) -> None:
        values, lengths = column.lists() if listed else (column.numbers(), None)
        bad = values == ABSENT if last is None else _outside(values, 0, last)
        if not bad.any():
            return
        first = int(np.argmax(bad))
        row = first if lengths is None else row_of(first, lengths)
        rule = "are any integers but -2^63" if last is None else f"lie in {_span(0, last)}"
        column.refuse(row, f"categories {rule}", values[first])

    return check


def _check_numbers(column: Column) -> None:
    numbers = column.floats()
    column.refuse_where(np.isinf(numbers), "numbers are finite, or null or NaN")
    if np.isnan(numbers).all():
        return
    exact = column.array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    lost = np.abs(exact - numbers)
    if np.nan_to_num(lost).max(initial=0.0) > _RESOLVED * np.nanstd(exact):
        rule = "numbers vary by more than float32 resolves (take an offset off, say)"
        column.refuse(int(np.nanargmax(lost)), rule, exact[int(np.nanargmax(lost))])


def _check_lists_of_numbers(column: Column) -> None:
    values, lengths = column.lists(missing=True)
    if np.isinf(values).any():
        first = int(np.argmax(np.isinf(values)))
        column.refuse(row_of(first, lengths), "numbers are finite, or null or NaN", values[first])


def _check_weights(column: Column) -> None:
    weights = column.numbers()
    # NaN fails every comparison.
    column.refuse_where(~((weights >= 0) & (weights < np.inf)), "weights are finite, 0 or more")


def _labels(column: Column, *, missing: bool) -> set[float]:
    """The labels that are there; null is a missing one where there are several tasks."""
    if not missing:
        column.refuse_null()
    labels = column.floats()
    absent = np.isnan(labels) & missing
    column.refuse_where(~((labels == 0) | (labels == 1) | absent), "labels are 0 or 1")
    return set(np.unique(labels[~absent]).astype(float).tolist())


def _check_row_ids(path: str | Path, name: str) -> None:
    ids = read_row_ids(path, name)
    again = first_repeat(ids)
    if again is not None:
        column = Column(path, name, range(len(ids)), pa.array(ids))
        column.refuse(again, f"each {name} stands once", f"{ids[again]} a second time")


def _outside(values: Array, first: int, last: int | None) -> Array:
    below = values < first
    return below if last is None else below | (values > last)


def _span(first: int, last: int | None) -> str:
    return f"{first} or more" if last is None else f"{first}..{last}"

"""What the columns of a click log are, and the check that a file keeps to it.

`docs/data_format.md` describes the layout. A check reads the file once, in bounded memory, and
speaks of the first breach in one sentence that names file, column and row.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from mmrec.errors import InputError
from mmrec.io.parquet import (
    INTEGER,
    INTEGERS,
    NUMBER,
    Array,
    Column,
    Ints,
    Kind,
    open_parquet,
    read_columns,
    read_numbers,
    row_of,
)

USER, HISTORY, TARGET, LABEL, ROW_ID = "user_id", "item_seq", "item_id", "label", "ID"
CONTEXT = ("likes_level", "views_level")
OPTIONAL_CONTEXT = ("user_level",)  # context where a file has it, in this order after CONTEXT
COLUMNS_TEST = (USER, HISTORY, TARGET, *CONTEXT)
COLUMNS_LABELLED = (*COLUMNS_TEST, LABEL)

LEVEL_LIMIT = 1_000  # a level beyond this is no category; the levels in use are 0..10
_LEVELS = f"levels lie in 0..{LEVEL_LIMIT - 1}"


@dataclass(frozen=True)
class ClickLog:
    """What a checked file of clicks turned out to be.

    Attributes:
        num_rows: its rows.
        history_length: entries of the longest `item_seq`, padding included; at least 1.
        context: the context columns: `CONTEXT` and those of `OPTIONAL_CONTEXT` that there are.
        context_sizes: vocabulary of each context column: its largest value + 1.
    """

    num_rows: int
    history_length: int
    context: tuple[str, ...]
    context_sizes: tuple[int, ...]


def check_clicks(
    path: str | Path, *, num_items: int | None = None, labelled: bool, values: bool = True
) -> ClickLog:
    """Check a file of clicks against the layout and say what is in it.

    Args:
        path: the parquet file.
        num_items: item ids must be below it; None sets no upper bound.
        labelled: True asks for `label`, False for `ID` (a test file).
        values: False checks the columns and their types only, and reads of the values what
            `ClickLog` tells.

    Raises:
        InputError: anything that breaks the layout; see the module's text.
    """
    kinds: dict[str, Kind] = dict.fromkeys((USER, TARGET, *CONTEXT), INTEGER)
    kinds |= {HISTORY: INTEGERS} | ({LABEL: NUMBER} if labelled else {ROW_ID: INTEGER})
    source = open_parquet(path, kinds, optional=dict.fromkeys(OPTIONAL_CONTEXT, INTEGER))
    context = (*CONTEXT, *(name for name in OPTIONAL_CONTEXT if name in source.schema.names))
    checked = (USER, TARGET, *((LABEL,) if labelled else ())) if values else ()
    last = None if num_items is None else num_items - 1
    length, sizes = 1, np.zeros(len(context), dtype=np.int64)
    labels: set[float] = set()
    for columns in read_columns(source, (HISTORY, *context, *checked)):
        history = columns[HISTORY].lists()
        length = max(length, int(history[1].max(initial=0)))
        levels = [_within(columns[name], 0, LEVEL_LIMIT - 1, _LEVELS) for name in context]
        sizes = np.maximum(sizes, [int(level.max(initial=0)) + 1 for level in levels])
        if values:
            _check_history(columns[HISTORY], *history, last)
            rule = f"item ids lie in {_span(1, last)} (0 is padding)"
            _within(columns[TARGET], 1, last, rule)
            _within(columns[USER], 0, None, "user ids are 0 or more")
            if labelled:
                labels |= _labels(columns[LABEL])
    if len(labels) == 1:
        raise InputError(
            f"labels must be both 0 and 1, every one is {labels.pop():g} in {path}, column {LABEL}"
        )
    if values and not labelled:
        ids = read_row_ids(path)
        column = Column(path, ROW_ID, range(len(ids)), pa.array(ids))
        column.refuse_repeat(ids, "each ID stands once")
    return ClickLog(
        num_rows=source.num_rows,
        history_length=length,
        context=context,
        context_sizes=tuple(int(size) for size in sizes),
    )


def read_row_ids(path: str | Path) -> Ints:
    """The `ID` column of a test file, in file order: (rows,) int64."""
    return read_numbers(open_parquet(path, {ROW_ID: INTEGER}), ROW_ID).astype(np.int64)


def _check_history(column: Column, flat: Array, lengths: Ints, last: int | None) -> None:
    bad = _first_outside(flat, 0, last)
    if bad is not None:
        rule = f"histories hold item ids {_span(0, last)}"
        column.refuse(row_of(bad, lengths), rule, flat[bad])
    padding = flat == 0
    late = padding[1:] & ~padding[:-1]  # a 0 right after an item, or the start of the next list
    starts = np.cumsum(lengths)[:-1]
    late[starts[(starts > 0) & (starts < flat.size)] - 1] = False
    if late.any():
        position = int(np.argmax(late)) + 1
        rule = "histories are left-padded: only 0 before the first item and no 0 after it"
        row = row_of(position, lengths)
        column.refuse(row, rule, f"0 after item {flat[position - 1]}")


def _within(column: Column, first: int, last: int | None, rule: str) -> Array:
    """The column's numbers, which must lie in first..last."""
    numbers = column.numbers()
    bad = _first_outside(numbers, first, last)
    if bad is not None:
        column.refuse(bad, rule, numbers[bad])
    return numbers


def _labels(column: Column) -> set[float]:
    labels = column.numbers()
    column.refuse_where((labels != 0) & (labels != 1), "labels are 0 or 1")
    return set(np.unique(labels).astype(float).tolist())


def _first_outside(values: Array, first: int, last: int | None) -> int | None:
    """The place of the first value that is not in first..last, or None."""
    if not values.size or (values.min() >= first and (last is None or values.max() <= last)):
        return None
    bad = values < first
    return int(np.argmax(bad if last is None else bad | (values > last)))


def _span(first: int, last: int | None) -> str:
    return f"{first} or more" if last is None else f"{first}..{last}"

"""What the columns of a click log are, and the check that a file keeps to it.

`docs/data_format.md` describes the layout. A check reads the file once, in bounded memory, and
speaks of the first breach in one sentence that names file, column and row.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmrec.errors import InputError
from mmrec.io.parquet import (
    INTEGER,
    INTEGERS,
    NUMBER,
    Column,
    Kind,
    first_repeat,
    open_parquet,
    row_of,
    runs,
)

USER, HISTORY, TARGET, LABEL, ROW_ID = "user_id", "item_seq", "item_id", "label", "ID"
CONTEXT = ("likes_level", "views_level")
OPTIONAL_CONTEXT = ("user_level",)  # context where a file has it, in this order after CONTEXT
COLUMNS_TEST = (USER, HISTORY, TARGET, *CONTEXT)
COLUMNS_LABELLED = (*COLUMNS_TEST, LABEL)

LEVEL_LIMIT = 1_000  # a level beyond this is no category; the levels in use are 0..10


@dataclass(frozen=True)
class ClickLog:
    """What a checked file of clicks turned out to be.

    Attributes:
        path: the file.
        num_rows: its rows.
        history_length: entries of the longest `item_seq`, padding included; at least 1.
        has_label: whether there is a column `label`.
        has_row_id: whether there is a column `ID`.
        context: the context columns: `CONTEXT` and those of `OPTIONAL_CONTEXT` that there are.
        context_sizes: vocabulary of each context column: its largest value + 1.
    """

    path: Path
    num_rows: int
    history_length: int
    has_label: bool
    has_row_id: bool
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
    path = Path(path)
    kinds: dict[str, Kind] = dict.fromkeys((USER, TARGET, *CONTEXT), INTEGER)
    kinds |= {HISTORY: INTEGERS} | ({LABEL: NUMBER} if labelled else {ROW_ID: INTEGER})
    optional = dict.fromkeys(OPTIONAL_CONTEXT, INTEGER)
    with open_parquet(path, kinds, optional=optional) as file:
        names = file.schema_arrow.names
        context = (*CONTEXT, *(name for name in OPTIONAL_CONTEXT if name in names))
        wanted = {**kinds, **dict.fromkeys(context)} if values else (HISTORY, *context)
        length, sizes = 1, np.zeros(len(context), dtype=np.int64)
        labels_seen: set[float] = set()
        row_ids: list[NDArray[np.int64]] = []
        for run in runs(path, file, wanted):
            flat, lengths = run[HISTORY].lists()
            length = max(length, int(lengths.max(initial=0)))
            sizes = np.maximum(sizes, [_levels(run[name]) for name in context])
            if values:
                _check_history(run[HISTORY], flat, lengths, num_items)
                _check_ids(run[TARGET], num_items)
                run[USER].refuse_where(run[USER].numbers() < 0, "user ids are 0 or more")
                if labelled:
                    labels_seen |= _labels(run[LABEL])
                else:
                    row_ids.append(run[ROW_ID].numbers().astype(np.int64))
        if values and labelled and len(labels_seen) == 1:
            only = f"{labels_seen.pop():g}"
            raise InputError(
                f"labels must be both 0 and 1, every one is {only} in {path}, column {LABEL}"
            )
        if row_ids:
            ids = np.concatenate(row_ids)
            again = first_repeat(ids)
            if again is not None:
                Column(path, ROW_ID, again, pa.array(ids[again:])).refuse(
                    0, "each ID stands once", f"{ids[again]} a second time"
                )
        rows = int(file.metadata.num_rows)
    return ClickLog(
        path=path,
        num_rows=rows,
        history_length=length,
        has_label=LABEL in names,
        has_row_id=ROW_ID in names,
        context=context,
        context_sizes=tuple(int(size) for size in sizes),
    )


def read_row_ids(path: str | Path) -> NDArray[np.int64]:
    """The `ID` column of a test file, in file order: (rows,) int64."""
    path = Path(path)
    with open_parquet(path, {ROW_ID: INTEGER}) as file:
        parts = [run[ROW_ID].numbers().astype(np.int64) for run in runs(path, file, [ROW_ID])]
    return np.concatenate(parts)


def _check_history(
    column: Column, flat: NDArray[np.int64], lengths: NDArray[np.int64], num_items: int | None
) -> None:
    if not flat.size:
        return
    last = None if num_items is None else num_items - 1
    if flat.min() < 0 or (last is not None and flat.max() > last):
        bad = flat < 0 if last is None else (flat < 0) | (flat > last)
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


def _check_ids(column: Column, num_items: int | None) -> None:
    ids = column.numbers()
    last = None if num_items is None else num_items - 1
    bad = ids < 1
    if last is not None:
        bad |= ids > last
    column.refuse_where(bad, f"item ids lie in {_span(1, last)} (0 is padding)")


def _levels(column: Column) -> int:
    levels = column.numbers()
    column.refuse_where(
        (levels < 0) | (levels >= LEVEL_LIMIT), f"levels lie in 0..{LEVEL_LIMIT - 1}"
    )
    return int(levels.max(initial=0)) + 1


def _labels(column: Column) -> set[float]:
    labels = column.numbers()
    column.refuse_where((labels != 0) & (labels != 1), "labels are 0 or 1")
    return set(np.unique(labels).astype(float).tolist())


def _span(first: int, last: int | None) -> str:
    return f"{first} or more" if last is None else f"{first}..{last}"

"""A run of rows of a click log as numpy arrays, whatever the file holds, with what was odd.

B rows, L entries of the longest history of the run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmrec.data.schema import HISTORY, LABEL, TARGET, USER
from mmrec.io.parquet import is_list, left_pad

Array = NDArray[Any]
Ints = NDArray[np.int64]


@dataclass
class Chunk:
    """Rows `start`, `start + 1`, … of one split.

    Attributes:
        start: number of the first row.
        user: (B,) int64; a hash of names that are no numbers.
        target: (B,) int64, 0 where missing.
        label: (B,) int8 in {0, 1}, -1 where missing or neither.
        history: (B, L) int64, lists flush right, 0 where missing.
        others: further scalar columns, float64, NaN where missing.
        missing: column to number of rows with a null or NaN.
        odd_labels: labels that are there but neither 0 nor 1.
        ragged: whether lists had different lengths.
    """

    start: int
    user: Ints
    target: Ints
    label: NDArray[np.int8]
    history: Ints
    others: dict[str, NDArray[np.float64]]
    missing: dict[str, int] = field(default_factory=dict)
    odd_labels: int = 0
    ragged: bool = False


def is_scalar(kind: pa.DataType) -> bool:
    """Whether this type can be scored by size: a number, a boolean, a time, or all null."""
    types = pa.types
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    return bool(number or types.is_temporal(kind) or types.is_null(kind))


def read_chunk(batch: pa.RecordBatch, start: int, *, nobody: int = 0) -> Chunk:
    """Turn an arrow batch into a `Chunk`; never refuses a value.

    Where the file has no user, each row is one: `nobody` and the row's number.
    """
    missing: dict[str, int] = {}
    rows = batch.num_rows
    columns = {name: batch.column(name) for name in batch.schema.names}
    scalars: dict[str, NDArray[np.float64]] = {}
    exact: dict[str, Ints] = {}
    for name, array in columns.items():
        if is_list(array.type):
            continue
        if not is_scalar(array.type):
            missing[name] = array.null_count
            if name == USER:
                exact[name] = _hashed(array)
            continue
        if pa.types.is_temporal(array.type):
            array = _ticks(array)
        if name in (USER, TARGET) and pa.types.is_integer(array.type):
            missing[name] = array.null_count
            exact[name] = np.asarray(pc.fill_null(array, 0)).astype(np.int64)
            continue
        values = np.asarray(pc.cast(array, pa.float64(), safe=False).to_numpy(False))
        missing[name] = int(np.isnan(values).sum())
        scalars[name] = values
    for name in (USER, TARGET):
        if name in scalars:
            exact[name] = np.nan_to_num(scalars.pop(name)).astype(np.int64)
    label = scalars.pop(LABEL, np.full(rows, np.nan))
    valid = (label == 0) | (label == 1)
    history, holes, ragged = _history(columns.get(HISTORY), rows)
    if holes:
        missing[HISTORY] = holes
    return Chunk(
        start=start,
        user=exact.get(USER, nobody + start + np.arange(rows, dtype=np.int64)),
        target=exact.get(TARGET, np.zeros(rows, dtype=np.int64)),
        label=np.where(valid, label, -1).astype(np.int8),
        history=history,
        others=scalars,
        missing=missing,
        odd_labels=int((~valid & ~np.isnan(label)).sum()),
        ragged=ragged,
    )


def _hashed(array: pa.Array) -> Ints:
    """(B,) 63 bits of each name."""
    names = (repr(name).encode() for name in array.to_pylist())
    return np.array(
        [int.from_bytes(blake2b(name, digest_size=8).digest(), "big") >> 1 for name in names],
        dtype=np.int64,
    )


def _ticks(array: pa.Array) -> pa.Array:
    """Times and dates as integers that grow with time."""
    if pa.types.is_date(array.type):
        array = array.cast(pa.timestamp("ms"))
    return array.cast(pa.int32() if pa.types.is_time32(array.type) else pa.int64())


def _history(array: pa.Array | None, rows: int) -> tuple[Ints, int, bool]:
    """(B, L) ids; rows that miss their list or one of its values; whether lengths differ."""
    if array is None or not is_list(array.type):
        return np.zeros((rows, 1), dtype=np.int64), 0, False
    absent = array.is_null().to_numpy(False)
    lengths = np.asarray(pc.list_value_length(array).fill_null(0)).astype(np.int64)
    values = array.flatten()  # leaves null lists out, so their length is 0
    bad = values.is_null().to_numpy(False) if values.null_count else None
    if pa.types.is_floating(values.type):
        floats = np.asarray(values.to_numpy(zero_copy_only=False))
        bad = ~np.isfinite(floats)
        flat = np.nan_to_num(floats, posinf=0, neginf=0).astype(np.int64)
    else:
        values = pc.fill_null(values, 0) if values.null_count else values
        flat = np.asarray(values.to_numpy(zero_copy_only=False)).astype(np.int64, copy=False)
    if bad is not None and bad.any():
        absent = absent.copy()
        absent[np.repeat(np.arange(rows), lengths)[bad]] = True
    width = int(lengths.max(initial=0))
    ragged = bool((lengths[~array.is_null().to_numpy(False)] != width).any())
    if width and int(lengths.min()) == width:
        return flat.reshape(rows, width), int(absent.sum()), ragged
    return left_pad(flat, lengths, max(width, 1)), int(absent.sum()), ragged

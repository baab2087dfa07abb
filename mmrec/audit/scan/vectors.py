"""Ready-made vectors of items: missing numbers, constants, duplicates, norms, and a small sketch.

N items, D width of a vector, K width of its sketch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmrec.audit.scan.sample import Hashes, mix
from mmrec.data.items import ITEM, feature_files
from mmrec.io.parquet import is_list

Array = NDArray[Any]
RUN = 4_096
SKETCH = 64  # a random projection to so many dimensions keeps what a linear probe needs


@dataclass
class Vectors:
    """What one vector column holds.

    Attributes:
        source: table and column, such as features.image_emb.
        width: D; 0 where no vector was read.
        items: present vectors; `absent` rows that are masked out or null.
        broken: present vectors with a NaN, an infinity or a null.
        odd_width: present vectors of another width.
        zero: present vectors that are all zero.
        repeated: present vectors that stand for more than one item; `largest` in one group.
        constant: dimensions that are the same in all present vectors.
        norms: (items,) Euclidean lengths.
        sketch: (N, K) projection, zero where absent; `there` (N,) which are present.
    """

    source: str
    width: int = 0
    items: int = 0
    absent: int = 0
    broken: int = 0
    odd_width: int = 0
    zero: int = 0
    repeated: int = 0
    largest: int = 0
    constant: int = 0
    norms: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    sketch: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    there: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))


def vector_columns(path: Path) -> list[tuple[str, str | None]]:
    """Columns of float lists in a table, each with the mask column that goes with it."""
    schema = pq.ParquetFile(path).schema_arrow
    if ITEM not in schema.names:
        return []
    found: list[tuple[str, str | None]] = []
    for column in schema:
        if is_list(column.type) and pa.types.is_floating(column.type.value_type):
            mask = "has_" + column.name.removesuffix("_emb")
            boolean = mask in schema.names and pa.types.is_boolean(schema.field(mask).type)
            found.append((column.name, mask if boolean else None))
    return found


def read_vectors(
    source: str, path: Path, column: str, mask: str | None, *, num_items: int
) -> Vectors:
    """Read one column, a run of items at a time."""
    vectors = Vectors(source)
    vectors.sketch = np.zeros((num_items, SKETCH), dtype=np.float32)
    vectors.there = np.zeros(num_items, dtype=np.bool_)
    norms: list[Array] = []
    keys: list[Hashes] = []
    projection = np.zeros((0, 0), dtype=np.float32)
    multipliers: Hashes = np.zeros(0, dtype=np.uint64)
    low = high = np.zeros(0, dtype=np.float32)
    for file in feature_files(path):
        with pq.ParquetFile(file, buffer_size=1 << 20) as opened:
            names = [ITEM, column, *([mask] if mask else [])]
            for batch in opened.iter_batches(batch_size=RUN, columns=names):
                item, rows = _run(vectors, batch, mask)
                if not len(rows):
                    continue
                if not len(multipliers):
                    rng = np.random.default_rng(0)
                    shape = (vectors.width, min(SKETCH, vectors.width))
                    projection = rng.standard_normal(shape, dtype=np.float32)
                    if vectors.width <= SKETCH:
                        projection = np.eye(vectors.width, dtype=np.float32)
                    multipliers = mix(np.arange(vectors.width)) | np.uint64(1)
                    low, high = rows.min(axis=0), rows.max(axis=0)
                low, high = np.minimum(low, rows.min(axis=0)), np.maximum(high, rows.max(axis=0))
                norm = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
                norms.append(norm.astype(np.float32))
                keys.append(_keys(rows, multipliers)[norm > 0])
                inside = (item > 0) & (item < num_items)
                vectors.sketch[item[inside], : projection.shape[1]] = rows[inside] @ projection
                vectors.there[item[inside]] = True
    if norms:
        vectors.norms = np.concatenate(norms)
        vectors.items = len(vectors.norms)
        vectors.zero = int((vectors.norms == 0).sum())
        _, times = np.unique(np.concatenate(keys), return_counts=True)
        vectors.repeated = int(times[times > 1].sum())
        vectors.largest = int(times.max(initial=0))
        vectors.constant = int((low == high).sum())
    return vectors


def _keys(rows: Array, multipliers: Hashes) -> Hashes:
    """(n,) one hash of each vector."""
    words = rows + np.float32(0)  # -0 becomes 0
    # Two float32 are one word where the width is even: half the work.
    bits = words.view(np.uint32).astype(np.uint64) if rows.shape[1] % 2 else words.view(np.uint64)
    return mix(bits @ multipliers[: bits.shape[1]])


def _run(vectors: Vectors, batch: pa.RecordBatch, mask: str | None) -> tuple[Array, Array]:
    """Item ids and (n, D) float32 vectors of the present, sound rows of a run."""
    item = np.asarray(pc.fill_null(batch.column(0), -1)).astype(np.int64)
    array = batch.column(1)
    present = (item > 0) & ~array.is_null().to_numpy(False)
    if mask:
        present &= np.asarray(pc.fill_null(batch.column(2), False).to_numpy(False))
    vectors.absent += int(((item > 0) & ~present).sum())
    lengths = np.asarray(pc.list_value_length(array).fill_null(0)).astype(np.int64)
    if not vectors.width and present.any():
        vectors.width = int(lengths[present][0])
    odd = present & (lengths != vectors.width)
    vectors.odd_width += int(odd.sum())
    rows = np.flatnonzero(present & ~odd)
    values = array.flatten()  # leaves null lists out, as does their length of 0
    flat = pc.cast(values, pa.float32(), safe=False).to_numpy(zero_copy_only=False)
    if (lengths == vectors.width).all():
        matrix = flat.reshape(len(item), vectors.width)[rows]
    else:
        place = (np.cumsum(lengths) - lengths)[rows][:, None] + np.arange(vectors.width)
        matrix = flat[place]
    sound = np.isfinite(matrix).all(axis=1)
    vectors.broken += int((~sound).sum())
    return item[rows][sound], np.ascontiguousarray(matrix[sound], dtype=np.float32)

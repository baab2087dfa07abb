"""Ready-made vectors of items: missing numbers, constants, duplicates, norms, and a small sketch.

N items, D width of a vector, K width of its sketch, n items of a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmrec.audit.scan.rows import Array, Bools, Hashes, mix
from mmrec.io.lenient import batches, integers, is_scalar, kinds_of, lists
from mmrec.io.parquet import VECTOR, Ints
from mmrec.io.sources import Source
from mmrec.schema import Items

Matrix = NDArray[np.float32]

BATCH = 4_096
SKETCH = 64  # a random projection to so many dimensions keeps what a linear probe needs


@dataclass(frozen=True)
class VectorFacts:
    """What one vector column holds.

    Attributes:
        name: table and column, joined by a dot.
        width: D; 0 where no vector was read.
        present: vectors that are there; `absent` rows that are masked out or null.
        items: sound vectors; `broken` ones with a NaN, an infinity or a null, and `odd_width` ones
            of another width.
        zero: sound vectors that are all zero.
        repeated: other sound vectors that stand for more than one item; `largest` in one group.
        constant: dimensions that are the same in all sound vectors.
        norm_quantiles: Euclidean lengths at 5, 50 and 95 %; `norm_counts` items in 30 bins between
            the 31 `norm_edges`.
    """

    name: str
    width: int
    present: int
    absent: int
    items: int
    broken: int
    odd_width: int
    zero: int
    repeated: int
    largest: int
    constant: int
    norm_quantiles: list[float]
    norm_counts: list[int]
    norm_edges: list[float]


@dataclass(frozen=True)
class Vectors:
    """A column's facts, and a sketch (N, K) of its vectors, zero where `there` (N,) is False."""

    facts: VectorFacts
    sketch: Matrix
    there: Bools


def vector_columns(source: Source, items: Items) -> list[str]:
    """Columns of float lists in a table of items."""
    kinds = kinds_of(source)
    if not is_scalar(kinds.get(items.id, pa.string())):
        return []
    return [name for name, kind in kinds.items() if VECTOR.accepts(kind)]


def read_vectors(
    name: str, sources: Sequence[Source], column: str, items: Items, *, num_items: int
) -> Vectors:
    """Read one column of a table, which may be in shards, a batch of items at a time."""
    modality = {vectors: name for name, vectors in items.modalities.items()}.get(column, column)
    reader, mask = _Reader(num_items), f"has_{modality}"
    for source in sources:
        masked = pa.types.is_boolean(kinds_of(source).get(mask, pa.null()))
        for batch in batches(source, [items.id, column, *([mask] if masked else [])], size=BATCH):
            reader.add(*reader.sound(batch[items.id], batch[column], batch.get(mask)))
    return reader.vectors(name)


class _Reader:
    """Adds up what a column holds."""

    def __init__(self, num_items: int) -> None:
        self.width = self.absent = self.broken = self.odd_width = 0
        self.sketch = np.zeros((num_items, SKETCH), dtype=np.float32)
        self.there = np.zeros(num_items, dtype=np.bool_)
        self.norms: list[Array] = [np.zeros(0, dtype=np.float32)]
        self.keys: list[Hashes] = [np.zeros(0, dtype=np.uint64)]
        self.first, self.constant = np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.bool_)

    def sound(self, ids: pa.Array, array: pa.Array, mask: pa.Array | None) -> tuple[Ints, Matrix]:
        """Ids and (n, D) vectors of the present rows that are neither broken nor of odd width."""
        item = integers(ids)
        present = (item > 0) & ~array.is_null().to_numpy(False)
        present &= True if mask is None else integers(mask) > 0
        self.absent += int(((item > 0) & ~present).sum())
        values, lengths = lists(array)
        self.width = self.width or int(lengths[present][:1].sum())
        rows = np.flatnonzero(present & (lengths == self.width))
        self.odd_width += int(present.sum()) - len(rows)
        flat = pc.cast(values, pa.float32(), safe=False).to_numpy(zero_copy_only=False)
        if (lengths == self.width).all():
            matrix = flat.reshape(len(item), self.width)[rows]
        else:
            matrix = flat[(np.cumsum(lengths) - lengths)[rows][:, None] + np.arange(self.width)]
        finite = np.isfinite(matrix).all(axis=1)
        self.broken += int((~finite).sum())
        return item[rows][finite], np.ascontiguousarray(matrix[finite], dtype=np.float32)

    def add(self, item: Ints, vectors: Matrix) -> None:
        if not len(vectors):
            return
        if not len(self.first):
            self.first, self.constant = vectors[0], np.ones(self.width, dtype=np.bool_)
        self.constant &= (vectors == self.first).all(axis=0)
        norm = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
        self.norms.append(norm.astype(np.float32))
        self.keys.append(_keys(vectors)[norm > 0])
        inside = (item > 0) & (item < len(self.there))
        sketch = vectors[inside] @ _projection(self.width)
        self.sketch[item[inside], : sketch.shape[1]] = sketch
        self.there[item[inside]] = True

    def vectors(self, name: str) -> Vectors:
        norms = np.concatenate(self.norms)
        times = np.unique(np.concatenate(self.keys), return_counts=True)[1]
        counts, edges = np.histogram(norms, bins=30)
        quantiles = np.quantile(norms if len(norms) else [0.0], [0.05, 0.5, 0.95])
        facts = VectorFacts(
            name=name,
            width=self.width,
            present=len(norms) + self.broken + self.odd_width,
            items=len(norms),
            absent=self.absent,
            broken=self.broken,
            odd_width=self.odd_width,
            zero=int((norms == 0).sum()),
            repeated=int(times[times > 1].sum()),
            largest=int(times.max(initial=0)),
            constant=int(self.constant.sum()),
            norm_quantiles=quantiles.tolist(),
            norm_counts=counts.tolist(),
            norm_edges=edges.tolist(),
        )
        return Vectors(facts, self.sketch, self.there)


def _projection(width: int) -> Matrix:
    """(D, K) the same random directions for every batch; vectors of up to K stay as they are."""
    if width <= SKETCH:
        return np.eye(width, dtype=np.float32)
    return np.random.default_rng(0).standard_normal((width, SKETCH), dtype=np.float32)


def _keys(vectors: Matrix) -> Hashes:
    """(n,) one hash of each vector."""
    words = vectors + np.float32(0)  # -0 becomes 0
    # Two float32 are one word where the width is even: half the work.
    bits = words.view(np.uint64) if words.shape[1] % 2 == 0 else words.view(np.uint32)
    return mix(bits.astype(np.uint64) @ (mix(np.arange(bits.shape[1])) | np.uint64(1)))

"""The two files that a fusion leaves for other programs.

N items with the padding, D width of the fused vectors.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from torch import Tensor

from mmrec.data.items import EMBEDDING, ITEM, TAGS
from mmrec.errors import InputError
from mmrec.io.files import replacing
from mmrec.io.parquet import INTEGER, open_parquet


def write_item_embeddings(path: str | Path, vectors: Tensor) -> Path:
    """`item_id`, `item_emb_d128` of items 1..N-1, from vectors (N, D) whose row 0 is padding.

    The vector column is a list of float32, which pandas reads as one numpy array a row.
    """
    table = pa.table(
        {ITEM: pa.array(np.arange(1, len(vectors))), EMBEDDING: _lists(vectors[1:], pa.float32())}
    )
    return _write(path, table)


def write_item_info(source: str | Path, path: str | Path, vectors: Tensor) -> Path:
    """The `item_info` at `source` with its `item_emb_d128` replaced by vectors (N, D).

    Rows come out in the order of their ids from the padding row 0 on (row number = item id, which
    readers that index by row rely on), all other columns as they were.

    Raises:
        InputError: the file's items are not those of `vectors`.
    """
    source = Path(source)
    with open_parquet(source, {ITEM: INTEGER}) as file:
        table = file.read()
    table = table.take(pc.sort_indices(table[ITEM]))
    ids = table[ITEM].to_numpy()
    if len(ids) and ids[0] != 0:
        table = pa.concat_tables([_padding_row(table.schema), table])
        ids = table[ITEM].to_numpy()
    if not np.array_equal(ids, np.arange(len(vectors))):
        raise InputError(
            f"item_info must hold items 0..{len(vectors) - 1} once each, "
            f"got {len(ids)} rows up to item {ids.max(initial=0)} in {source}"
        )
    padded = vectors.clone()
    padded[0] = 0
    column = _lists(padded, pa.float64())
    if EMBEDDING in table.column_names:
        table = table.set_column(table.column_names.index(EMBEDDING), EMBEDDING, column)
    else:
        table = table.append_column(EMBEDDING, column)
    return _write(path, table)


def _padding_row(schema: pa.Schema) -> pa.Table:
    """Item 0: zeros, as many as the other rows have."""
    row: dict[str, object] = dict.fromkeys(schema.names)
    row[ITEM] = 0
    if TAGS in schema.names:
        kind = schema.field(TAGS).type
        row[TAGS] = [0] * (kind.list_size if pa.types.is_fixed_size_list(kind) else 1)
    if EMBEDDING in schema.names:
        kind = schema.field(EMBEDDING).type
        row[EMBEDDING] = [0.0] * (kind.list_size if pa.types.is_fixed_size_list(kind) else 1)
    return pa.Table.from_pylist([row], schema=schema)


def _lists(vectors: Tensor, kind: pa.DataType) -> pa.Array:
    """(R, D) -> a list column of R lists of D."""
    values = vectors.detach().float().cpu().numpy()
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.ravel()).cast(kind))


def _write(path: str | Path, table: pa.Table) -> Path:
    with replacing(path) as temporary:
        pq.write_table(table, temporary)
    return Path(path)

"""The two files that a fusion leaves for other programs.

N items with the padding, D width of the fused vectors.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import DTypeLike
from torch import Tensor

from mmrec.data.items import EMBEDDING, ITEM, TAGS
from mmrec.errors import InputError
from mmrec.io.parquet import INTEGER, as_lists, open_parquet, write_parquet


def write_item_embeddings(path: str | Path, vectors: Tensor) -> Path:
    """`item_id`, `item_emb_d128` of items 1..N-1, from vectors (N, D) whose row 0 is padding.

    The vector column is a list of float32, which pandas reads as one numpy array a row.
    """
    columns = {ITEM: np.arange(1, len(vectors)), EMBEDDING: _lists(vectors[1:], np.float32)}
    return write_parquet(path, pa.table(columns))


def write_item_info(source: str | Path, path: str | Path, vectors: Tensor) -> Path:
    """The `item_info` at `source` with its `item_emb_d128` replaced by vectors (N, D).

    Rows come out in the order of their ids from the padding row 0 on (row number = item id, which
    readers that index by row rely on), all other columns as they were.

    Raises:
        InputError: the file's items are not those of `vectors`.
    """
    opened = open_parquet(source, {ITEM: INTEGER})
    names = opened.schema.names
    table = pa.Table.from_batches(opened.read(names))
    table = table.take(pc.sort_indices(table[ITEM]))
    if table.num_rows and table[ITEM][0].as_py() != 0:
        table = pa.concat_tables([_padding_row(table.schema), table])
    ids = table[ITEM].to_numpy()
    if not np.array_equal(ids, np.arange(len(vectors))):
        raise InputError(
            f"item_info must hold items 0..{len(vectors) - 1} once each, "
            f"got {len(ids)} rows up to item {ids.max(initial=0)} in {source}"
        )
    padded = vectors.clone()
    padded[0] = 0
    column = _lists(padded, np.float64)
    if EMBEDDING in names:
        table = table.set_column(names.index(EMBEDDING), EMBEDDING, column)
    else:
        table = table.append_column(EMBEDDING, column)
    return write_parquet(path, table)


def _padding_row(schema: pa.Schema) -> pa.Table:
    """Item 0: no tag and a zero vector, at the width of a fixed-size list; all else is null."""
    row: dict[str, object] = dict.fromkeys(schema.names)
    row[ITEM] = 0
    for name in {TAGS, EMBEDDING}.intersection(schema.names):
        kind = schema.field(name).type
        row[name] = [0] * (kind.list_size if pa.types.is_fixed_size_list(kind) else 1)
    return pa.Table.from_pylist([row], schema=schema)


def _lists(vectors: Tensor, kind: DTypeLike) -> pa.Array:
    """(R, D) -> a list column of R lists of D."""
    return as_lists(vectors.detach().float().cpu().numpy().astype(kind))

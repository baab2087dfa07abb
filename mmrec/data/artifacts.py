"""The two files that a fusion leaves for other programs.

N items with the padding, D width of the fused vectors.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import DTypeLike
from torch import Tensor

from mmrec.errors import InputError
from mmrec.io.parquet import INTEGER, as_lists, is_list, open_parquet, write_parquet
from mmrec.schema import Items


def write_fused(
    folder: Path, item_info: Path, vectors: Tensor | None, schema: Items
) -> dict[str, Path]:
    """Both files, in `folder`: `custom_item_embeddings.parquet` and `item_info.parquet`.

    None, as where items have no content, writes nothing.
    """
    if vectors is None:
        return {}
    embeddings, info = folder / "custom_item_embeddings.parquet", folder / "item_info.parquet"
    write_item_embeddings(embeddings, vectors, schema)
    write_item_info(item_info, info, vectors, schema)
    return {"custom_item_embeddings": embeddings, "item_info": info}


def write_item_embeddings(path: str | Path, vectors: Tensor, schema: Items) -> Path:
    """Id and vector of items 1..N-1, from vectors (N, D) whose row 0 is padding.

    The vector column is a list of float32, which pandas reads as one numpy array a row. Columns
    are called as the schema calls them; the vectors `item_emb` where it does not.
    """
    ids, lists = np.arange(1, len(vectors)), _lists(vectors[1:], np.float32)
    return write_parquet(path, pa.table({schema.id: ids, _vectors(schema): lists}))


def write_item_info(source: str | Path, path: str | Path, vectors: Tensor, schema: Items) -> Path:
    """The `item_info` at `source` with its ready vectors replaced by vectors (N, D).

    Rows come out in the order of their ids from the padding row 0 on (row number = item id, which
    readers that index by row rely on), all other columns as they were.

    Raises:
        InputError: the file's items are not those of `vectors`.
    """
    item, name = schema.id, _vectors(schema)
    opened = open_parquet(source, {item: INTEGER})
    names = opened.schema.names
    table = pa.Table.from_batches(opened.read(names))
    table = table.take(pc.sort_indices(table[item]))
    if table.num_rows and table[item][0].as_py() != 0:
        table = pa.concat_tables([_padding_row(table.schema, schema), table])
    ids = table[item].to_numpy()
    if not np.array_equal(ids, np.arange(len(vectors))):
        raise InputError(
            f"item_info must hold items 0..{len(vectors) - 1} once each, "
            f"got {len(ids)} rows up to item {ids.max(initial=0)} in {source}"
        )
    padded = vectors.clone()
    padded[0] = 0
    column = _lists(padded, np.float64)
    if name in names:
        table = table.set_column(names.index(name), name, column)
    else:
        table = table.append_column(name, column)
    return write_parquet(path, table)


def _vectors(schema: Items) -> str:
    return schema.vectors or "item_emb"


def _padding_row(columns: pa.Schema, schema: Items) -> pa.Table:
    """Item 0: no tag, category 0 and a zero vector, as lists where they are; all else is null."""
    row: dict[str, object] = dict.fromkeys(columns.names)
    row[schema.id] = 0
    filled = {schema.tags or "", _vectors(schema), *(c.name for c in schema.categorical)}
    for name in filled.intersection(columns.names):
        kind = columns.field(name).type
        if is_list(kind):
            row[name] = [0] * (kind.list_size if pa.types.is_fixed_size_list(kind) else 1)
        else:
            row[name] = 0
    return pa.Table.from_pylist([row], schema=columns)


def _lists(vectors: Tensor, kind: DTypeLike) -> pa.Array:
    """(R, D) -> a list column of R lists of D."""
    return as_lists(vectors.detach().float().cpu().numpy().astype(kind))

"""A contact sheet: a few items with their nearest neighbours, to see whether vectors make sense.

    python -m mmrec.embed.sheet --features OUT --items item_feature.parquet --images item_images \\
        --fused custom_item_embeddings.parquet --png sheet.png

Shapes: N items, Q of them asked about, K neighbours, D width.
"""

from __future__ import annotations

import argparse
import io
import os
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmrec.cli import run
from mmrec.embed.captions import Captions
from mmrec.embed.images import OK
from mmrec.embed.items import Items, read_items
from mmrec.embed.shards import shard_paths
from mmrec.errors import InputError
from mmrec.io.files import replacing

MOST = 100_000  # items that are searched; of more, evenly spaced ones
_TILE, _WORDS, _GAP = 144, 44, 8

Floats = np.ndarray[Any, np.dtype[np.float32]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


def draw_sheet(
    features: str | os.PathLike[str],
    items: Items,
    png: str | os.PathLike[str],
    *,
    rows: int = 6,
    neighbours: int = 6,
    fused: str | os.PathLike[str] | None = None,
) -> None:
    """Write a PNG: each row an item (framed) and its nearest neighbours by cosine.

    Args:
        features: folder of shards.
        items: the table that they were made from.
        rows, neighbours: size of the sheet.
        fused: parquet of item ids and one list column, searched instead of the mean of the unit
            image and text vectors.
    """
    from PIL import Image, ImageDraw

    ids, vectors, shown = (
        read_fused(Path(features), Path(fused)) if fused else read_mean(Path(features))
    )
    queries, nearest, similarity = neighbours_of(vectors, shown, rows, neighbours)
    place = {int(key): row for row, key in enumerate(items.ids)}
    width = (_TILE + _GAP) * (nearest.shape[1] + 1) + _GAP
    height = (_TILE + _WORDS + _GAP) * max(1, len(queries)) + _GAP
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for line, query in enumerate(queries):
        top = _GAP + line * (_TILE + _WORDS + _GAP)
        for column, index in enumerate([query, *nearest[line]]):
            left = _GAP + column * (_TILE + _GAP)
            row = place.get(int(ids[index]))
            _tile(sheet, items, row, left, top)
            value = "" if column == 0 else f"{similarity[line, column - 1]:.2f} "
            _write(draw, left, top + _TILE, value + ("" if row is None else items.titles[row]))
            if column == 0:
                draw.rectangle((left, top, left + _TILE - 1, top + _TILE - 1), outline="red")
    with replacing(png) as temporary:
        sheet.save(temporary, format="PNG")


def neighbours_of(
    vectors: Floats, shown: np.ndarray[Any, np.dtype[np.bool_]], rows: int, neighbours: int
) -> tuple[Ints, Ints, Floats]:
    """Evenly spaced items and their nearest others by cosine.

    Args:
        vectors: (N, D), unit length, or zero where an item has nothing.
        shown: (N,) items worth asking about: those with a picture, where there are any.

    Returns:
        queries (Q,), neighbours (Q, K) and their cosines (Q, K), nearest first.
    """
    present = np.flatnonzero(np.abs(vectors).sum(axis=1) > 0)
    candidates = np.flatnonzero(shown) if shown.any() else present
    picked = np.linspace(0, len(candidates) - 1, num=min(rows, len(candidates)))
    queries = candidates[np.unique(picked.round().astype(np.int64))]
    k = max(0, min(neighbours, len(present) - 1))
    cosines = vectors[queries] @ vectors[present].T  # (Q, N)
    cosines[queries[:, None] == present[None, :]] = -np.inf  # not oneself
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return queries, present[order], np.take_along_axis(cosines, order, axis=1)


def read_mean(features: Path) -> tuple[Ints, Floats, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Ids, the mean of unit image and text vectors over what is present, and who has a picture.

    Where the two widths differ there is no common space: the two are put side by side.
    """
    columns = ["item_id", "image_emb", "text_emb", "status"]
    ids, vectors, shown = [], [], []
    step = _step(sum(pq.read_metadata(path).num_rows for path in shard_paths(features)))
    for path in shard_paths(features):
        table = _every(pq.read_table(path, columns=columns), step)
        image, text = _matrix(table.column("image_emb")), _matrix(table.column("text_emb"))
        image, text = _unit(image), _unit(text)
        joined = image + text if image.shape[1] == text.shape[1] else np.hstack([image, text])
        ids.append(table.column("item_id").to_numpy())
        vectors.append(_unit(joined))
        shown.append(np.array([s == OK for s in table.column("status").to_pylist()]))
    return np.concatenate(ids), np.concatenate(vectors), np.concatenate(shown)


def read_fused(
    features: Path, fused: Path
) -> tuple[Ints, Floats, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Ids and unit vectors of a fused file: its first integer column and its first list column."""
    try:
        table = pq.read_table(fused)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"fused vectors must be parquet; {fused} cannot be read: {reason}"
        ) from None
    keys = [f.name for f in table.schema if pa.types.is_integer(f.type)]
    lists = [f.name for f in table.schema if hasattr(f.type, "value_type")]
    if not keys or not lists:
        raise InputError(
            f"fused vectors are an id and a list column, got {table.schema.names}: {fused}"
        )
    table = _every(table, _step(len(table)))
    ids = table.column(keys[0]).to_numpy().astype(np.int64)
    with_picture: set[int] = set()
    for path in shard_paths(features):
        part = pq.read_table(path, columns=["item_id", "has_image"])
        with_picture.update(
            part.column(0).to_numpy()[np.array(part.column(1).to_pylist(), bool)].tolist()
        )
    shown = np.array([int(key) in with_picture for key in ids], bool)
    return ids, _unit(_matrix(table.column(lists[0]))), shown


def _step(count: int) -> int:
    return max(1, -(-count // MOST))


def _every(table: pa.Table, step: int) -> pa.Table:
    return table if step == 1 else table.take(np.arange(0, len(table), step))


def _matrix(column: pa.ChunkedArray) -> Floats:
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0)
    matrix: Floats = array.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return matrix.reshape(len(array), -1)


def _unit(vectors: Floats) -> Floats:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Floats = vectors / np.where(length > 0, length, np.float32(1))
    return unit


def _tile(sheet: Any, items: Items, row: int | None, left: int, top: int) -> None:
    from PIL import Image

    source = None if row is None else items.sources(row, row + 1)[0]
    try:
        if source is None:
            raise OSError
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
            picture.draft("RGB", (_TILE, _TILE))
            small = picture.convert("RGB")
            small.thumbnail((_TILE, _TILE))
    except Exception:  # no picture, or one that was not used either: a grey tile
        small = Image.new("RGB", (_TILE, _TILE), "lightgrey")
    sheet.paste(small, (left + (_TILE - small.width) // 2, top + (_TILE - small.height) // 2))


def _write(draw: Any, left: int, top: int, text: str) -> None:
    words = "\n".join(textwrap.wrap(text, width=24, max_lines=3, placeholder="…"))
    try:
        draw.multiline_text((left, top + 2), words, fill="black", spacing=1)
    except UnicodeEncodeError:  # Pillow's font without FreeType knows Latin-1 only
        plain = words.encode("latin-1", "replace").decode("latin-1")
        draw.multiline_text((left, top + 2), plain, fill="black", spacing=1)


def main(arguments: list[str] | None = None) -> None:
    """Draw a sheet for features that are there already."""
    p = argparse.ArgumentParser(
        prog="python -m mmrec.embed.sheet",
        description="Draw items with their nearest neighbours.",
    )
    p.add_argument("--features", required=True, metavar="DIR", help="output of mmrec.embed")
    p.add_argument("--items", required=True, metavar="FILE", help="the items file")
    p.add_argument("--images", metavar="DIR", help="the images folder")
    p.add_argument("--image-column", metavar="NAME", help="column of picture bytes in --items")
    p.add_argument("--fused", metavar="FILE", help="parquet of item ids and fused vectors")
    p.add_argument("--png", required=True, metavar="FILE", help="the picture to write")
    p.add_argument("--rows", type=int, default=6, metavar="N", help="default %(default)s")
    p.add_argument("--neighbours", type=int, default=6, metavar="N", help="default %(default)s")
    given = p.parse_args(arguments)
    if not shard_paths(given.features):
        raise InputError(f"there are no shards of mmrec.embed in {given.features}")
    table = read_items(
        given.items, images=given.images, captions=Captions(), image_column=given.image_column
    )
    draw_sheet(
        given.features, table, given.png,
        rows=given.rows, neighbours=given.neighbours, fused=given.fused,
    )  # fmt: skip
    print(given.png)


if __name__ == "__main__":
    run(main)

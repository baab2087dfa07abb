"""A contact sheet: a few items with their nearest neighbours, to see whether vectors make sense.

    python -m mmrec.embed.sheet --features OUT --items item_feature.parquet --images item_images \\
        --fused custom_item_embeddings.parquet --png sheet.png

Shapes: N items, Q of them asked about, K neighbours, D width.
"""

from __future__ import annotations

import argparse
import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmrec.cli import run
from mmrec.data.microlens import MICROLENS
from mmrec.embed.captions import Captions
from mmrec.embed.items import Catalogue, read_items
from mmrec.embed.output import read_shard, shard_paths, vector_columns
from mmrec.errors import InputError
from mmrec.io.files import replacing
from mmrec.io.parquet import is_list, open_parquet, read_columns
from mmrec.io.pictures import MAX_PIXELS, OK, PLAIN_NAMES, Picture, read_picture
from mmrec.schema import Schema

if TYPE_CHECKING:
    from PIL import Image

MOST = 100_000  # items that are searched; of more, evenly spaced ones
_TILE, _WORDS, _GAP = 144, 44, 8

Floats = np.ndarray[Any, np.dtype[np.float32]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


def draw_sheet(
    features: str | os.PathLike[str],
    items: Catalogue,
    png: str | os.PathLike[str],
    *,
    rows: int = 6,
    neighbours: int = 6,
    fused: str | os.PathLike[str] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> None:
    """Write a PNG: each row an item (framed) and its nearest neighbours by cosine.

    Args:
        features: folder of shards.
        items: the table that they were made from.
        rows, neighbours: size of the sheet.
        fused: parquet of item ids and one list column, searched instead of the mean of the unit
            vectors of all modalities.
        max_pixels: larger pictures are not drawn.

    A picture that cannot be used is a grey tile with its status.

    Raises:
        StorageError: the storage that holds the pictures failed.
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
            _paste(sheet, draw, thumbnail(items, row, max_pixels), left, top)
            value = "" if column == 0 else f"{similarity[line, column - 1]:.2f} "
            _write(
                draw, left, top + _TILE, value + ("" if row is None else items.titles[row] or "")
            )
            if column == 0:
                draw.rectangle((left, top, left + _TILE - 1, top + _TILE - 1), outline="red")
    with replacing(png) as temporary:
        sheet.save(temporary, format="PNG")


def neighbours_of(
    vectors: Floats, shown: Bools, rows: int, neighbours: int
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


def read_mean(features: Path) -> tuple[Ints, Floats, Bools]:
    """Ids, the mean of the unit vectors of what is present, and who has a picture.

    Where widths differ there is no common space: modalities are put side by side.
    """
    ids, vectors, shown = [], [], []
    step = _step(sum(pq.read_metadata(path).num_rows for path in shard_paths(features)))
    for path in shard_paths(features):
        table = read_shard(path)
        every = [_unit(_matrix(column)[::step]) for column in vector_columns(table)]
        alike = len({matrix.shape[1] for matrix in every}) == 1
        ids.append(table.column(0).to_numpy()[::step])
        vectors.append(_unit(np.sum(every, axis=0) if alike else np.hstack(every)))
        shown.append(pc.equal(table["status"], OK).to_numpy()[::step])
    return np.concatenate(ids), np.concatenate(vectors), np.concatenate(shown)


def read_fused(features: Path, fused: Path) -> tuple[Ints, Floats, Bools]:
    """Ids and unit vectors of a fused file: its first integer column and its first list column."""
    source = open_parquet(fused, {})
    schema = source.schema
    key = next((field.name for field in schema if pa.types.is_integer(field.type)), None)
    name = next((field.name for field in schema if is_list(field.type)), None)
    if key is None or name is None:
        raise InputError(f"fused vectors are an id and a list column, got {schema.names}: {fused}")
    step = _step(source.num_rows)
    parts = list(read_columns(source, [key, name]))
    ids = np.concatenate([part[key].numbers().astype(np.int64) for part in parts])[::step]
    vectors = np.concatenate([_matrix(part[name].array) for part in parts])[::step]
    tables = [read_shard(path, vectors=False) for path in shard_paths(features)]
    pictured = [t.column(0).filter(pc.equal(t["status"], OK)) for t in tables]
    there = np.concatenate([ids.to_numpy() for ids in pictured])
    return ids, _unit(vectors), np.isin(ids, there)


def _step(count: int) -> int:
    return max(1, -(-count // MOST))


def _matrix(column: pa.Array | pa.ChunkedArray) -> Floats:
    values: Floats = pc.list_flatten(column).to_numpy(zero_copy_only=False).astype(np.float32)
    return values.reshape(len(column), -1)


def _unit(vectors: Floats) -> Floats:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Floats = vectors / np.where(length > 0, length, np.float32(1))
    return unit


def thumbnail(items: Catalogue, row: int | None, max_pixels: int) -> Picture[Image.Image]:
    """An item's picture made small, or why there is none."""

    def small(image: Image.Image, _: bytes) -> Image.Image:
        image.draft("RGB", (_TILE, _TILE))
        image = image.convert("RGB")
        image.thumbnail((_TILE, _TILE))
        return image

    source = None if row is None else next(items.sources(row, row + 1, 1))[0][1]
    if source is None:
        return Picture(items.without_picture)
    return read_picture(source, small, max_pixels=max_pixels)


def _paste(sheet: Any, draw: Any, picture: Picture[Image.Image], left: int, top: int) -> None:
    if picture.pixels is None:
        draw.rectangle((left, top, left + _TILE - 1, top + _TILE - 1), fill="lightgrey")
        _write(draw, left + _GAP, top + _TILE // 2, picture.status)
    else:
        width, height = picture.pixels.size
        sheet.paste(picture.pixels, (left + (_TILE - width) // 2, top + (_TILE - height) // 2))


def _write(draw: Any, left: int, top: int, text: str) -> None:
    words = "\n".join(textwrap.wrap(text, width=24, max_lines=3, placeholder="…"))
    try:
        draw.multiline_text((left, top + 2), words, fill="black", spacing=1)
    except UnicodeEncodeError:  # Pillow's font without FreeType knows Latin-1 only
        plain = words.encode("latin-1", "replace").decode("latin-1")
        draw.multiline_text((left, top + 2), plain, fill="black", spacing=1)


def main(argv: list[str] | None = None) -> None:
    """Draw a sheet for features that are there already."""
    p = argparse.ArgumentParser(
        prog="python -m mmrec.embed.sheet",
        description="Draw items with their nearest neighbours.",
    )
    p.add_argument("--features", required=True, metavar="DIR", help="output of mmrec.embed")
    p.add_argument("--items", required=True, metavar="FILE", help="the items file")
    p.add_argument("--schema", type=Path, metavar="FILE", help="names columns (MicroLens's)")
    p.add_argument("--images", metavar="DIR", help="the images folder")
    p.add_argument("--image-column", metavar="NAME", help="column of picture bytes in --items")
    p.add_argument("--image-names", default=PLAIN_NAMES, metavar="TEMPLATE", help="names in it")
    p.add_argument("--fused", metavar="FILE", help="parquet of item ids and fused vectors")
    p.add_argument("--png", required=True, metavar="FILE", help="the picture to write")
    p.add_argument("--rows", type=int, default=6, metavar="N", help="default %(default)s")
    p.add_argument("--neighbours", type=int, default=6, metavar="N", help="default %(default)s")
    args = p.parse_args(argv)
    if not shard_paths(args.features):
        raise InputError(f"there are no shards of mmrec.embed in {args.features}")
    table = read_items(
        args.items,
        images=args.images,
        captions=Captions(),
        schema=(Schema.read(args.schema) if args.schema else MICROLENS).items,
        image_column=args.image_column,
        image_names=args.image_names,
    )
    draw_sheet(
        args.features, table, args.png,
        rows=args.rows, neighbours=args.neighbours, fused=args.fused,
    )  # fmt: skip
    print(args.png)


if __name__ == "__main__":
    run(main)

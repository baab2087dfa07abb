"""Which items there are, their captions, and where their pictures lie."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmrec.embed.captions import Captions
from mmrec.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Items:
    """N items in file order.

    Attributes:
        path: the items file.
        ids: (N,) int64, unique, at least 1.
        captions: N captions, "" where an item has no words.
        files: N paths of pictures (None where there is none), or None where pictures are bytes
            in the items file or not given at all.
        image_column: name of the column of picture bytes, or None.
        titles: N titles, for the contact sheet.
        images: the folder of pictures, or None.
        words: a hash of all titles and tags, whatever the caption template.
    """

    path: Path
    ids: np.ndarray[Any, np.dtype[np.int64]]
    captions: list[str]
    titles: list[str]
    files: list[str | None] | None
    image_column: str | None
    images: Path | None
    words: str

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def picture_kind(self) -> str:
        """Where pictures come from: "folder", "column" or "none"."""
        if self.image_column is not None:
            return "column"
        return "none" if self.files is None else "folder"

    def fingerprint(self) -> dict[str, Any]:
        """Ids and their order, words, and where pictures come from."""
        return {
            "count": len(self),
            "ids": hashlib.sha256(self.ids.astype("<i8").tobytes()).hexdigest(),
            "words": self.words,
            "pictures": self.picture_kind,
        }

    def sources(self, start: int, stop: int) -> list[str | bytes | None]:
        """Paths, or bytes, of the pictures of items start..stop."""
        if self.image_column is not None:
            return _read_bytes(self.path, self.image_column, start, stop)
        if self.files is not None:
            return list(self.files[start:stop])
        return [None] * (stop - start)


def read_items(
    path: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None,
    captions: Captions,
    id_column: str = "item_id",
    title_column: str = "item_title",
    tags_column: str = "item_tags",
    image_column: str | None = None,
) -> Items:
    """Read and check the items file, and find each item's picture.

    Args:
        path: parquet with an id, and a title or tags or both; other columns are ignored.
        images: folder with `<id>.jpg` (or another suffix), or such a folder inside it named
            `item_images`; None where there are no pictures or they are in `image_column`.
        image_column: a column of the items file with the pictures' bytes (binary, or a struct
            with a field `bytes`), or with file names relative to `images`.

    Raises:
        InputError: a file or column is missing, of the wrong type or empty; an id is null,
            below 1 or there twice; the images folder is not there.
    """
    path = Path(path)
    file = _open(path)
    schema = file.schema_arrow
    if id_column not in schema.names:
        raise InputError(f"the items file must have a column {id_column!r}: {path}")
    present = [name for name in (title_column, tags_column) if name in schema.names]
    if not present:
        raise InputError(
            f"the items file must have {title_column!r} or {tags_column!r}, "
            f"found {schema.names}: {path}"
        )
    names = image_column is not None and _is_text(_field(schema, image_column, path).type)
    columns = [id_column, *present, *([image_column] if names and image_column else [])]
    table = _read(file, columns, path)
    ids = _ids(table.column(id_column), id_column, path)
    titles = _titles(table, title_column, path)
    tags = _tags(table, tags_column, path)
    files: list[str | None] | None = None
    root = None if images is None else Path(images)
    if names:
        base = root or path.parent
        files = [
            None if not name else str(base / name)
            for name in table.column(image_column).to_pylist()
        ]
        image_column = None
    elif root is not None and image_column is None:
        files = find_pictures(root, ids.tolist())
    return Items(
        path=path,
        ids=ids,
        captions=[captions(title, tag) for title, tag in zip(titles, tags, strict=True)],
        titles=[title or "" for title in titles],
        files=files,
        image_column=image_column,
        images=root,
        words=_hash(titles, tags),
    )


def find_pictures(root: Path, ids: Sequence[int]) -> list[str | None]:
    """The path of each id's picture; one listing of the folder, not one look-up an item."""
    nested = root / "item_images"
    try:
        folder = nested if nested.is_dir() else root
        names = os.listdir(folder)
    except OSError as error:
        raise InputError(f"the images folder cannot be listed ({error.strerror}): {root}") from None
    rank = {suffix: index for index, suffix in enumerate(SUFFIXES)}
    best: dict[int, tuple[int, str]] = {}
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in rank and stem.isascii() and stem.isdigit():
            entry = (rank[suffix.lower()], name)
            key = int(stem)
            if key not in best or entry < best[key]:
                best[key] = entry
    return [os.path.join(folder, best[key][1]) if key in best else None for key in ids]


def stored_bytes(path: Path, column: str, start: int, stop: int, step: int) -> Iterator[list[Any]]:
    """Rows start..stop of a bytes column, `step` at a time, never a whole row group in memory."""
    file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
    first, groups = 0, []
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if first + rows > start and first < stop:
            groups.append(group)
            if len(groups) == 1:
                skip = start - first
        first += rows
    if not groups:
        return
    wanted, held = stop - start, []
    for batch in file.iter_batches(batch_size=step, row_groups=groups, columns=[column]):
        values = batch.column(0)
        if skip >= len(values):
            skip -= len(values)
            continue
        held += _as_bytes(values[skip:])
        skip = 0
        while len(held) >= step and wanted >= step:
            yield held[:step]
            held, wanted = held[step:], wanted - step
        if len(held) >= wanted:
            break
    if wanted:
        yield held[:wanted]


def _hash(titles: Sequence[str | None], tags: Sequence[Any]) -> str:
    state = hashlib.sha256()
    for title, tag in zip(titles, tags, strict=True):
        state.update(repr((title, tag and list(tag))).encode("utf-8", "backslashreplace"))
    return state.hexdigest()


def _as_bytes(values: pa.Array) -> list[bytes | None]:
    if pa.types.is_struct(values.type):
        return [None if row is None else row.get("bytes") for row in values.to_pylist()]
    return list(values.to_pylist())


def _read_bytes(path: Path, column: str, start: int, stop: int) -> list[Any]:
    return [value for part in stored_bytes(path, column, start, stop, 64) for value in part]


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise InputError(f"the items file must exist, and there is none at {path}") from None
    except (OSError, pa.ArrowException) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"the items file must be parquet; {path} cannot be read: {reason}"
        ) from None


def _read(file: pq.ParquetFile, columns: list[str], path: Path) -> pa.Table:
    try:
        table = file.read(columns=columns)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"the items file is damaged: {path}: {reason}") from None
    if table.num_rows == 0:
        raise InputError(f"the items file must hold at least one item: {path}")
    return table


def _field(schema: pa.Schema, name: str, path: Path) -> pa.Field:
    if name not in schema.names:
        raise InputError(f"there is no column {name!r} in {path}, found {schema.names}")
    field = schema.field(name)
    kind = field.type
    binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    packed = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    if not (binary or packed or _is_text(kind)):
        raise InputError(f"column {name!r} must hold bytes or file names, got {kind}: {path}")
    return field


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _ids(column: pa.ChunkedArray, name: str, path: Path) -> np.ndarray[Any, np.dtype[np.int64]]:
    if not pa.types.is_integer(column.type):
        raise InputError(f"column {name!r} must be integers, got {column.type}: {path}")
    if column.null_count:
        row = column.is_null().index(True).as_py()
        raise InputError(f"column {name!r} must not hold nulls, got one in row {row}: {path}")
    ids: np.ndarray[Any, np.dtype[np.int64]] = column.to_numpy().astype(np.int64)
    if (ids < 1).any():
        row = int(np.argmax(ids < 1))
        raise InputError(
            f"item ids are at least 1 (0 is padding), got {ids[row]} in row {row} of column "
            f"{name!r}: {path}"
        )
    order = np.argsort(ids, kind="stable")
    same = np.flatnonzero(ids[order][1:] == ids[order][:-1])
    if len(same):
        a, b = int(order[same[0]]), int(order[same[0] + 1])
        raise InputError(f"item id {ids[a]} must stand once, got rows {a} and {b}: {path}")
    return ids


def _titles(table: pa.Table, name: str, path: Path) -> list[str | None]:
    if name not in table.column_names:
        return [None] * table.num_rows
    column = table.column(name)
    if not _is_text(column.type) and not pa.types.is_null(column.type):
        raise InputError(f"column {name!r} must hold text, got {column.type}: {path}")
    return list(column.to_pylist())


def _tags(table: pa.Table, name: str, path: Path) -> list[Any]:
    if name not in table.column_names:
        return [None] * table.num_rows
    kind = table.column(name).type
    is_list = (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
    inner = kind.value_type if is_list else None
    if inner is None or not (
        pa.types.is_integer(inner) or _is_text(inner) or pa.types.is_null(inner)
    ):
        raise InputError(f"column {name!r} must be lists of integers or text, got {kind}: {path}")
    return list(table.column(name).to_pylist())

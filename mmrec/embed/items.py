"""Which items there are, their captions, and where their pictures lie."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmrec.data.microlens import MICROLENS
from mmrec.embed.captions import Captions
from mmrec.errors import InputError, require
from mmrec.io.parquet import INTEGER, TEXT, Column, Kind, is_list, open_parquet, read_columns
from mmrec.io.pictures import MISSING, NO_IMAGE_SOURCE, PLAIN_NAMES, find_several, listing
from mmrec.io.sources import Source
from mmrec.schema import Items

types = pa.types

PictureSource = str | bytes | None


def _is_bytes(kind: pa.DataType) -> bool:
    packed = types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    return bool(packed or types.is_binary(kind) or types.is_large_binary(kind))


def _is_names(kind: pa.DataType) -> bool:
    return bool(TEXT.accepts(kind) or (is_list(kind) and TEXT.accepts(kind.value_type)))


def _is_plain(kind: pa.DataType) -> bool:
    return _is_plain(kind.value_type) if is_list(kind) else not types.is_nested(kind)


TITLE = Kind("strings", lambda t: types.is_null(t) or TEXT.accepts(t))
TAGS = Kind(
    "lists of integers or strings",
    lambda t: is_list(t) and (types.is_integer(t.value_type) or TITLE.accepts(t.value_type)),
)
PICTURE = Kind(
    "picture bytes or file names",
    lambda t: _is_bytes(t) or _is_names(t) or (is_list(t) and _is_bytes(t.value_type)),
)
VALUES = Kind("numbers, strings, bytes or lists of these", _is_plain)


@dataclass(frozen=True)
class Catalogue:
    """N items in file order.

    Attributes:
        path: the items file.
        ids: (N,) int64, unique, at least 1.
        captions: N captions, "" where an item has no words.
        titles: N titles, None where there is none.
        tags: of each item, None where there are none.
        pictures: where they come from, "folder" (also when a column names files), "column" (of
            bytes in the items file) or "none".
        files: paths of each item's pictures; none where it has none or they do not come from files.
        image_column: name of the column of picture bytes, or None.
        images: the folder of pictures, or None.
        image_names: template of the names in it, see `mmrec.io.pictures.find_several`.
        values: column -> N values, of what other encoders read; None = an item has none.
        schema: names of the columns.
    """

    path: Path
    ids: np.ndarray[Any, np.dtype[np.int64]]
    captions: list[str]
    titles: list[str | None]
    tags: list[Any]
    pictures: str
    files: list[list[str]]
    image_column: str | None
    images: Path | None
    schema: Items
    image_names: str = PLAIN_NAMES
    values: dict[str, list[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def without_picture(self) -> str:
        """The status of an item that has none."""
        return NO_IMAGE_SOURCE if self.pictures == "none" else MISSING

    def fingerprint(self, count: int | None = None) -> dict[str, Any]:
        """Ids and their order, words, and where pictures come from, of the first `count` items.

        Words are titles and tags, whatever the caption template.
        """
        ids = self.ids[:count]
        return {
            "count": len(ids),
            "ids": hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest(),
            "words": _hash(self.titles[:count], self.tags[:count]),
            "pictures": self.pictures,
        } | self._fingerprint_beside(count)

    def _fingerprint_beside(self, count: int | None) -> dict[str, Any]:
        """What not every data set has."""
        named = {} if self.image_names == PLAIN_NAMES else {"image_names": self.image_names}
        values = {name: _hash(values[:count]) for name, values in self.values.items()}
        return {**named, **({"values": values} if values else {})}

    def sources(
        self, start: int, stop: int, size: int, *, several: bool = True
    ) -> Iterator[list[tuple[int, PictureSource]]]:
        """Paths, or bytes, of the pictures of items start..stop, `size` at a time.

        Each with its item's place, from 0 on; None where it has none. All pictures of an item, or
        the first alone.
        """
        part: list[tuple[int, PictureSource]] = []
        for row, found in enumerate(self._pictures(start, stop, size)):
            for source in (found if several else found[:1]) or [None]:
                part.append((row, source))
                if len(part) == size:
                    yield part
                    part = []
        if part:
            yield part

    def _pictures(self, start: int, stop: int, size: int) -> Iterator[list[Any]]:
        if self.image_column is None:
            yield from self.files[start:stop]
            return
        for values in stored_bytes(self.path, self.image_column, start, stop, size):
            yield from (value if isinstance(value, list) else [value] for value in values)


def read_items(
    path: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None,
    captions: Captions,
    schema: Items = MICROLENS.items,
    image_column: str | None = None,
    image_names: str = PLAIN_NAMES,
    columns: Sequence[str] = (),
) -> Catalogue:
    """Read and check the items file, and find each item's picture.

    Args:
        path: parquet with an id, and a title or tags or both; other columns are ignored.
        images: folder with `<id>.jpg` (or another suffix), or such a folder inside it named
            `item_images`; None where there are no pictures or they are in `image_column`.
        image_column: a column of the items file with the pictures' bytes (binary, or a struct
            with a field `bytes`), or with file names relative to `images`; or with lists of them.
        image_names: template of other names in `images`, such as `{id}_{n}` where an item has
            several pictures.
        columns: more columns, which encoders read.

    Raises:
        InputError: a file or column is missing, of the wrong type or empty; an id is null,
            below 1 or there twice; the images folder is not there.
    """
    path, root = Path(path), None if images is None else Path(images)
    require(
        image_names == PLAIN_NAMES or (root is not None and image_column is None),
        f"image_names is of a folder of images without an image_column, got {image_names!r}",
    )
    needed = {schema.id: INTEGER} | dict.fromkeys(columns, VALUES)
    needed |= {} if image_column is None else {image_column: PICTURE}
    kinds = {schema.title: TITLE, schema.tags: TAGS}
    optional = {name: kind for name, kind in kinds.items() if name is not None}
    source = open_parquet(path, needed, optional=optional)
    names = source.schema.names
    words = [name for name in optional if name in names]
    if not words and not columns:
        wanted = " or ".join(optional) or "of titles or tags"
        raise InputError(f"a column {wanted} is needed, got {names} in {path}")
    if image_column is not None and _is_names(source.schema.field(image_column).type):
        words.append(image_column)
    read = _read(source, schema.id, list(dict.fromkeys([*words, *columns])))
    ids, missing = read[schema.id], [None] * len(read[schema.id])
    titles = read.get(schema.title or "", missing)
    tags = read.get(schema.tags or "", missing)
    files: list[list[str]] = [[] for _ in ids]
    if image_column is None:
        pictures = "none" if root is None else "folder"
        found = {} if root is None else find_several(root, image_names)
        files = [found.get(item_id, []) for item_id in ids]
        if root is not None and not any(files):
            raise InputError(
                f"pictures are named {image_names.replace('{id}', '<id>')}.jpg, none of the "
                f"{len(ids):,} items has one in {root}, "
                f"which holds {listing(root)}"
            )
    elif image_column in read:
        pictures, base = "folder", root or path.parent
        for own, named in zip(files, read[image_column], strict=True):
            several = named if isinstance(named, list) else [named]
            own += [str(base / name) for name in several if name]
    else:
        pictures = "column"
    return Catalogue(
        path=path,
        ids=np.array(ids, dtype=np.int64),
        captions=[captions(title, tag) for title, tag in zip(titles, tags, strict=True)],
        titles=titles,
        tags=tags,
        pictures=pictures,
        files=files,
        image_column=image_column if pictures == "column" else None,
        images=root,
        image_names=image_names,
        schema=schema,
        values={name: [_hashable(value) for value in read[name]] for name in columns},
    )


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _read(source: Source, id_column: str, others: Sequence[str]) -> dict[str, list[Any]]:
    """The columns as lists; every id is checked."""
    columns: dict[str, list[Any]] = {name: [] for name in (id_column, *others)}
    for part in read_columns(source, columns):
        numbers = part[id_column].numbers().astype(np.int64)
        part[id_column].refuse_where(numbers < 1, "item ids are at least 1 (0 is padding)")
        for name, values in columns.items():
            values += part[name].array.to_pylist()
    ids = pa.array(columns[id_column], pa.int64())
    whole = Column(source.path, id_column, range(len(ids)), ids)
    whole.refuse_repeat(ids.to_numpy(), "each item id stands once")
    return columns


def stored_bytes(path: Path, column: str, start: int, stop: int, size: int) -> Iterator[list[Any]]:
    """Rows start..stop of a bytes column, `size` at a time, never a whole row group in memory."""
    values = _stored(path, column, start, stop, size)
    while part := list(islice(values, size)):
        yield part


def _stored(path: Path, column: str, start: int, stop: int, size: int) -> Iterator[Any]:
    source = open_parquet(path, {column: PICTURE})
    ends = np.cumsum(source.group_rows)
    first, last = np.searchsorted(ends, [start, stop - 1], side="right").tolist()
    row = int(ends[first - 1]) if first else 0
    for batch in source.read([column], groups=range(first, last + 1), rows=size):
        kept = batch.column(0)[max(0, start - row) : max(0, stop - row)]
        row += batch.num_rows
        yield from _sources(kept, path.parent)
        if row >= stop:
            return


def _sources(column: pa.Array, folder: Path) -> Iterator[Any]:
    """Bytes as they are; of structs, where they hold no bytes, the file that `path` names.

    Of a list, a list of these.
    """
    if is_list(column.type):
        for row in column:
            yield [] if row.values is None else list(_sources(row.values, folder))
        return
    if not types.is_struct(column.type):
        yield from column.to_pylist()
        return
    named = column.type.get_field_index("path") >= 0
    paths = pc.struct_field(column, "path").to_pylist() if named else [None] * len(column)
    for data, name in zip(pc.struct_field(column, "bytes").to_pylist(), paths, strict=True):
        yield data if data is not None or not name else str(folder / name)


def _hash(*columns: Sequence[Any]) -> str:
    state = hashlib.sha256()
    for row in zip(*columns, strict=True):
        state.update(repr(row).encode("utf-8", "backslashreplace"))
    return state.hexdigest()

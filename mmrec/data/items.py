"""The item table: what is known of every item, aligned to item ids, to live on the model's device.

N items with the padding, T tags, D_m width of the vectors of modality m.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmrec.data.checks import CATEGORIES, check_categories
from mmrec.data.keys import Keys, read_origin
from mmrec.errors import InputError
from mmrec.io.parquet import (
    BOOLEAN,
    INTEGER,
    INTEGERS,
    KEY,
    NUMBER,
    TEXT,
    VECTOR,
    Array,
    Column,
    Ints,
    Kind,
    is_list,
    left_pad,
    open_parquet,
    read_columns,
    read_numbers,
    row_of,
)
from mmrec.schema import ABSENT, Items

READY = "ready"  # the modality of vectors that were fused beforehand
TAG_LIMIT = 10_000_000  # a tag id beyond this is no dense id: its embedding would fill the memory


@dataclass(frozen=True)
class ItemTable:
    """Tags, categories, numbers, vectors and presence masks; row i is item i, row 0 the padding.

    Attributes:
        tags: (N, T) int64, left-padded with 0; (N, 1) of zeros where the schema has no tags.
        categorical: (N, C) int64, a column of lists flush right with `mmrec.schema.ABSENT`.
        numeric: (N, F) float32, NaN = missing.
        vectors: name of a modality -> (N, D_m) float16, zeros where an item has none.
        present: the same names -> (N,) bool.
        widths: places that each categorical column takes.
        keys: (N,) the items' own names, integers or strings, row 0 that of no item; None = the
            schema names none.
        origin: what made the vectors, where an embedding says so.
    """

    tags: Tensor
    categorical: Tensor
    numeric: Tensor
    vectors: Mapping[str, Tensor] = field(default_factory=dict)
    present: Mapping[str, Tensor] = field(default_factory=dict)
    widths: tuple[int, ...] = ()
    keys: pa.Array | None = None
    origin: Mapping[str, Any] | None = None

    @property
    def num_items(self) -> int:
        """N: one more than the largest item id."""
        return self.tags.shape[0]

    @property
    def num_tags(self) -> int:
        """Size of the tag vocabulary: one more than the largest tag."""
        return int(self.tags.max()) + 1

    @property
    def has_content(self) -> bool:
        """Whether any item has a vector of any modality."""
        return any(bool(present.any()) for present in self.present.values())

    def to(self, device: torch.device | str) -> ItemTable:
        """The same table on `device`."""
        return replace(
            self,
            tags=self.tags.to(device),
            categorical=self.categorical.to(device),
            numeric=self.numeric.to(device),
            vectors={name: vectors.to(device) for name, vectors in self.vectors.items()},
            present={name: present.to(device) for name, present in self.present.items()},
        )

    def with_vectors(self, vectors: Tensor, origin: Mapping[str, Any] | None = None) -> ItemTable:
        """The same items with vectors (N, D) that are ready, as the one modality `READY`."""
        there = torch.arange(self.num_items) > 0
        vectors = vectors.half()
        return replace(self, origin=origin, vectors={READY: vectors}, present={READY: there})

    @classmethod
    def read(
        cls, item_info: str | Path, schema: Items, features: str | Path | None = None
    ) -> ItemTable:
        """Read the item table and the vectors of `features`, and align both to item ids.

        Args:
            item_info: parquet with the columns that the schema names, rows in any order.
            schema: the roles of its columns.
            features: parquet file, or directory of parquet shards, with the id, the modalities'
                vectors and, where present, their masks `has_<modality>`. Items it leaves out have
                none. None takes the ready vectors of `item_info`, if it has any, as the one
                modality `READY`.

        Raises:
            InputError: a breach of the schema, naming file, column and row.
        """
        if features is not None and not schema.modalities:
            raise InputError(
                f"features need a schema with modalities that names their columns, got {features}"
            )
        columns = _read_info(Path(item_info), schema)
        found = {} if columns.vectors is None else {READY: columns.vectors}
        if features is not None:
            found = read_modalities(Path(features), schema, len(columns.tags))
        return cls(
            tags=torch.from_numpy(columns.tags),
            categorical=torch.from_numpy(columns.categorical),
            numeric=torch.from_numpy(columns.numeric),
            widths=columns.widths,
            keys=columns.keys,
            origin=None if features is None else read_origin(Path(features), schema.modalities),
            vectors={name: torch.from_numpy(found[name].vectors) for name in sorted(found)},
            present={name: torch.from_numpy(found[name].present) for name in sorted(found)},
        )


def count_items(item_info: str | Path, schema: Items) -> int:
    """Number of items with the padding: the largest id + 1, ids checked to be dense.

    All columns that the schema names must be there, and of their types.
    """
    id_column = schema.id
    ids = read_numbers(open_parquet(item_info, _kinds(schema)), id_column)
    column = Column(item_info, id_column, range(len(ids)), pa.array(ids))
    column.refuse_where(ids < 0, "item ids are 0 or more")
    refuse_repeat(column, ids)
    real = np.sort(ids[ids > 0])
    if not real.size:
        raise InputError(f"at least one item besides the padding 0 is needed, {item_info} has none")
    gaps = np.flatnonzero(real != np.arange(1, len(real) + 1))
    if gaps.size:
        rule = f"item ids are dense, 1..{real[-1]} without a gap"
        raise InputError(
            f"{rule}, item {gaps[0] + 1} is missing in {item_info}, column {id_column}"
        )
    return len(real) + 1


def check_item_info(item_info: str | Path, schema: Items) -> int:
    """Check every column that the schema names; returns the number of items."""
    return len(_read_info(Path(item_info), schema).tags)


def check_features(features: str | Path, schema: Items, num_items: int) -> None:
    """Check a feature parquet (file or directory of shards) against the schema."""
    read_modalities(Path(features), schema, num_items)


def check_titles(path: str | Path, schema: Items, num_items: int) -> None:
    """Check ids, titles and, where there, tags of an `item_feature.parquet`.

    A title may be empty or null: the item has none.
    """
    kinds = {schema.id: INTEGER} | ({} if schema.title is None else {schema.title: TEXT})
    optional = {} if schema.tags is None else {schema.tags: INTEGERS}
    source = open_parquet(path, kinds, optional=optional)
    tagged = [name for name in optional if name in source.schema.names]
    seen = np.zeros(num_items, dtype=np.bool_)
    for columns in read_columns(source, [*kinds, *tagged]):
        ids = columns[schema.id].numbers()
        bad = (ids < 1) | (ids >= num_items)
        columns[schema.id].refuse_where(bad, f"item ids lie in 1..{num_items - 1} (0 is padding)")
        refuse_repeat(columns[schema.id], ids, seen)
        for name in tagged:
            values, lengths = columns[name].lists()
            if (values < 0).any():
                place = int(np.argmax(values < 0))
                columns[name].refuse(row_of(place, lengths), "tags are 0 or more", values[place])


def feature_files(features: str | Path) -> list[Path]:
    """The parquet files of a feature file or of a directory of shards, in order of their names."""
    path = Path(features)
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.glob("*.parquet") if not file.name.startswith("."))
    if not files:
        raise InputError(f"a directory of features holds *.parquet files, {path} has none")
    return files


class Content:
    """One modality, filled a batch of rows at a time.

    Args:
        num_items: N.

    Attributes:
        vectors: (N, D) float16, zeros where there is none; D is 1 until one is added.
        present: (N,) bool, which vectors are there.
    """

    def __init__(self, num_items: int) -> None:
        self.vectors: NDArray[np.float16] = np.zeros((num_items, 1), dtype=np.float16)
        self.present: NDArray[np.bool_] = np.zeros(num_items, dtype=np.bool_)

    def add(self, column: Column, items: Ints, present: NDArray[np.bool_]) -> None:
        """Take in rows of these items; the first vector that is present tells the width of all."""
        if not present.any():
            return
        width = self.vectors.shape[1] if self.present.any() else None
        vectors = column.vectors(width, present)
        if width is None:
            self.vectors = np.zeros((len(self.present), vectors.shape[1]), dtype=np.float16)
        self.vectors[items] = vectors
        self.present[items] = present


@dataclass(frozen=True)
class _Info:
    """The columns of the item table, row i being item i."""

    tags: Ints
    categorical: Ints
    numeric: NDArray[np.float32]
    widths: tuple[int, ...]
    vectors: Content | None
    keys: pa.Array | None


def _kinds(schema: Items) -> dict[str, Kind]:
    """The columns that an item table must have, and what they hold."""
    kinds: dict[str, Kind] = {schema.id: INTEGER} | dict.fromkeys(schema.numeric, NUMBER)
    kinds |= dict.fromkeys((column.name for column in schema.categorical), CATEGORIES)
    kinds |= {} if schema.key is None else {schema.key: KEY}
    return kinds | ({} if schema.tags is None else {schema.tags: INTEGERS})


def _read_info(path: Path, schema: Items) -> _Info:
    num_items, kinds = count_items(path, schema), _kinds(schema)
    optional = {} if schema.vectors is None else {schema.vectors: VECTOR}
    source = open_parquet(path, kinds, optional=optional)
    there = [name for name in optional if name in source.schema.names]
    content = Content(num_items)
    numeric = np.full((num_items, len(schema.numeric)), np.nan, dtype=np.float32)
    tags = _Lists(num_items, pad=0)
    categories = [_Lists(num_items, pad=ABSENT) for _ in schema.categorical]
    keys = Keys()
    for columns in read_columns(source, [*kinds, *there]):
        items = columns[schema.id].numbers().astype(np.int64)
        if schema.tags is not None:
            values, lengths = columns[schema.tags].lists()
            _check_tags(columns[schema.tags], items, values, lengths)
            tags.add(items, values, lengths)
        for place, categorical in enumerate(schema.categorical):
            column = columns[categorical.name]
            check_categories(categorical, listed=is_list(column.array.type))(column)
            one = np.ones(len(items), dtype=np.int64)
            listed = is_list(column.array.type)
            categories[place].add(items, *(column.lists() if listed else (column.numbers(), one)))
        for place, name in enumerate(schema.numeric):
            values = columns[name].floats()
            columns[name].refuse_where(np.isinf(values), "numbers are finite, or null or NaN")
            numeric[items, place] = values
        for name in there:
            content.add(columns[name], items, items > 0)
        if schema.key is not None:
            keys.add(items, columns[schema.key])
    matrices = [lists.matrix() for lists in categories]
    return _Info(
        tags=tags.matrix(),
        categorical=np.concatenate([np.zeros((num_items, 0), np.int64), *matrices], axis=1),
        numeric=numeric,
        widths=tuple(matrix.shape[1] for matrix in matrices),
        vectors=content if there else None,
        keys=None if schema.key is None else keys.of_items(path, schema.key),
    )


class _Lists:
    """Lists of integers of some items, as they come, and at the end as one matrix."""

    def __init__(self, num_items: int, *, pad: int) -> None:
        self._num_items, self._pad = num_items, pad
        self._parts: list[tuple[Ints, Array, Ints]] = []

    def add(self, items: Ints, values: Array, lengths: Ints) -> None:
        self._parts.append((items, values, lengths))

    def matrix(self) -> Ints:
        """(N, longest), flush right."""
        width = max([1, *(int(lengths.max(initial=0)) for _, _, lengths in self._parts)])
        matrix = np.full((self._num_items, width), self._pad, dtype=np.int64)
        for items, values, lengths in self._parts:
            matrix[items] = left_pad(values, lengths, width, pad=self._pad)
        return matrix


def _check_tags(column: Column, items: Ints, values: Array, lengths: Ints) -> None:
    bad = (values < 0) | (values >= TAG_LIMIT)
    if bad.any():
        place = int(np.argmax(bad))
        rule = f"tags lie in 0..{TAG_LIMIT - 1}"
        column.refuse(row_of(place, lengths), rule, values[place])
    if values[np.repeat(items == 0, lengths)].any():
        index = int(np.argmax(items == 0))
        column.refuse(index, "item 0 is padding and has no tags", column.array[index].as_py())


def read_modalities(path: Path, schema: Items, num_items: int) -> dict[str, Content]:
    """Modality -> its vectors, of a feature parquet of this schema."""

    def item_of(column: Column) -> Ints:
        items = column.numbers()
        bad = (items < 0) | (items >= num_items)
        column.refuse_where(bad, f"item ids lie in 0..{num_items - 1}")
        return items

    masks = {column: f"has_{name}" for name, column in schema.modalities.items()}
    found = read_vectors(path, schema.id, masks, num_items, item_of)[0]
    return {name: found[column] for name, column in schema.modalities.items()}


def read_vectors(
    features: Path,
    id_column: str,
    masks: Mapping[str, str],
    num_items: int,
    item_of: Callable[[Column], Ints],
) -> tuple[dict[str, Content], NDArray[np.bool_]]:
    """The vectors of a feature parquet, and which items it has a row of, (N,) bool.

    Args:
        features: file, or directory of shards.
        id_column: its ids.
        masks: for each vector column the column that tells where it is present, if it is there.
        num_items: N.
        item_of: which item each id stands for; refuses ids that stand for none.
    """
    kinds: dict[str, Kind] = {id_column: INTEGER} | dict.fromkeys(masks, VECTOR)
    content = {name: Content(num_items) for name in masks}
    seen = np.zeros(num_items, dtype=np.bool_)
    for shard in feature_files(features):
        optional = dict.fromkeys(masks.values(), BOOLEAN)
        source = open_parquet(shard, kinds, optional=optional, allow_empty=True)
        there = [mask for mask in optional if mask in source.schema.names]
        for columns in read_columns(source, [*kinds, *there]):
            items = item_of(columns[id_column])
            refuse_repeat(columns[id_column], items, seen)
            for name, mask in masks.items():
                present = items > 0
                if mask in columns:
                    present &= columns[mask].numbers()
                content[name].add(columns[name], items, present)
    if not seen.any():
        raise InputError(f"features of at least one item are needed, {features} has none")
    return content, seen


def refuse_repeat(column: Column, ids: Array, seen: NDArray[np.bool_] | None = None) -> None:
    """Refuse an id that stands twice, in these rows or in earlier ones (`seen`, kept up)."""
    rule = "each item stands in one row"
    if seen is not None:
        column.refuse_where(seen[ids], f"{rule} (an earlier row has it)")
        seen[ids] = True
    column.refuse_repeat(ids, rule)

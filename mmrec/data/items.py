"""The item table: what is known of every item, aligned to item ids, to live on the model's device.

N items with the padding, T tags, Di and Dt widths of image and text vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmrec.errors import InputError
from mmrec.io.parquet import (
    BOOLEAN,
    INTEGER,
    INTEGERS,
    VECTOR,
    Array,
    Column,
    Ints,
    Kind,
    left_pad,
    open_parquet,
    read_columns,
    read_numbers,
    row_of,
)

ITEM, TAGS, EMBEDDING = "item_id", "item_tags", "item_emb_d128"
HAS_IMAGE, HAS_TEXT = "has_image", "has_text"
TAG_LIMIT = 10_000_000  # a tag id beyond this is no dense id: its embedding would fill the memory


@dataclass(frozen=True)
class ItemTable:
    """Tags, image and text vectors and presence masks; row i is item i, row 0 the padding.

    Attributes:
        tags: (N, T) int64, left-padded with 0.
        image: (N, Di) float16, zeros where `has_image` is False.
        text: (N, Dt) float16, zeros where `has_text` is False.
        has_image: (N,) bool.
        has_text: (N,) bool.
    """

    tags: Tensor
    image: Tensor
    text: Tensor
    has_image: Tensor
    has_text: Tensor

    @property
    def num_items(self) -> int:
        """N: one more than the largest item id."""
        return self.tags.shape[0]

    @property
    def num_tags(self) -> int:
        """Size of the tag vocabulary: one more than the largest tag."""
        return int(self.tags.max()) + 1

    def to(self, device: torch.device | str) -> ItemTable:
        """The same table on `device`."""
        moved = {name: getattr(self, name).to(device) for name in self.__dataclass_fields__}
        return replace(self, **moved)

    def with_vectors(self, vectors: Tensor) -> ItemTable:
        """The same items with vectors (N, D) that are ready, in the image's place; no text."""
        there = torch.arange(self.num_items) > 0
        return replace(
            self,
            image=vectors.half(),
            has_image=there,
            text=torch.zeros(self.num_items, 1, dtype=torch.float16),
            has_text=torch.zeros_like(there),
        )

    @classmethod
    def read(
        cls,
        item_info: str | Path,
        features: str | Path | None = None,
        *,
        image_column: str | None = "image_emb",
        text_column: str | None = "text_emb",
    ) -> ItemTable:
        """Read tags from `item_info` and vectors from `features`, and align both to item ids.

        Args:
            item_info: parquet with `item_id` and `item_tags`, rows in any order.
            features: parquet file, or directory of parquet shards, with `item_id`, the two vector
                columns and, where present, the masks `has_image` and `has_text`. Items it leaves
                out have neither. None takes `item_emb_d128` of `item_info` in the image's place,
                and no text (width 1, masked).
            image_column: the column of image vectors; None where there are none (width 1, masked).
            text_column: likewise for text.

        Raises:
            InputError: a breach of the layout, naming file, column and row.
        """
        tags, embedding = _read_info(Path(item_info))
        num_items = len(tags)
        image, text = embedding or Content(num_items), Content(num_items)
        if features is not None:
            found = _read_features(Path(features), num_items, image_column, text_column)
            image = found.get(image_column or "", Content(num_items))
            text = found.get(text_column or "", Content(num_items))
        elif embedding is None:
            raise InputError(
                f"content needs a feature parquet or a column {EMBEDDING}, "
                f"got no features and no such column in {item_info}"
            )
        return cls(
            tags=torch.from_numpy(tags),
            image=torch.from_numpy(image.vectors),
            text=torch.from_numpy(text.vectors),
            has_image=torch.from_numpy(image.present),
            has_text=torch.from_numpy(text.present),
        )


def count_items(item_info: str | Path) -> int:
    """Number of items with the padding: the largest `item_id` + 1, ids checked to be dense."""
    ids = read_numbers(open_parquet(item_info, {ITEM: INTEGER}), ITEM)
    column = Column(item_info, ITEM, range(len(ids)), pa.array(ids))
    column.refuse_where(ids < 0, "item ids are 0 or more")
    refuse_repeat(column, ids)
    real = np.sort(ids[ids > 0])
    if not real.size:
        raise InputError(f"at least one item besides the padding 0 is needed, {item_info} has none")
    gaps = np.flatnonzero(real != np.arange(1, len(real) + 1))
    if gaps.size:
        rule = f"item ids are dense, 1..{real[-1]} without a gap"
        raise InputError(f"{rule}, item {gaps[0] + 1} is missing in {item_info}, column {ITEM}")
    return len(real) + 1


def check_item_info(item_info: str | Path) -> int:
    """Check ids, tags and, where there, `item_emb_d128`; returns the number of items."""
    return len(_read_info(Path(item_info))[0])


def check_features(
    features: str | Path,
    num_items: int,
    *,
    image_column: str | None = "image_emb",
    text_column: str | None = "text_emb",
) -> None:
    """Check a feature parquet (file or directory of shards) against the layout."""
    _read_features(Path(features), num_items, image_column, text_column)


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


def _read_info(path: Path) -> tuple[Ints, Content | None]:
    """Tags (N, T), and the vectors of `item_emb_d128` where the file has them."""
    num_items = count_items(path)
    kinds: dict[str, Kind] = {ITEM: INTEGER, TAGS: INTEGERS}
    source = open_parquet(path, kinds, optional={EMBEDDING: VECTOR})
    there = [EMBEDDING] if EMBEDDING in source.schema.names else []
    content = Content(num_items)
    lists: list[tuple[Ints, Array, Ints]] = []
    for columns in read_columns(source, [*kinds, *there]):
        items = columns[ITEM].numbers().astype(np.int64)
        values, lengths = columns[TAGS].lists()
        _check_tags(columns[TAGS], items, values, lengths)
        lists.append((items, values, lengths))
        for name in there:
            content.add(columns[name], items, items > 0)
    width = max(1, *(int(lengths.max(initial=0)) for _, _, lengths in lists))
    tags = np.zeros((num_items, width), dtype=np.int64)
    for items, values, lengths in lists:
        tags[items] = left_pad(values, lengths, width)
    return tags, content if there else None


def _check_tags(column: Column, items: Ints, values: Array, lengths: Ints) -> None:
    bad = (values < 0) | (values >= TAG_LIMIT)
    if bad.any():
        place = int(np.argmax(bad))
        rule = f"tags lie in 0..{TAG_LIMIT - 1}"
        column.refuse(row_of(place, lengths), rule, values[place])
    if values[np.repeat(items == 0, lengths)].any():
        index = int(np.argmax(items == 0))
        column.refuse(index, "item 0 is padding and has no tags", column.array[index].as_py())


def _read_features(
    path: Path, num_items: int, image_column: str | None, text_column: str | None
) -> dict[str, Content]:
    def item_of(column: Column) -> Ints:
        items = column.numbers()
        bad = (items < 0) | (items >= num_items)
        column.refuse_where(bad, f"item ids lie in 0..{num_items - 1}")
        return items

    wanted = ((image_column, HAS_IMAGE), (text_column, HAS_TEXT))
    masks = {name: mask for name, mask in wanted if name is not None}
    return read_vectors(path, ITEM, masks, num_items, item_of)[0]


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

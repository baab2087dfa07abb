"""The item table: what is known of every item, aligned to item ids, to live on the model's device.

N items with the padding, T tags, Di and Dt widths of image and text vectors.
"""

from __future__ import annotations

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
    Kind,
    first_repeat,
    left_pad,
    open_parquet,
    row_of,
    runs,
)

ITEM, TAGS, EMBEDDING = "item_id", "item_tags", "item_emb_d128"
HAS_IMAGE, HAS_TEXT = "has_image", "has_text"
Ids = NDArray[np.int64]
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
        if features is not None:
            found = _read_features(Path(features), num_items, image_column, text_column)
            image, text = found.get(image_column or ""), found.get(text_column or "")
        elif embedding is not None:
            image, text = embedding, None
        else:
            raise InputError(
                f"content needs a feature parquet or a column {EMBEDDING}, "
                f"got no features and no such column in {item_info}"
            )
        image, text = image or Content.empty(num_items), text or Content.empty(num_items)
        return cls(
            tags=torch.from_numpy(tags),
            image=torch.from_numpy(image.vectors),
            text=torch.from_numpy(text.vectors),
            has_image=torch.from_numpy(image.present),
            has_text=torch.from_numpy(text.present),
        )


def count_items(item_info: str | Path) -> int:
    """Number of items with the padding: the largest `item_id` + 1, ids checked to be dense."""
    path = Path(item_info)
    with open_parquet(path, {ITEM: INTEGER}) as file:
        parts = [run[ITEM].numbers() for run in runs(path, file, [ITEM])]
    ids = np.concatenate(parts)
    column = Column(path, ITEM, 0, pa.array(ids))
    column.refuse_where(ids < 0, "item ids are 0 or more")
    refuse_repeat(column, ids)
    real = np.sort(ids[ids > 0])
    if not real.size:
        raise InputError(f"at least one item besides the padding 0 is needed, {path} has none")
    gaps = np.flatnonzero(real != np.arange(1, len(real) + 1))
    if gaps.size:
        rule = f"item ids are dense, 1..{real[-1]} without a gap"
        raise InputError(f"{rule}, item {gaps[0] + 1} is missing in {path}, column {ITEM}")
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


@dataclass(frozen=True)
class Content:
    """One modality, filled row by row: vectors (N, D) and which of them are there."""

    vectors: NDArray[np.float16]
    present: NDArray[np.bool_]

    @classmethod
    def empty(cls, num_items: int, width: int = 1) -> Content:
        return cls(
            np.zeros((num_items, width), dtype=np.float16), np.zeros(num_items, dtype=np.bool_)
        )


def fill(
    known: Content | None, column: Column, ids: Ids, present: NDArray[np.bool_], num_items: int
) -> Content | None:
    """Add a run of vectors; the first that is present tells the width of all."""
    if not present.any():
        return known
    vectors = column.vectors(None if known is None else known.vectors.shape[1], present)
    content = known or Content.empty(num_items, vectors.shape[1])
    content.vectors[ids] = vectors
    content.present[ids] = present
    return content


def _read_info(path: Path) -> tuple[Ids, Content | None]:
    """Tags (N, T), and the vectors of `item_emb_d128` where the file has them."""
    num_items = count_items(path)
    kinds: dict[str, Kind] = {ITEM: INTEGER, TAGS: INTEGERS}
    lists: list[tuple[Ids, Array, Ids]] = []
    content: Content | None = None
    with open_parquet(path, kinds, optional={EMBEDDING: VECTOR}) as file:
        if EMBEDDING in file.schema_arrow.names:
            kinds[EMBEDDING] = VECTOR
        for run in runs(path, file, kinds):
            ids = run[ITEM].numbers().astype(np.int64)
            values, lengths = run[TAGS].lists()
            _check_tags(run[TAGS], ids, values, lengths)
            lists.append((ids, values, lengths))
            if EMBEDDING in run:
                content = fill(content, run[EMBEDDING], ids, ids > 0, num_items)
    width = max(1, *(int(lengths.max(initial=0)) for _, _, lengths in lists))
    tags = np.zeros((num_items, width), dtype=np.int64)
    for ids, values, lengths in lists:
        tags[ids] = left_pad(values, lengths, width)
    return tags, content


def _check_tags(column: Column, ids: Ids, values: Array, lengths: Ids) -> None:
    bad = (values < 0) | (values >= TAG_LIMIT)
    if bad.any():
        place = int(np.argmax(bad))
        rule = f"tags lie in 0..{TAG_LIMIT - 1}"
        column.refuse(row_of(place, lengths), rule, values[place])
    if values[np.repeat(ids == 0, lengths)].any():
        index = int(np.argmax(ids == 0))
        column.refuse(index, "item 0 is padding and has no tags", column.array[index].as_py())


def _read_features(
    path: Path, num_items: int, image_column: str | None, text_column: str | None
) -> dict[str, Content]:
    wanted = ((image_column, HAS_IMAGE), (text_column, HAS_TEXT))
    masks = {column: mask for column, mask in wanted if column is not None}
    kinds: dict[str, Kind] = {ITEM: INTEGER} | dict.fromkeys(masks, VECTOR)
    content: dict[str, Content] = {}
    seen = np.zeros(num_items, dtype=np.bool_)
    for shard in feature_files(path):
        optional = dict.fromkeys(masks.values(), BOOLEAN)
        with open_parquet(shard, kinds, optional=optional, allow_empty=True) as file:
            there = [mask for mask in optional if mask in file.schema_arrow.names]
            for run in runs(shard, file, [*kinds, *there]):
                ids = run[ITEM].numbers()
                bad = (ids < 0) | (ids >= num_items)
                run[ITEM].refuse_where(bad, f"item ids lie in 0..{num_items - 1}")
                refuse_repeat(run[ITEM], ids, seen)
                for name, mask in masks.items():
                    present = ids > 0
                    if mask in run:
                        present &= run[mask].numbers()
                    filled = fill(content.get(name), run[name], ids, present, num_items)
                    if filled is not None:
                        content[name] = filled
    if not seen.any():
        raise InputError(f"features of at least one item are needed, {path} has none")
    return content


def refuse_repeat(column: Column, ids: Array, seen: NDArray[np.bool_] | None = None) -> None:
    """Refuse an id that stands twice, in this run or in an earlier one (`seen`, kept up)."""
    rule = "each item stands in one row"
    if seen is not None:
        column.refuse_where(seen[ids], f"{rule} (an earlier row has it)")
        seen[ids] = True
    again = first_repeat(ids)
    if again is not None:
        column.refuse(again, rule, f"{column.array[again]} a second time")

"""The MicroLens_1M_MMCTR layout on disk: find its files, check them, turn their columns to batches.

DATA/MicroLens_1M_x1/{train,valid,test,item_info}.parquet   or directly under DATA/
DATA/item_feature.parquet, item_emb.parquet, item_seq.parquet, features.parquet   optional
DATA/item_images/item_images/<item_id>.jpg                  or DATA/item_images/<item_id>.jpg
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmrec.batch import Batch
from mmrec.data.items import check_features, check_item_info, count_items, refuse_repeat
from mmrec.data.schema import (
    COLUMNS_LABELLED,
    COLUMNS_TEST,
    CONTEXT,
    HISTORY,
    LABEL,
    OPTIONAL_CONTEXT,
    TARGET,
    USER,
    check_clicks,
    read_row_ids,
)
from mmrec.errors import InputError
from mmrec.io.parquet import INTEGER, INTEGERS, TEXT, Column, open_parquet, read_columns, row_of
from mmrec.io.pictures import picture_name
from mmrec.stream.loader import Loader, make_loader
from mmrec.stream.stream import ParquetStream

__all__ = ["COLUMNS_LABELLED", "COLUMNS_TEST", "CONTEXT", "MicroLens", "to_batch"]

CLICKS_FOLDER = "MicroLens_1M_x1"
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class MicroLens:
    """A data set in the MicroLens layout, found and checked.

    Attributes:
        root: the directory that was opened.
        train, valid, test: the click logs.
        item_info: ids and tags of all items.
        item_feature, item_emb, item_seq: titles and ready vectors; None where there are none.
        images: the folder of `<item_id>.jpg`, or None.
        features: feature parquet (file or directory of shards) under the root, or None.
        num_items: the largest item id + 1, the padding 0 counted.
        history_length: entries of the longest history of the three splits.
        rows: rows of each split.
        context: the context columns that all three splits have, likes_level and views_level first.
        context_sizes: vocabulary of each context column over the three splits, at least 0..10.
    """

    root: Path
    train: Path
    valid: Path
    test: Path
    item_info: Path
    item_feature: Path | None
    item_emb: Path | None
    item_seq: Path | None
    images: Path | None
    features: Path | None
    num_items: int
    history_length: int
    rows: dict[str, int]
    context: tuple[str, ...] = CONTEXT
    context_sizes: tuple[int, ...] = (11, 11)

    @classmethod
    def open(cls, root: str | Path, *, check: bool = True) -> MicroLens:
        """Find the files under `root` and check them.

        Args:
            root: the directory DATA of the module's text, or its click folder.
            check: False leaves out the check of values (ids in range, padding, labels, vectors);
                columns and types are checked all the same.

        Raises:
            InputError: a missing file, or a breach of the layout, naming file, column and row.
        """
        root = Path(root)
        clicks = _clicks_folder(root)
        beside = [root, clicks] + ([root.parent] if root.name == CLICKS_FOLDER else [])
        item_info = _needed(clicks, "item_info.parquet")
        splits = {name: _needed(clicks, f"{name}.parquet") for name in SPLITS}
        num_items = check_item_info(item_info) if check else count_items(item_info)
        logs = {
            name: check_clicks(path, num_items=num_items, labelled=name != "test", values=check)
            for name, path in splits.items()
        }
        item_feature = _first(beside, "item_feature.parquet")
        features = _first(beside, "features.parquet")
        if check and item_feature is not None:
            check_titles(item_feature, num_items)
        if check and features is not None:
            check_features(features, num_items)
        context = tuple(
            name
            for name in (*CONTEXT, *OPTIONAL_CONTEXT)
            if all(name in log.context for log in logs.values())
        )
        sizes = (
            max(11, *(log.context_sizes[log.context.index(name)] for log in logs.values()))
            for name in context
        )
        return cls(
            root=root,
            **splits,
            item_info=item_info,
            item_feature=item_feature,
            item_emb=_first(beside, "item_emb.parquet"),
            item_seq=_first(beside, "item_seq.parquet"),
            images=_first(beside, "item_images/item_images") or _first(beside, "item_images"),
            features=features,
            num_items=num_items,
            history_length=max(log.history_length for log in logs.values()),
            rows={name: log.num_rows for name, log in logs.items()},
            context=context,
            context_sizes=tuple(sizes),
        )

    def image_path(self, item_id: int) -> Path | None:
        """The item's picture, or None where the file is not there."""
        path = None if self.images is None else self.images / picture_name(item_id)
        return path if path is not None and path.is_file() else None

    def columns(self, split: str) -> tuple[str, ...]:
        """The columns to read of a split, for `to_batch`: all but the `ID`."""
        label = () if split == "test" else (LABEL,)
        return (USER, HISTORY, TARGET, *self.context, *label)

    def loader(
        self,
        split: str,
        *,
        batch_size: int = 2048,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        change: Callable[[Batch], Batch] | None = None,
    ) -> Loader[Batch]:
        """This rank's batches of one split, of `batch_size` rows over all ranks.

        Args:
            workers: processes that read; 0 = this one.
            change: made to every batch.
        """
        stream = ParquetStream(
            getattr(self, split),
            batch_size=batch_size,
            columns=self.columns(split),
            list_widths={HISTORY: self.history_length},
            collate=to_batch if change is None else partial(_changed_batch, change),
            shuffle=shuffle,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )
        return make_loader(stream, num_workers=workers, pin_memory=torch.cuda.is_available())

    def histories(self, split: str, *, batch_size: int, seed: int = 0) -> ParquetStream[Tensor]:
        """The histories alone, (B, L) int64, in shuffled batches."""
        return ParquetStream(
            getattr(self, split),
            batch_size=batch_size,
            columns=[HISTORY],
            list_widths={HISTORY: self.history_length},
            collate=itemgetter(HISTORY),
            shuffle=True,
            seed=seed,
        )

    def titles(self) -> tuple[Path, str]:
        """The table of titles, and its column that describes an item best.

        Raises:
            InputError: the data set has none.
        """
        if self.item_feature is None:
            raise InputError(
                f"titles are needed to embed the items, there is no item_feature.parquet in "
                f"{self.root}"
            )
        names = open_parquet(self.item_feature, {TARGET: INTEGER}).schema.names
        return self.item_feature, "item_text" if "item_text" in names else "item_title"

    def test_ids(self) -> NDArray[np.int64]:
        """The `ID` of every test row, in file order."""
        return read_row_ids(self.test)


def to_batch(columns: Mapping[str, Tensor]) -> Batch:
    """File columns of B rows, and their row numbers, as a `Batch`; other columns are left out.

    >>> one = torch.tensor([1])
    >>> columns = dict.fromkeys(["user_id", "item_id", "likes_level", "views_level", "row"], one)
    >>> to_batch(columns | {"item_seq": torch.tensor([[0, 2, 1]])}).context
    tensor([[1, 1]])
    """
    label = columns.get(LABEL)
    context = (*CONTEXT, *(name for name in OPTIONAL_CONTEXT if name in columns))
    return Batch(
        user=columns[USER],
        history=columns[HISTORY],
        target=columns[TARGET],
        context=torch.stack([columns[name] for name in context], dim=1),  # (B, C)
        label=None if label is None else label.float(),
        row=columns["row"],
    )


def _changed_batch(change: Callable[[Batch], Batch], columns: Mapping[str, Tensor]) -> Batch:
    return change(to_batch(columns))


def check_titles(path: str | Path, num_items: int) -> None:
    """Check ids, titles and, where there, tags of an `item_feature.parquet`.

    An item without a title has the empty string; null is refused.
    """
    kinds = {TARGET: INTEGER, "item_title": TEXT}
    source = open_parquet(path, kinds, optional={"item_tags": INTEGERS})
    tagged = ["item_tags"] if "item_tags" in source.schema.names else []
    seen = np.zeros(num_items, dtype=np.bool_)
    for columns in read_columns(source, [*kinds, *tagged]):
        ids = columns[TARGET].numbers()
        bad = (ids < 1) | (ids >= num_items)
        columns[TARGET].refuse_where(bad, f"item ids lie in 1..{num_items - 1} (0 is padding)")
        refuse_repeat(columns[TARGET], ids, seen)
        columns["item_title"].refuse_null("an item without a title has an empty string")
        if tagged:
            _check_no_negative(columns["item_tags"])


def _check_no_negative(column: Column) -> None:
    values, lengths = column.lists()
    if (values < 0).any():
        place = int(np.argmax(values < 0))
        column.refuse(row_of(place, lengths), "tags are 0 or more", values[place])


def _clicks_folder(root: Path) -> Path:
    if not root.exists():
        raise InputError(f"a data directory is needed, there is none at {root}")
    if not root.is_dir():
        raise InputError(f"a data directory is needed, {root} is a file")
    nested = root / CLICKS_FOLDER
    if nested.is_dir() and not (root / "train.parquet").exists():
        return nested
    if not any((root / f"{name}.parquet").exists() for name in (*SPLITS, "item_info")):
        found = ", ".join(sorted(entry.name for entry in root.iterdir())[:5]) or "nothing"
        raise InputError(
            f"train, valid, test and item_info.parquet are needed in {root} "
            f"or in {nested}, found {found}"
        )
    return root


def _needed(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.exists():
        raise InputError(f"{name} is needed, there is none in {folder}")
    return path


def _first(folders: list[Path], name: str) -> Path | None:
    return next((folder / name for folder in folders if (folder / name).exists()), None)

"""A data set on disk: its files found, checked against its schema, and read as batches.

DATA/train.parquet valid.parquet test.parquet item_info.parquet    or in one folder under DATA/
DATA/schema.json                                                   the roles of their columns
DATA/item_feature.parquet features.parquet item_images/<id>.jpg    optional

Next: `rows.py` (one file of rows), `batches.py` (columns to a `Batch`), `items.py` (the items),
`counts.py`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

from torch import Tensor

from mmrec.batch import Batch
from mmrec.data.checks import ClickLog, check_clicks
from mmrec.data.items import check_features, check_item_info, check_titles, count_items
from mmrec.data.microlens import MICROLENS
from mmrec.data.rows import ClickRows, header
from mmrec.errors import InputError
from mmrec.io.parquet import Array
from mmrec.schema import FILE, Schema
from mmrec.stream.loader import Loader
from mmrec.stream.stream import CoarseShuffle, ParquetStream

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class ClickData:
    """A data set, found and checked.

    Attributes:
        root: the directory that was opened.
        schema: the roles of its columns.
        train, valid, test: the click logs.
        item_info: the item table.
        item_feature: titles; None where there are none.
        images: the folder of `<id>.jpg`, or None.
        features: feature parquet (file or directory of shards), or None.
        num_items: the largest item id + 1, the padding 0 counted.
        widths: list column of the logs -> its longest list in any split.
        rows: rows of each split.
        packed: split -> its rows once more, in smaller row groups; see `pack`.
    """

    root: Path
    schema: Schema
    train: Path
    valid: Path
    test: Path
    item_info: Path
    item_feature: Path | None
    images: Path | None
    features: Path | None
    num_items: int
    widths: Mapping[str, int]
    rows: Mapping[str, int]
    packed: Mapping[str, Path] = field(default_factory=dict)

    @classmethod
    def open(
        cls, root: str | Path, *, schema: Schema | None = None, check: bool = True
    ) -> ClickData:
        """Find the files under `root` and check them.

        Args:
            root: the directory DATA of the module's text, or the folder of its click logs.
            schema: of the columns; None reads `schema.json`, or takes MicroLens's where there is
                none.
            check: False leaves out the check of values (ids in range, padding, labels, vectors);
                columns and types are checked all the same.

        Raises:
            InputError: a missing file, or a breach of the schema, naming file, column and row.
        """
        root = Path(root)
        folder = _clicks_folder(root)
        beside = [root, *[folder] * (folder != root), *[root.parent] * _is_inner(root)]
        if schema is None:
            stored = _first(beside, FILE)
            schema = MICROLENS if stored is None else Schema.read(stored)
        info = _needed(folder, "item_info.parquet")
        splits = {name: _needed(folder, f"{name}.parquet") for name in SPLITS}
        items = schema.items
        num_items = check_item_info(info, items) if check else count_items(info, items)
        logs = {
            name: check_clicks(
                path, schema.clicks, num_items=num_items, labelled=name != "test", values=check
            )
            for name, path in splits.items()
        }
        _require_same_lists(logs, splits)
        titles = _first(beside, "item_feature.parquet")
        features = _first(beside, "features.parquet")
        if check and titles is not None:
            check_titles(titles, items, num_items)
        if check and features is not None:
            check_features(features, items, num_items)
        return cls(
            root=root,
            schema=schema,
            train=splits["train"],
            valid=splits["valid"],
            test=splits["test"],
            item_info=info,
            item_feature=titles,
            images=_first(beside, "item_images/item_images") or _first(beside, "item_images"),
            features=features,
            num_items=num_items,
            widths=_widest(logs.values()),
            rows={name: log.num_rows for name, log in logs.items()},
        )

    def with_modalities(self, columns: Mapping[str, str]) -> ClickData:
        """The same data set with these modalities and their columns; none = as they are."""
        if not columns:
            return self
        items = replace(self.schema.items, modalities=dict(columns))
        return replace(self, schema=replace(self.schema, items=items))

    def pack(self, folder: Path) -> ClickData:
        """The same data set, with train's rows read from `folder` where they shuffle badly as is.

        They are repacked into it, once, if their row groups are too large.
        """
        from mmrec.stream.repack import repack  # a command of its own, which runs as a module

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CoarseShuffle)
            coarse = ParquetStream(self.train, batch_size=512, columns=[], shuffle=True).is_coarse
        if not coarse:
            return self
        print(f"repacking {self.train.name}: its row groups are too large to be shuffled well")
        history = self.schema.clicks.history
        widths = {history: self.widths[history]}
        out = repack(self.train, folder / "train", list_widths=widths, progress=True).out
        return replace(self, packed={**self.packed, "train": out})

    def of(self, split: str) -> ClickRows:
        """The rows of one split; train's as they are packed."""
        path = self.packed.get(split, getattr(self, split))
        return ClickRows(path, self.schema, self.widths, self.rows[split], split != "test")

    def loader(self, split: str, **how: Any) -> Loader[Batch]:
        """This rank's batches of one split; see `ClickRows.loader`."""
        return self.of(split).loader(**how)

    def places(self) -> dict[str, tuple[str, slice]]:
        """Column -> the field of a `Batch` that holds it, and where in its last dim."""
        clicks, found = self.schema.clicks, {}
        for role in ("categorical", "history_categorical", "numeric", "history_numeric"):
            begin = 0
            for column in getattr(clicks, role):
                name = column if isinstance(column, str) else column.name
                width = self.widths.get(name, 1) if role == "categorical" else 1
                found[name] = role, slice(begin, begin + width)
                begin += width
        return found

    def histories(self, split: str, *, batch_size: int, seed: int = 0) -> ParquetStream[Tensor]:
        """The histories alone, (B, L) int64, in shuffled batches."""
        name = self.schema.clicks.history
        return ParquetStream(
            getattr(self, split),
            batch_size=batch_size,
            columns=[name],
            list_widths={name: self.widths[name]},
            collate=itemgetter(name),
            shuffle=True,
            seed=seed,
        )

    def titles(self) -> Path:
        """The table of titles.

        Raises:
            InputError: the data set has none.
        """
        if self.item_feature is None or self.schema.items.title is None:
            raise InputError(
                "titles are needed to embed the items, there is no item_feature.parquet in "
                f"{self.root}, or its schema names no title"
            )
        return self.item_feature

    @property
    def header(self) -> tuple[str, tuple[str, ...]]:
        """What a prediction file calls its keys and, for each label, its probabilities."""
        return header(self.schema)

    def row_ids(self, split: str = "test") -> Array:
        """(rows,) the key of every row, in file order: integers or strings."""
        return replace(self.of(split), path=getattr(self, split)).row_ids()


def _widest(logs: Iterable[ClickLog]) -> dict[str, int]:
    widths: dict[str, int] = {}
    for log in logs:
        for name, width in log.widths.items():
            widths[name] = max(width, widths.get(name, 1))
    return widths


def _require_same_lists(logs: Mapping[str, ClickLog], paths: Mapping[str, Path]) -> None:
    """A column is of lists in every split that has it, or in none."""
    for name in sorted({name for log in logs.values() for name in log.widths}):
        without = [s for s, log in logs.items() if name in log.columns and name not in log.widths]
        if without:
            some = next(split for split, log in logs.items() if name in log.widths)
            raise InputError(
                f"a column holds lists in every split or in none, {name} does in {paths[some]} "
                f"and not in {paths[without[0]]}"
            )


def _clicks_folder(root: Path) -> Path:
    """`root`, or the one folder in it that holds any of the four files."""
    if not root.exists():
        raise InputError(f"a data directory is needed, there is none at {root}")
    if not root.is_dir():
        raise InputError(f"a data directory is needed, {root} is a file")
    names = [f"{name}.parquet" for name in (*SPLITS, "item_info")]
    if any((root / name).exists() for name in names):
        return root
    inner = sorted({path.parent for name in names for path in root.glob(f"*/{name}")})
    if len(inner) != 1:
        found = ", ".join(sorted(entry.name for entry in root.iterdir())[:5]) or "nothing"
        raise InputError(
            f"train, valid, test and item_info.parquet are needed in {root} "
            f"or in one folder of it, found {found}"
        )
    return inner[0]


def _is_inner(root: Path) -> bool:
    """Whether `root` holds the logs while what belongs to them lies one level up."""
    return (root / "train.parquet").exists() and (root.parent / "item_feature.parquet").exists()


def _needed(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.exists():
        raise InputError(f"{name} is needed, there is none in {folder}")
    return path


def _first(folders: Sequence[Path], name: str) -> Path | None:
    return next((folder / name for folder in folders if (folder / name).exists()), None)

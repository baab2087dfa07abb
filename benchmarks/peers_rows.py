"""The rows that `peers.py` gives to every model: prepared, read whole into memory, PCA of content.

    likes   histories of likes alone, and no number that would tell of a dislike
    all     histories of likes and dislikes with their signs, and every number of the schema

Rows, labels and splits of the two are the same. Labels of test rows are not read here.

B rows, L history, N items, W width of the content. Next: `peers_search.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sweep import bind
from torch import Tensor

from mmrec.batch import Batch
from mmrec.data.clicks import SPLITS, ClickData
from mmrec.data.counts import ClickCounts, count_clicks
from mmrec.data.items import ItemTable
from mmrec.errors import InputError, require
from mmrec.io.files import write_json
from mmrec.schema import FILE, Schema

ROW_SETS = {"likes": "likes only", "all": "likes and dislikes"}
CONTENT = 128  # principal components that are kept
HISTORIES = {"likes": "liked", "all": "all"}  # as the preparation calls them


def prepare(source: Path, out: Path, rows: str) -> Path:
    """The row set's directory under `out`; made from SOURCE where it is not there yet.

    Raises:
        InputError: the preparation failed.
    """
    root = out / "data" / rows
    if not (root / FILE).exists():
        command = [sys.executable, "-m", "mmrec.datasets.movielens", str(source), str(root)]
        done = subprocess.run([*command, "--images", "none", "--history", HISTORIES[rows]])
        require(done.returncode == 0, f"the preparation of {source} failed, see above")
    if rows == "likes":
        tell_likes_alone(root)
    return root


def tell_likes_alone(root: Path) -> None:
    """Edit the schema: no numbers and nothing of the history but its items."""
    schema = Schema.read(root / FILE)
    clicks = dataclasses.replace(
        schema.clicks, numeric=(), history_numeric=(), history_categorical=()
    )
    edited = dataclasses.replace(schema, clicks=clicks)
    if edited != schema:
        write_json(root / FILE, edited.to_dict())


@dataclass(frozen=True)
class Rows:
    """A row set in memory.

    Attributes:
        train, valid, test: one batch each with all of its rows; test without labels.
        time: (B,) of each split, the row's number where the schema has no time.
        users: of train, sorted; None where train knows few of valid's.
    """

    root: Path
    files: ClickData = field(repr=False)
    items: ItemTable = field(repr=False)
    counts: ClickCounts = field(repr=False)
    train: Batch = field(repr=False)
    valid: Batch = field(repr=False)
    test: Batch = field(repr=False)
    time: dict[str, NDArray[np.float64]] = field(repr=False)
    users: NDArray[np.int64] | None = field(repr=False)

    def split(self, name: str) -> Batch:
        """By its name."""
        found: Batch = getattr(self, name)
        return found

    @property
    def sign(self) -> int | None:
        """Which history category is a sign: the first of two values, 1 = liked."""
        columns = self.files.schema.clicks.history_categorical
        return next((at for at, column in enumerate(columns) if column.limit == 2), None)


@functools.lru_cache(maxsize=1)
def read_rows(root: Path) -> Rows:
    """Every split but the labels of test.

    Raises:
        InputError: no features, no user, several labels, or columns of items besides tags.
    """
    files = ClickData.open(root, check=False)
    schema = files.schema
    if files.features is None or schema.clicks.user is None:
        raise InputError(f"the peers need features.parquet and users, {root} lacks one of them")
    require(
        len(schema.clicks.labels) == 1 and not schema.items.categorical + schema.items.numeric,
        f"the peers read one label and of items ids, tags and vectors, the schema of {root} has "
        "more",
    )
    counts = count_clicks(files.train, schema.clicks, files.num_items)
    splits = {name: whole(files, name) for name in SPLITS}
    known = counts.share_known(splits["valid"].user.numpy()) >= 0.5
    return Rows(
        root=root,
        files=files,
        items=ItemTable.read(files.item_info, schema.items, files.features),
        counts=counts,
        time={name: time_of(batch) for name, batch in splits.items()},
        users=counts.users if known else None,
        **splits,
    )


def whole(files: ClickData, split: str) -> Batch:
    """All rows of one split as one batch, in the order of the file."""
    time_column = files.schema.clicks.time
    batches = list(files.loader(split, batch_size=8192, extra=[time_column] if time_column else []))
    names = [f.name for f in dataclasses.fields(Batch) if f.name not in ("extra", "padding")]
    joined: dict[str, Any] = {
        name: torch.cat([getattr(batch, name) for batch in batches]) for name in names
    }
    joined["extra"] = {
        name: torch.cat([batch.extra[name] for batch in batches]) for name in batches[0].extra
    }
    return Batch(**joined)


def time_of(batch: Batch) -> NDArray[np.float64]:
    """(B,) float64."""
    column = next(iter(batch.extra.values()), batch.row)
    return column.numpy().astype(np.float64)


@functools.lru_cache(maxsize=1)
def content_of(root: Path) -> tuple[Tensor, float]:
    """(N, W) principal components of all modalities, and the CPU seconds that they took.

    Each modality is standardised over the items that have it, and zero where an item has none; the
    components come largest first and are divided by one number, so that entries are about 1.
    """
    items = read_rows(root).items
    began = time.process_time()
    every = [standardised(x, items.present[name]) for name, x in items.vectors.items()]
    matrix = torch.cat(every, dim=1)
    there = torch.stack(list(items.present.values())).any(0)
    _, vectors = torch.linalg.eigh(matrix[there].T @ matrix[there])
    components = matrix @ vectors.flip(1)[:, :CONTENT]
    return components / components[there].std(), time.process_time() - began


def standardised(vectors: Tensor, there: Tensor) -> Tensor:
    """(N, D) float32: mean 0 and deviation 1 in each column over the items that have it, else 0."""
    values = vectors.float()
    if not there.any():
        return torch.zeros_like(values)
    mean, deviation = values[there].mean(0), values[there].std(0, correction=0)
    return (values - mean) / deviation.clamp(min=1e-6) * there.unsqueeze(1)


def bound(out: Path, root: Path, rows: str) -> None:
    """Refuse cells of other data in `out`."""
    bind(out / "data" / f"{rows}_bound", root, restart=False)

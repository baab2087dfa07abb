"""Many small trainings, one a cell: resumable, in several processes, with the time left.

A cell is one ranker trained on one data set with one learning rate and seed. Its figures and
its test logits stand in `OUT/cells/<key>.npz` and `.json`, written whole and the JSON last, so a
killed run repeats no finished cell; inside a cell `fit` resumes from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import multiprocessing
import os
import re
import shutil
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from mmrec.batch import Batch
from mmrec.cli import import_modules
from mmrec.data.clicks import ClickData
from mmrec.data.counts import ClickCounts, count_clicks
from mmrec.data.items import ItemTable
from mmrec.errors import InputError, require
from mmrec.io.files import replacing, write_json
from mmrec.models import Inputs, Recipe, build_ranker
from mmrec.models.pretrain import pretrain_fusion
from mmrec.models.ranker import Ranker
from mmrec.nn.features import FrozenFeatures
from mmrec.stream.loader import Loader
from mmrec.train.evaluate import score
from mmrec.train.trainer import fit

DROPPED = " dropped"  # of the names of test logits without a modality
PRETRAIN_EPOCHS = 3


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        name: what it is called in tables.
        recipe: all of it, seed and learning rate included.
        history: "own", or "another": each row gets the history of another row of its batch.
        pretrain: the fusion is first trained by co-engagement, without labels, then by
            clicks too.
    """

    name: str
    recipe: Recipe
    history: str = "own"
    pretrain: bool = False

    @property
    def key(self) -> str:
        """Its file name: readable, and different for anything that differs."""
        content: list[Any] = [self.recipe.binding(), self.recipe.training.binding()]
        content += [self.recipe.training.epochs, self.recipe.batch_size]
        content += [self.history, self.pretrain]
        said = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
        words = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")
        return f"{words}-{self.recipe.training.seed}-{said}"


@dataclass(frozen=True)
class Result:
    """What a cell gave.

    Attributes:
        figures: `valid` metrics of the best epoch, `parameters`, `seconds`, rates.
        logit: (R,) of the test rows; under "image dropped" and the like those of the same
            ranker when no item has that modality any more.
    """

    cell: Cell
    figures: dict[str, Any]
    logit: dict[str, NDArray[np.float32]] = field(repr=False)

    @property
    def valid_auc(self) -> float:
        """Of the best epoch."""
        return float(self.figures["valid"]["auc"])


@dataclass(frozen=True)
class Data:
    """A prepared data set, read once a process."""

    files: ClickData
    items: ItemTable
    counts: ClickCounts
    label: NDArray[np.float64]  # (R,) of the test rows
    user: NDArray[np.int64]
    target: NDArray[np.int64]

    @property
    def inputs(self) -> Inputs:
        """Users have ids where train's are most of test's too."""
        users = self.counts.users if self.counts.share_known(self.user) >= 0.5 else None
        known = None if users is None else torch.from_numpy(users)
        return Inputs.of(self.files, self.counts, self.items, known_users=known)


@functools.lru_cache(maxsize=1)
def read_data(root: Path) -> Data:
    """Clicks, items with ready features, and labels of the test rows.

    Raises:
        InputError: there are no users, no features, no test labels, or several labels.
    """
    files = ClickData.open(root, check=False)
    clicks = files.schema.clicks
    require(clicks.user is not None, f"the benchmark needs users, the schema of {root} has none")
    require(
        len(clicks.labels) == 1,
        f"the benchmark is for one label, the schema of {root} names {', '.join(clicks.labels)}: "
        "leave one of them in its labels",
    )
    labels = root / "test_labels.parquet"
    if files.features is None or not labels.exists():
        raise InputError(f"the benchmark needs features.parquet and test_labels.parquet in {root}")
    test = pq.read_table(files.test, columns=[clicks.user, clicks.target])
    return Data(
        files=files,
        items=ItemTable.read(files.item_info, files.schema.items, files.features),
        counts=count_clicks(files.train, clicks, files.num_items),
        label=pq.read_table(labels)[clicks.labels[0]].to_numpy().astype(np.float64),
        user=test[clicks.user].to_numpy(),
        target=test[clicks.target].to_numpy(),
    )


def run_cells(
    cells: Sequence[Cell], root: Path, out: Path, *, jobs: int, modules: Sequence[str] = ()
) -> list[Result]:
    """Train what has no result yet; all results, in the order of `cells`.

    Args:
        modules: imported in every process, for the fusions that they register.
    """
    folder = out / "cells"
    folder.mkdir(parents=True, exist_ok=True)
    open_cells = {c.key: c for c in cells if not (folder / f"{c.key}.json").exists()}
    done = len({c.key for c in cells}) - len(open_cells)
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(
            jobs, context, initializer=alone, initargs=(os.getpid(), tuple(modules))
        ) as pool,
        tqdm(total=done + len(open_cells), initial=done, unit="cell", smoothing=0.1) as bar,
    ):
        futures = {pool.submit(train_cell, c, root, folder): c for c in open_cells.values()}
        try:
            for future in as_completed(futures):
                future.result()
                bar.set_postfix_str(futures[future].name)
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [read_result(cell, folder) for cell in cells]


def read_result(cell: Cell, folder: Path) -> Result:
    """A finished cell."""
    figures = json.loads((folder / f"{cell.key}.json").read_text())
    with np.load(folder / f"{cell.key}.npz") as arrays:
        return Result(cell, figures, {name: arrays[name] for name in arrays})


def train_cell(cell: Cell, root: Path, folder: Path) -> None:
    """Train, score test as it is and without each modality, write."""
    data = read_data(root)
    torch.manual_seed(cell.recipe.training.seed)
    began = time.perf_counter()
    ranker = build_ranker(cell.recipe, data.items, data.inputs)
    if cell.pretrain:
        pretrain(ranker, cell, data)
    run = folder / cell.key
    with contextlib.redirect_stderr(io.StringIO()):  # the bar over all cells says enough
        fit(
            ranker,
            loader(cell, data, "train", shuffle=True),
            loader(cell, data, "valid"),
            config=cell.recipe.training,
            out=run,
            recipe={"cell": cell.key},
        )
    seconds = time.perf_counter() - began
    valid = score(ranker, loader(cell, data, "valid"), device=cell.recipe.training.device)
    logit: dict[str, Any] = {"all": test_logits(ranker, cell, data)}
    for name in ranker.items.modalities:
        logit[name + DROPPED] = without(name, ranker, cell, data)
    fusion = ranker.items.fusion
    figures = {
        "name": cell.name,
        "seed": cell.recipe.training.seed,
        "learning_rate": cell.recipe.training.learning_rate,
        "valid": valid.metrics(),
        "parameters": sum(p.numel() for p in ranker.parameters()),
        "fusion_parameters": 0 if fusion is None else sum(p.numel() for p in fusion.parameters()),
        "seconds": seconds,
    }
    with replacing(folder / f"{cell.key}.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, **logit)
    write_json(folder / f"{cell.key}.json", figures)
    shutil.rmtree(run)


def pretrain(ranker: Ranker, cell: Cell, data: Data) -> None:
    """Co-engagement training of the fusion over train's histories."""
    histories = data.files.histories("train", batch_size=1024, seed=cell.recipe.training.seed)
    pretrain_fusion(ranker.items, histories, epochs=PRETRAIN_EPOCHS, seed=cell.recipe.training.seed)


def without(name: str, ranker: Ranker, cell: Cell, data: Data) -> NDArray[np.float32]:
    """Test logits when no item has that modality."""
    present = cast(FrozenFeatures, ranker.items.modalities[name]).present
    before = present.clone()
    present.fill_(False)
    try:
        return test_logits(ranker, cell, data)
    finally:
        present.copy_(before)


def test_logits(ranker: Ranker, cell: Cell, data: Data) -> NDArray[np.float32]:
    """(R,) in the order of the file."""
    return score(ranker, loader(cell, data, "test"), device=cell.recipe.training.device).logit


def loader(cell: Cell, data: Data, split: str, *, shuffle: bool = False) -> Loader[Batch]:
    """Batches of one split."""
    return data.files.loader(
        split,
        batch_size=(cell.recipe.batch_size or 0) if shuffle else 2048,
        shuffle=shuffle,
        seed=cell.recipe.training.seed,
        change=None if cell.history == "own" else another_history,
    )


def another_history(batch: Batch) -> Batch:
    """Each row with the history of the row half a batch away: of another user, as a rule."""
    names = ("history", "history_categorical", "history_numeric")
    moved = {name: getattr(batch, name).roll(len(batch) // 2, dims=0) for name in names}
    return dataclasses.replace(batch, **moved)


def alone(parent: int, modules: Sequence[str] = ()) -> None:
    """One thread a process; and no process outlives the run that it works for."""
    torch.set_num_threads(1)
    import_modules(modules)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

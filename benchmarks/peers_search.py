"""The search that every model gets: settings drawn by seed, cells trained once, the best repeated.

A cell is one training of one model on one row set. Its figures and its logits of valid and test
stand in `OUT/cells/<key>.json` and `.npz`, written whole and the JSON last.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import multiprocessing
import os
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cells import alone
from machine import commit
from numpy.typing import NDArray
from tqdm import tqdm

from mmrec.io.files import replacing, write_json
from mmrec.models import SEARCH_SPACE

_NEURAL: dict[str, tuple[Any, ...]] = {
    "learning_rate": (1e-3, 2e-3, 4e-3, 8e-3),
    "plateau": (0.1, 0.5),  # the rate's factor; FuxiCTR has 0.1
    "l2": (1e-4, 3e-4, 1e-3, 3e-3),
    "dropout": (0.1, 0.2, 0.3, 0.4, 0.5),
    "dim": (8, 16, 32),
    "content": (16, 32, 64, 128),
}

SPACES: dict[str, dict[str, tuple[Any, ...]]] = {
    "mmrec": SEARCH_SPACE,
    "dcnv2": {
        **_NEURAL,
        "crosses": (1, 2, 3),
        "mlp": ((64,), (128, 64), (256, 128), (400, 400)),
    },
    "din": {
        **_NEURAL,
        "attention": ((32,), (64,), (64, 32)),
        "softmax": (True, False),
        "mlp": ((64,), (128, 64), (256, 128), (400, 400)),
    },
    "finalmlp": {
        **_NEURAL,
        "mlp": ((64,), (128, 64), (256, 128), (400, 400)),
        "mlp2": ((64,), (128, 64), (256, 128)),
        "heads": (1, 2, 4),
    },
    "lightgbm": {
        "num_leaves": (7, 15, 31, 63),
        "learning_rate": (0.02, 0.04, 0.08, 0.15),
        "min_child_samples": (20, 50, 100, 200),
        "feature_fraction": (0.4, 0.6, 0.8, 1.0),
        "lambda_l2": (0.0, 1.0, 10.0, 30.0),
    },
}
"""Model -> setting -> what it is drawn from; those of mmrec are dotted names of a recipe."""

TRAINERS = {
    "mmrec": "peers_mmrec",
    "dcnv2": "peers_fuxictr",
    "din": "peers_fuxictr",
    "finalmlp": "peers_fuxictr",
    "lightgbm": "peers_trees",
}
"""Model -> the module whose `train(model, setting, seed, root)` gives its `Outcome`."""


@dataclass(frozen=True)
class Outcome:
    """What a training gave; seconds are CPU seconds of one thread.

    Attributes:
        valid_auc: at the best evaluation.
        prepare_seconds: of what is made of the items or rows before, once for all trainings.
        best_seconds: from the start to the end of the best evaluation.
        seconds: of all of it.
        rows_per_second: training rows, evaluations left out; None for trees.
        best_at: when the best evaluation was, in words.
        valid, test: (B,) logits.
    """

    valid_auc: float
    prepare_seconds: float
    best_seconds: float
    seconds: float
    rows_per_second: float | None
    parameters: int
    best_at: str
    valid: NDArray[np.float32] = field(repr=False)
    test: NDArray[np.float32] = field(repr=False)


@dataclass(frozen=True)
class Cell:
    """One training. `root` is the row set's directory; `setting` is JSON-able."""

    rows: str
    model: str
    setting: Mapping[str, Any]
    seed: int
    root: Path

    @property
    def key(self) -> str:
        """Its file name."""
        content = json.dumps(self.setting, sort_keys=True)
        said = hashlib.sha256(content.encode()).hexdigest()[:12]
        return f"{self.rows}-{self.model}-{said}-{self.seed}"


def draw(model: str, count: int, seed: int) -> list[dict[str, Any]]:
    """`count` different settings of the model's space, the same for the same seed."""
    space = SPACES[model]
    generator = random.Random(f"{model} {seed}")
    found: dict[str, dict[str, Any]] = {}
    possible = int(np.prod([len(values) for values in space.values()]))
    while len(found) < min(count, possible):
        setting = {name: generator.choice(values) for name, values in space.items()}
        plain = json.loads(json.dumps(setting))
        found.setdefault(json.dumps(plain, sort_keys=True), plain)
    return list(found.values())


def search(
    settings: Sequence[dict[str, Any]],
    base: Cell,
    folder: Path,
    *,
    seeds: int,
    jobs: int,
) -> tuple[list[Cell], list[Cell]]:
    """Every setting with seed 0, then the best by valid AUC with the other seeds.

    Returns:
        The cells of the draws, and those of the best setting, one a seed.
    """
    tried = [dataclasses.replace(base, setting=setting, seed=0) for setting in settings]
    run_cells(tried, folder, jobs=jobs)
    best = max(tried, key=lambda cell: float(figures_of(cell.key, folder)["valid_auc"]))
    repeated = [dataclasses.replace(best, seed=seed) for seed in range(seeds)]
    run_cells(repeated, folder, jobs=jobs)
    return tried, repeated


def run_cells(cells: Sequence[Cell], folder: Path, *, jobs: int) -> None:
    """Train what has no result yet, and say each cell's figures."""
    folder.mkdir(parents=True, exist_ok=True)
    there = {c.key for c in cells if (folder / f"{c.key}.json").exists()}
    open_cells = [cell for cell in cells if cell.key not in there]
    if not open_cells:
        return
    with (
        _pool(jobs) as pool,
        tqdm(total=len(cells), initial=len(there), unit="cell", smoothing=0.1) as bar,
    ):
        if pool is None:
            for cell in open_cells:
                bar.write(f"{cell.key}: {train_cell(cell, folder)}")
                bar.update()
            return
        futures = {pool.submit(train_cell, cell, folder): cell for cell in open_cells}
        try:
            for future in as_completed(futures):
                bar.write(f"{futures[future].key}: {future.result()}")
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _pool(jobs: int) -> AbstractContextManager[ProcessPoolExecutor | None]:
    """None for one job: this process keeps what it has read for the next cells."""
    if jobs == 1:
        return nullcontext()
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(jobs, context, initializer=alone, initargs=(os.getpid(),))


def train_cell(cell: Cell, folder: Path) -> str:
    """Train, write, and say the figures."""
    trainer = importlib.import_module(TRAINERS[cell.model])
    done: Outcome = trainer.train(cell.model, dict(cell.setting), cell.seed, cell.root)
    figures = dataclasses.asdict(done)
    logits = {name: figures.pop(name) for name in ("valid", "test")}
    figures |= {"rows": cell.rows, "model": cell.model, "seed": cell.seed, "commit": commit()}
    with replacing(folder / f"{cell.key}.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, **logits)
    write_json(folder / f"{cell.key}.json", figures | {"setting": dict(cell.setting)})
    rate = "" if done.rows_per_second is None else f", {done.rows_per_second:,.0f} rows/s"
    return (
        f"valid AUC {done.valid_auc:.4f} at {done.best_at}, {done.best_seconds:.1f} CPU s to it, "
        f"{done.seconds:.1f} in all{rate}"
    )


def figures_of(key: str, folder: Path) -> dict[str, Any]:
    """Of a finished cell."""
    found: dict[str, Any] = json.loads((folder / f"{key}.json").read_text())
    return found


def logits_of(key: str, split: str, folder: Path) -> NDArray[np.float32]:
    """(B,) of a finished cell, "valid" or "test"."""
    with np.load(folder / f"{key}.npz") as arrays:
        found: NDArray[np.float32] = arrays[split]
        return found

"""What `fusion.py` and `models.py` share: data, cells of a table's rows, the command line."""

from __future__ import annotations

import argparse
import json
import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from cells import Cell, Result, run_cells
from machine import RESULTS

from mmrec.cli import import_modules
from mmrec.data.clicks import SPLITS, ClickData
from mmrec.datasets.click_model import ClickModel
from mmrec.datasets.synthetic import SyntheticConfig, make_synthetic
from mmrec.errors import InputError
from mmrec.io.identity import bind_identity
from mmrec.models import Recipe

IMAGES = Path(__file__).parents[1] / "docs" / "img"
Change = dict[str, Any]  # dotted settings of a recipe -> value; also "history", "pretrain"

SYNTHETIC: dict[str, dict[str, Any]] = {
    "separate": {"model": ClickModel(interaction_weight=0.0)},
    "suits": {"model": ClickModel(interaction_weight=1.5)},
    "pairs": {"model": ClickModel(interaction_weight=0.0, pair_weight=1.25)},
    "overlapping": {"model": ClickModel(interaction_weight=0.0), "overlap": 0.4},
}
"""Name -> what it changes of the synthetic data; click models: `mmrec.datasets.click_model`."""


def cell(
    name: str,
    change: Change,
    base: Recipe,
    given: argparse.Namespace,
    rate: float,
    seed: int,
) -> Cell:
    """One training of a row of the table."""
    training = replace(
        base.training,
        epochs=given.epochs,
        learning_rate=rate,
        patience=None,
        save_every_seconds=None,
        keep_last=1,
        progress=False,
        device=given.device,
        seed=seed,
    )
    shared = base.changed({"training": training, "batch_size": given.batch_size})
    own = dict(change)
    history, pretrain = own.pop("history", "own"), own.pop("pretrain", False)
    return Cell(name=name, recipe=shared.changed(own), history=history, pretrain=pretrain)


def train_all(
    rows: dict[str, Change], base: Recipe, root: Path, given: argparse.Namespace
) -> dict[str, list[Result]]:
    """Name -> the results of all seeds, at the learning rate that seed 0 found best on valid."""

    def cells(rates: dict[str, list[float]], seeds: range) -> list[Cell]:
        return [
            cell(name, change, base, given, rate=rate, seed=seed)
            for seed in seeds
            for name, change in rows.items()
            for rate in rates[name]
        ]

    def run(cells: list[Cell]) -> list[Result]:
        return run_cells(cells, root, given.out, jobs=given.jobs, modules=given.import_)

    tried = cells(dict.fromkeys(rows, given.rates), range(1))
    later = len(rows) * (given.seeds - 1)
    print(
        f"{len(rows)} rows: {len(tried)} cells to choose learning rates, then {later}", flush=True
    )
    best: dict[str, Result] = {}
    for result in run(tried):
        name = result.cell.name
        if name not in best or result.valid_auc > best[name].valid_auc:
            best[name] = result
    found = defaultdict(list, {name: [result] for name, result in best.items()})
    chosen = {name: [result.cell.recipe.training.learning_rate] for name, result in best.items()}
    for result in run(cells(chosen, range(1, given.seeds))):
        found[result.cell.name].append(result)
    return dict(found)


def prepare(given: argparse.Namespace) -> Path:
    """The data set's directory, drawn first where it is a synthetic one."""
    if (given.data is None) == (given.synthetic is None):
        raise InputError("name either a directory of data or --synthetic, one of the two")
    if given.data is not None:
        return Path(given.data)
    root: Path = given.out / "data"
    config = SyntheticConfig(
        num_items=given.items,
        rows=(given.train_rows, given.train_rows // 12, given.train_rows // 6),
        content="features",
        **SYNTHETIC[given.synthetic],
    )
    for split, value in make_synthetic(root, config).items():
        print(f"{split}: AUC of the true probabilities {value['auc']:.4f}")
    return root


def bind(out: Path, root: Path, *, restart: bool) -> None:
    """Refuse cells of other data in `out`, also of data written again in the same place."""
    files = ClickData.open(root, check=False)
    splits = {name: getattr(files, name).stat() for name in SPLITS}
    said = {
        "data": str(root.resolve()),
        "splits": {name: [stat.st_size, stat.st_mtime_ns] for name, stat in splits.items()},
    }
    place = out / "plan.json"
    if restart and place.exists():
        shutil.rmtree(out / "cells", ignore_errors=True)
        place.unlink()
    out.mkdir(parents=True, exist_ok=True)
    bind_identity(place, said, remedy="use --restart or another --out")


def arguments(description: str, *, name: str, epochs: int = 2) -> argparse.ArgumentParser:
    """The options of every sweep."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", type=Path, help="data set with features and test labels")
    parser.add_argument("--synthetic", choices=SYNTHETIC, help="draw clicks of a known model")
    parser.add_argument("--items", type=int, default=2000, help="synthetic items (2000)")
    parser.add_argument("--train-rows", type=int, default=120_000, help="synthetic (120000)")
    out = Path("out") / name
    parser.add_argument("--out", type=Path, default=out, help=f"cells ({out})")
    parser.add_argument("--restart", action="store_true", help="throw away the cells in OUT")
    parser.add_argument("--name", default=name, help=f"of the result files ({name})")
    parser.add_argument("--results", type=Path, default=RESULTS, help="of tables")
    parser.add_argument("--images", type=Path, default=IMAGES, help="of plots")
    how = parser.add_argument_group("how all are trained")
    how.add_argument("--seeds", type=int, default=5, help="trainings of each (5, at least 2)")
    how.add_argument("--epochs", type=int, default=epochs, help=f"the best counts ({epochs})")
    how.add_argument("--rates", nargs="+", type=float, default=[2e-3, 6e-3], help="tried")
    how.add_argument("--batch-size", type=int, default=1024)
    how.add_argument("--jobs", type=int, default=2, help="cells at a time, a thread each (2)")
    how.add_argument("--device", default="cpu")
    how.add_argument(
        "--import",
        nargs="*",
        default=[],
        dest="import_",
        help="modules that register fusions, of the current folder or PYTHONPATH",
    )
    return parser


def begin(given: argparse.Namespace) -> Path:
    """Check, import, draw synthetic data, and bind the cells to the data; its directory."""
    if given.seeds < 2:
        raise InputError(f"--seeds must be at least 2, got {given.seeds}")
    import_modules(given.import_)  # they put fusions of their own into FUSIONS
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    root = prepare(given)
    bind(given.out, root, restart=given.restart)
    return root


def spent(out: Path) -> dict[str, float]:
    """How many cells there are in `out`, and the seconds of training them one after another."""
    cells = [json.loads(path.read_text()) for path in (out / "cells").glob("*.json")]
    return {"cells": len(cells), "cell_seconds": round(sum(cell["seconds"] for cell in cells))}

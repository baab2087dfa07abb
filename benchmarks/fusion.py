"""How should image and text be combined? Every fusion on one data set, with intervals.

    python -m mmrec.data.movielens SOURCE DATA     # or any data set with features.parquet and
    python benchmarks/fusion.py DATA               # test_labels.parquet, in the MicroLens layout

    python benchmarks/fusion.py --synthetic 1.5    # clicks with an image x text interaction
    python benchmarks/fusion.py --synthetic 0      # and without

Each variant is trained with the same recipe, epochs and learning rates: for each rate once with
seed 0, then with the rate of the best valid AUC for all other seeds. The best epoch is that of the
best valid AUC too; tables and plots are about the test rows, which nothing was chosen by.
The same command goes on where it was stopped. Writes NAME.json and NAME.md under
benchmarks/results and NAME_*.png under docs/img.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
from collections import defaultdict
from pathlib import Path

import torch
from cells import Cell, Result, read_data, run_cells
from fusion_plots import plot_all
from fusion_report import cost_of, summarise, to_markdown
from machine import RESULTS, write_result

from mmrec.cli import run
from mmrec.data.click_model import ClickModel
from mmrec.data.synthetic import SyntheticConfig, make_synthetic
from mmrec.errors import InputError
from mmrec.files import write_json
from mmrec.models.recipes import Recipe, small
from mmrec.nn.fusion.registry import FUSIONS
from mmrec.train.config import TrainConfig

BASELINE = "concat"
FITTED = ("pca", "pca_each")  # nothing to train
IMAGES = Path(__file__).parents[1] / "docs" / "img"

OPTIONS = {
    "tiers": {"recipe": {"tiers": 8}},
    "align": {"recipe": {"alignment": 0.1}},
    "pretrain": {"pretrain": True},
    "modality dropout": {"recipe": {"modality_dropout": 0.3}},
    "no id dropout": {"recipe": {"id_dropout": 0.0}},
    "by logloss": {"monitor": "logloss"},
}
"""Name -> what it changes; goes with any fusion."""

CONTROLS = {
    "no content": {"recipe": {"fusion": "none"}},
    "content only": {"recipe": {"id_dim": 0, "tag_dim": 0, "wide": False, "user_dim": 0}},
    "target only": {"recipe": {"sequence": "none"}},
    "another's history": {"history": "another"},
    "DIN attention": {"recipe": {"sequence": "din"}},
    "ReLU attention": {"recipe": {"sequence": "relu"}},
    "Transformer": {"recipe": {"sequence": "transformer"}},
}
"""Name -> what it changes of the baseline. The baseline itself pools the history by its mean."""


def base_recipe(given: argparse.Namespace, context_sizes: tuple[int, ...]) -> Recipe:
    """What all cells share: the small recipe with a plain mean of the history."""
    return dataclasses.replace(
        small(),
        fusion=BASELINE,
        content_dim=given.width,
        sequence="mean",
        newest=given.newest,
        context_sizes=context_sizes,
    )


def plan(given: argparse.Namespace) -> dict[str, dict[str, object]]:
    """Name in the table -> what it changes of the base."""
    rows: dict[str, dict[str, object]] = {BASELINE: {}}
    for option in given.options:
        if option not in ("plain", *OPTIONS):
            raise InputError(f"option must be one of plain, {', '.join(OPTIONS)}, got {option!r}")
    for variant in given.variants:
        if variant not in FUSIONS:
            raise InputError(f"variant must be one of {', '.join(FUSIONS)}, got {variant!r}")
        for option in given.options:
            change = dict(OPTIONS.get(option, {}))
            if option != "plain" and given.options_of and variant not in given.options_of:
                continue
            if option == "pretrain" and variant in FITTED:
                continue
            change["recipe"] = {**change.get("recipe", {}), "fusion": variant}  # type: ignore[dict-item]
            rows[variant if option == "plain" else f"{variant}, {option}"] = change
    for control in given.controls:
        if control not in CONTROLS:
            raise InputError(f"control must be one of {', '.join(CONTROLS)}, got {control!r}")
        rows[control] = dict(CONTROLS[control])
    return rows


def cell(
    name: str,
    change: dict[str, object],
    base: Recipe,
    given: argparse.Namespace,
    rate: float,
    seed: int,
) -> Cell:
    """One training of a row of the table."""
    training = TrainConfig(
        epochs=given.epochs,
        learning_rate=rate,
        weight_decay=0.01,
        embedding_weight_decay=0.01,
        schedule="cosine",
        warmup_steps=20,
        monitor=str(change.get("monitor", "auc")),
        patience=None,
        save_every_seconds=None,
        keep_last=1,
        progress=False,
        device=given.device,
        seed=seed,
    )
    return Cell(
        name=name,
        recipe=dataclasses.replace(base, **change.get("recipe", {})),  # type: ignore[arg-type]
        training=training,
        batch_size=given.batch_size,
        history=str(change.get("history", "own")),
        pretrain=bool(change.get("pretrain", False)),
    )


def train_all(
    rows: dict[str, dict[str, object]], base: Recipe, root: Path, given: argparse.Namespace
) -> dict[str, list[Result]]:
    """Name -> the results of all seeds, at the learning rate that seed 0 found best on valid."""

    def cells(rates: dict[str, list[float]], seeds: range) -> list[Cell]:
        return [
            cell(name, change, base, given, rate=rate, seed=seed)
            for seed in seeds
            for name, change in rows.items()
            for rate in rates[name]
        ]

    tried = cells(dict.fromkeys(rows, given.rates), range(1))
    later = len(rows) * (given.seeds - 1)
    print(
        f"{len(rows)} rows: {len(tried)} cells to choose learning rates, then {later}", flush=True
    )
    best: dict[str, Result] = {}
    for result in run_cells(tried, root, given.out, jobs=given.jobs):
        name = result.cell.name
        if name not in best or result.valid_auc > best[name].valid_auc:
            best[name] = result
    found = defaultdict(list, {name: [result] for name, result in best.items()})
    chosen = {name: [result.cell.training.learning_rate] for name, result in best.items()}
    for result in run_cells(cells(chosen, range(1, given.seeds)), root, given.out, jobs=given.jobs):
        found[result.cell.name].append(result)
    return dict(found)


def prepare(given: argparse.Namespace) -> Path:
    """The data set's directory, drawn first where it is a synthetic one."""
    if (given.data is None) == (given.synthetic is None):
        raise InputError("name either a directory of DATA or --synthetic WEIGHT")
    if given.data is not None:
        return Path(given.data)
    root = given.out / "data"
    config = SyntheticConfig(
        num_items=given.items,
        rows=(given.train_rows, given.train_rows // 4, given.train_rows // 2),
        content="features",
        model=ClickModel(interaction_weight=given.synthetic),
    )
    for split, value in make_synthetic(root, config).items():
        print(f"{split}: AUC of the true probabilities {value['auc']:.4f}")
    return root


def bind(out: Path, root: Path, *, restart: bool) -> None:
    """Refuse cells of other data in `out`."""
    info = root / "synthetic.json"
    said = json.loads(info.read_text()) if info.exists() else {"data": str(root.resolve())}
    place = out / "plan.json"
    if restart and place.exists():
        for path in (out / "cells").glob("*"):
            path.unlink() if path.is_file() else None
        place.unlink()
    if place.exists() and json.loads(place.read_text()) != said:
        raise InputError(f"{out} holds cells of other data; use --restart or another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_json(place, said)


def main() -> None:
    """Train, summarise, write, draw."""
    given = parse()
    given.out.mkdir(parents=True, exist_ok=True)
    for module in given.import_:
        importlib.import_module(module)  # it puts fusions of its own into FUSIONS
    root = prepare(given)
    bind(given.out, root, restart=given.restart)
    torch.set_num_threads(1)
    data = read_data(root)
    base = base_recipe(given, data.files.context_sizes)
    rows = plan(given)
    results = train_all(rows, base, root, given)
    summary = summarise(results, data, baseline=BASELINE, jobs=given.jobs)
    costs = cost_of({name: found[0].cell.recipe for name, found in results.items()}, data)
    for row in summary["rows"]:
        row["us_per_item"] = costs[row["name"]]
    path = write_result(given.name, summary)
    (RESULTS / f"{given.name}.md").write_text(to_markdown(summary, path))
    plot_all(summary, IMAGES, given.name)
    print(to_markdown(summary, path))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", type=Path, help="data set in the MicroLens layout")
    parser.add_argument("--synthetic", type=float, metavar="WEIGHT", help="of the interaction")
    parser.add_argument("--items", type=int, default=4000, help="synthetic items (4000)")
    parser.add_argument("--train-rows", type=int, default=40_000, help="synthetic (40000)")
    parser.add_argument("--out", type=Path, default=Path("out/fusion"), help="cells (out/fusion)")
    parser.add_argument("--restart", action="store_true", help="throw away the cells in OUT")
    parser.add_argument("--name", default="fusion", help="of the result files (fusion)")
    what = parser.add_argument_group("what is compared")
    usual = [name for name in FUSIONS if name != "precomputed"]
    what.add_argument("--variants", nargs="*", default=usual, help="fusions (all but precomputed)")
    what.add_argument(
        "--options", nargs="*", default=["plain", *OPTIONS], help=f"plain, {', '.join(OPTIONS)}"
    )
    what.add_argument(
        "--options-of", nargs="*", default=[BASELINE], help="fusions that get options (concat)"
    )
    what.add_argument("--controls", nargs="*", default=list(CONTROLS), help=", ".join(CONTROLS))
    what.add_argument("--seeds", type=int, default=5, help="trainings of each (5)")
    what.add_argument("--import", nargs="*", default=[], dest="import_", help="modules of fusions")
    how = parser.add_argument_group("how all are trained")
    how.add_argument("--epochs", type=int, default=3, help="at most; the best counts (3)")
    how.add_argument("--rates", nargs="+", type=float, default=[2e-3, 5e-3], help="to try")
    how.add_argument("--batch-size", type=int, default=1024)
    how.add_argument("--width", type=int, default=64, help="of the fused vector (64)")
    how.add_argument("--newest", type=int, default=20, help="items of a history that are read (20)")
    how.add_argument("--jobs", type=int, default=2, help="cells at a time, a thread each (2)")
    how.add_argument("--device", default="cpu")
    given = parser.parse_args()
    if given.seeds < 2:
        raise InputError(f"--seeds must be at least 2, got {given.seeds}")
    return given


if __name__ == "__main__":
    run(main)

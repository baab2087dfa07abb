"""How much cheaper can the reference model be? AUC against parameters and samples a second.

    python benchmarks/models.py DATA                   # see fusion.py for what DATA must hold
    python benchmarks/models.py --synthetic separate

248 of the reference's 267.9 million parameters are three cross layers over 9,088 inputs: the last
16 positions of the history, flattened, beside all the rest. Here its shape stands at an eighth of
every width, so that it trains on two cores, and is changed one piece at a time: low-rank crosses,
mixtures of them, a bottleneck before them, the history pooled instead of flattened. Rates are
chosen and differences taken as in fusion.py. Writes NAME.json, NAME.md and NAME_cost.png.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from cells import Cell, Data, loader, read_data
from fusion_plots import label_points, save
from fusion_report import origin, summarise, verdict
from machine import write_result
from matplotlib.figure import Figure
from sweep import Change, arguments, begin, spent, train_all

from mmrec.cli import run
from mmrec.config import TrainConfig
from mmrec.models import (
    ContextRecipe,
    HistoryRecipe,
    ItemsRecipe,
    Recipe,
    build_ranker,
    reference_fused,
)
from mmrec.nn import Part
from mmrec.train.step.stepper import Stepper, click_loss

BASELINE = "flattened, full"
TRANSFORMER = {"name": "transformer", "layers": 2, "heads": 1, "ff_dim": 32, "dropout": 0.2}
FLATTENED, POOLED = TRANSFORMER | {"last": 16}, TRANSFORMER | {"last": 0}


def low_rank(rank: int) -> dict[str, Any]:
    return {"interaction.cross": {"name": "low_rank", "depth": 3, "rank": rank}}


def mixture(rank: int) -> dict[str, Any]:
    cross = {"name": "mix", "depth": 3, "rank": rank, "num_experts": 4}
    return {"interaction.cross": cross}


ROWS: dict[str, Change] = {
    BASELINE: {},
    "flattened, low-rank 64": low_rank(64),
    "flattened, mixture of 4 x 16": mixture(16),
    "flattened, bottleneck 128": {"interaction.bottleneck": 128},
    "pooled, full": {"history.encoder": POOLED},
    "pooled, low-rank 16": {"history.encoder": POOLED} | low_rank(16),
    "pooled, mixture of 4 x 8": {"history.encoder": POOLED} | mixture(8),
    "pooled, bottleneck 64": {"history.encoder": POOLED, "interaction.bottleneck": 64},
    "pooled and mean, full": {
        "history.encoder": {"name": "parallel", "encoders": [POOLED, "mean"]}
    },
    "mean, full": {"history.encoder": "mean"},
}


def eighth() -> Recipe:
    """The reference at an eighth of its widths, with what makes it learn from little data."""
    return reference_fused().changed(
        {
            "items": ItemsRecipe(id_dim=8, tag_dim=8, content_dim=16, fusion=Part("concat")),
            "history": HistoryRecipe(encoder=Part.from_plain(FLATTENED, "encoder"), newest=20),
            "interaction.mlp": (128, 64, 32),
            "interaction.head": (16,),
            "context": ContextRecipe(dim=8, user_dim=8, user_dropout=0.1),
            "training": TrainConfig(
                weight_decay=0.01, embedding_weight_decay=0.01, schedule="cosine", warmup_steps=20
            ),
        }
    )


def samples_per_second(cells: dict[str, Cell], data: Data, *, rounds: int = 9) -> dict[str, float]:
    """Name -> rows a second of training steps, one thread: medians, all in turn."""
    steppers, batches = {}, {}
    for name, cell in cells.items():
        ranker = build_ranker(cell.recipe, data.items, data.inputs)
        steppers[name] = Stepper(
            ranker.train(), cell.recipe.training, torch.device("cpu"), click_loss
        )
        batches[name] = iter(loader(cell, data, "train", shuffle=True))
    rates: dict[str, list[float]] = {name: [] for name in cells}
    for step in range(rounds):
        for name, stepper in steppers.items():
            batch = next(batches[name])
            began = time.perf_counter()
            stepper.step([(batch, batch.row)], step=step, factor=1.0)
            if step:  # the first one warms up
                rates[name].append(len(batch) / (time.perf_counter() - began))
    return {name: statistics.median(each) for name, each in rates.items()}


def to_markdown(summary: dict[str, Any], path: Path) -> str:
    """One row a model."""
    base = summary["baseline"]
    lines = [
        f"{summary['test_rows']:,} test rows of {summary['test_users']:,} users; AUC is the mean "
        f"over {summary['rows'][0]['seeds']} seeds; intervals (95 %) resample users and seeds.",
        "",
        f"| | parameters | of crosses and MLP | rows/s | AUC | AUC less `{base}`'s | | logloss |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in summary["rows"]:
        gap = row["difference"]["all"]
        against = f"{gap['value']:+.4f} [{gap['low']:+.4f}, {gap['high']:+.4f}]"
        lines.append(
            f"| {row['name']} | {row['parameters']:,} | {row['interaction_parameters']:,} "
            f"| {row['rows_per_second']:,.0f} | {row['auc']['all']['value']:.4f} "
            f"| {'' if row['name'] == base else against} | {verdict(row)} "
            f"| {row['logloss']:.4f} |"
        )
    lines += ["", origin(summary, path)]
    return "\n".join(lines) + "\n"


def plot_cost(rows: list[dict[str, Any]]) -> Figure:
    """AUC against parameters of the interaction and against samples a second."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    names = [row["name"] for row in rows]
    auc = [row["auc"]["all"]["value"] for row in rows]
    for axes, key, title in zip(
        panels,
        ("interaction_parameters", "rows_per_second"),
        ("parameters of crosses and MLP", "training rows a second, one thread"),
        strict=True,
    ):
        label_points(axes, [row[key] for row in rows], auc, names, title)
    panels[0].set_ylabel("test AUC, mean over seeds")
    return figure


def interaction_parameters(recipe: Recipe, data: Data) -> int:
    """Of crosses, bottleneck and MLP."""
    ranker = build_ranker(recipe, data.items, data.inputs)
    return sum(p.numel() for p in ranker.interaction.parameters())


def main() -> None:
    """Train, time, write, draw."""
    given = parse()
    root = begin(given)
    data = read_data(root)
    rows = {name: ROWS[name] for name in given.rows}
    results = train_all(rows, eighth(), root, given)
    summary = summarise(results, data, baseline=BASELINE, jobs=given.jobs)
    cells = {name: found[0].cell for name, found in results.items()}
    rates = samples_per_second(cells, data)
    for row in summary["rows"]:
        row["rows_per_second"] = rates[row["name"]]
        row["interaction_parameters"] = interaction_parameters(cells[row["name"]].recipe, data)
    summary |= spent(given.out)
    path = write_result(given.name, summary, folder=given.results)
    path.with_suffix(".md").write_text(to_markdown(summary, path))
    save(plot_cost(summary["rows"]), given.images / f"{given.name}_cost.png")
    print(to_markdown(summary, path))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = arguments(__doc__ or "", name="models")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=ROWS, help="(all)")
    given = parser.parse_args()
    given.rows = list(dict.fromkeys([BASELINE, *given.rows]))
    return given


if __name__ == "__main__":
    run(main)

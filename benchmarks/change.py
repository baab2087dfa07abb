"""Does a change of the recipe help? Its valid AUC less the unchanged one's, on each data set.

    python benchmarks/change.py DATA [DATA ...] --set interaction.members=4

DATA is what `mmrec.datasets.movielens` or `mmrec prepare` has written, with features and users.
Both recipes are trained with the same seeds; intervals (95 %) resample users and seeds, also over
rows of items that train never shows. Test is not read. The same command resumes; cells of other
code are not noticed: then another `--out`. Writes NAME.json and NAME.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fusion_report import over_seeds
from machine import RESULTS, write_result
from numpy.typing import NDArray
from peers_mmrec import RECIPE
from peers_rows import Rows, read_rows
from peers_search import Cell, figures_of, logits_of, run_cells
from sweep import bind

from mmrec.cli import run
from mmrec.errors import positive, require
from mmrec.io.plain import parse_settings
from mmrec.metrics.intervals import Replicates, bootstrap
from mmrec.models import get_recipe

UNSEEN = "items that train never shows"


def main() -> None:
    """Train, compare, write."""
    given = parse()
    positive(seeds=given.seeds, jobs=given.jobs)
    change = parse_settings(given.set)
    get_recipe(given.recipe).changed(change)
    names = [data.absolute().name for data in given.data]
    require(len({*names}) == len(names), f"DATA must have different names, got {', '.join(names)}")
    torch.set_num_threads(1)
    found = {
        name: one_data_set(data, given.out / name, change, given)
        for name, data in zip(names, given.data, strict=True)
    }
    content = {"set": given.set, "seeds": given.seeds, "data": found}
    path = write_result(given.name, content, folder=given.results)
    table = to_markdown(content)
    path.with_suffix(".md").write_text(table)
    print(table, flush=True)


def one_data_set(
    data: Path, out: Path, change: dict[str, Any], given: argparse.Namespace
) -> dict[str, Any]:
    """Figures of both recipes, and their differences by kind of row."""
    bind(out, data, restart=False)
    recipes: list[dict[str, Any]] = [{}, json.loads(json.dumps(change))]
    cells = [
        [
            Cell(out.name, "mmrec", {RECIPE: given.recipe, **settings}, seed, data)
            for seed in range(given.seeds)
        ]
        for settings in recipes
    ]
    folder = out / "cells"
    # The two in turn: what else the machine does then hits both.
    run_cells([cell for pair in zip(*cells, strict=True) for cell in pair], folder, jobs=given.jobs)
    rows = read_rows(data)
    slices = {"all rows": np.ones(len(rows.valid), dtype=bool), UNSEEN: unseen(rows)}
    compared = {
        name: compare(rows, chosen, cells, folder)
        for name, chosen in slices.items()
        if chosen.any()
    }
    return {"auc": compared, "cost": [cost(some, folder) for some in cells]}


def unseen(rows: Rows) -> NDArray[np.bool_]:
    """(B,) which rows of valid are about an item that is no target of train."""
    found: NDArray[np.bool_] = ~np.isin(rows.valid.target.numpy(), rows.train.target.numpy())
    return found


def compare(
    rows: Rows, chosen: NDArray[np.bool_], cells: Sequence[Sequence[Cell]], folder: Path
) -> dict[str, Any]:
    """Mean AUC of the unchanged and of the changed, and the difference."""
    user, label = rows.valid.user.numpy()[chosen], rows.valid.labels[:, 0].numpy()[chosen]

    def drawn(some: Sequence[Cell]) -> Replicates:
        logits = [logits_of(cell.key, "valid", folder)[chosen] for cell in some]
        return over_seeds([bootstrap("auc", user, label, of_seed) for of_seed in logits])

    before, after = (drawn(some) for some in cells)
    gap = (after - before).interval()
    return {
        "rows": int(chosen.sum()),
        "before": before.value,
        "after": after.value,
        "difference": {"value": gap.value, "low": gap.low, "high": gap.high},
    }


def cost(cells: Sequence[Cell], folder: Path) -> dict[str, float]:
    """Medians over seeds."""
    names = ("best_seconds", "seconds", "rows_per_second", "parameters")
    each = [figures_of(cell.key, folder) for cell in cells]
    return {name: statistics.median(figures[name] for figures in each) for name in names}


def to_markdown(content: dict[str, Any]) -> str:
    """One row a data set and kind of row."""
    head = "| valid rows of | | AUC | with the change | difference | CPU s to the best | rows/s |"
    said = " ".join(content["set"])
    lines = [f"`{said}`, {content['seeds']} seeds.", "", head, "|---" * 7 + "|"]
    for name, found in content["data"].items():
        before, after = found["cost"]
        for kind, row in found["auc"].items():
            gap = row["difference"]
            lines.append(
                f"| {name} | {kind} ({row['rows']:,}) | {row['before']:.4f} | {row['after']:.4f} "
                f"| {gap['value']:+.4f} [{gap['low']:+.4f}, {gap['high']:+.4f}] "
                f"| {before['best_seconds']:.1f} → {after['best_seconds']:.1f} "
                f"| {before['rows_per_second']:,.0f} → {after['rows_per_second']:,.0f} |"
            )
    return "\n".join(lines) + "\n"


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--set", nargs="+", required=True, metavar="NAME=VALUE")
    parser.add_argument("--recipe", default="small", help="a name or a .toml file (small)")
    parser.add_argument("--seeds", type=int, default=4, help="trainings of each (4)")
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time, a thread each (1)")
    parser.add_argument("--name", default="change", help="of the result files")
    parser.add_argument("--out", type=Path, default=Path("out/change"), help="cells")
    parser.add_argument("--results", type=Path, default=RESULTS, help="of tables")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)

"""Does mmrec rank better than what it replaces? The same rows and the same search for each.

    python benchmarks/peers.py SOURCE [--rows likes all] [--models ...]    # ml-latest-small

mmrec, FuxiCTR's DCNv2, DIN and FinalMLP, and LightGBM (extra `peers`). Of each model `--draws`
settings are drawn by a seed from `SPACES` of peers_search.py and trained once; the best by valid
AUC is trained with `--seeds` seeds. Test labels are never read here: see peers_test.py. The same
command resumes where it was stopped, and does not notice that mmrec's code has changed: then add
`--again mmrec`. Writes peers_ROWS.json and .md, and docs/img/peers_ROWS.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from fusion_plots import save
from machine import RESULTS, write_result
from peers_mmrec import RECIPE
from peers_report import OURS, readings, summarise, to_markdown
from peers_report import plot as plot_of
from peers_rows import ROW_SETS, bound, prepare, read_rows
from peers_search import SPACES, Cell, draw, search
from sweep import IMAGES

from mmrec.cli import run
from mmrec.errors import positive
from mmrec.io.files import remove

READINGS = "test_readings.jsonl"


def main() -> None:
    """Search, summarise, write, draw."""
    given = parse()
    positive(draws=given.draws, seeds=given.seeds, jobs=given.jobs)
    torch.set_num_threads(1)
    for rows in given.rows:
        root = prepare(given.source, given.out, rows)
        bound(given.out, root, rows)
        one_row_set(rows, root, given)


def one_row_set(rows: str, root: Path, given: argparse.Namespace) -> None:
    """All models on one row set."""
    folder = given.out / "cells"
    for model in given.again:
        remove(folder, [path.name for path in folder.glob(f"{rows}-{model}-*")])
    searched = {}
    for model in given.models:
        settings = draw(model, given.draws, given.draw_seed)
        if model == OURS:
            settings = [{RECIPE: given.recipe, **setting} for setting in settings]
        print(f"{rows}, {model}: {len(settings)} settings", flush=True)
        searched[model] = search(
            settings,
            Cell(rows=rows, model=model, setting={}, seed=0, root=root),
            folder,
            seeds=seeds_of(model, rows, given.seeds),
            jobs=given.jobs,
        )
    valid = read_rows(root).valid
    summary = summarise(searched, (valid.user.numpy(), valid.labels[:, 0].numpy()), folder)
    path = write_result(f"peers_{rows}", {"rows": rows, **summary}, folder=given.results)
    read = readings(given.results / READINGS, rows)
    table = to_markdown(summary, rows, read[-1] if read else None)
    path.with_suffix(".md").write_text(table)
    save(plot_of(summary), given.images / f"peers_{rows}.png")
    print(table, flush=True)


def seeds_of(model: str, rows: str, seeds: int) -> int:
    """mmrec with likes and dislikes has two more: its level there is a target of its own."""
    return seeds + 2 if model == OURS and rows == "all" else seeds


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="ml-latest-small as GroupLens ships it")
    parser.add_argument("--out", type=Path, default=Path("out/peers"), help="data, cells")
    parser.add_argument("--rows", nargs="+", choices=ROW_SETS, default=list(ROW_SETS))
    parser.add_argument("--models", nargs="+", choices=SPACES, default=list(SPACES), help="(all)")
    parser.add_argument("--recipe", default="small", help="mmrec's, a name or a .toml file (small)")
    parser.add_argument("--draws", type=int, default=16, help="settings of each model (16)")
    parser.add_argument("--draw-seed", type=int, default=0, help="of the settings (0)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of the best setting (3)")
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time, a thread each (1)")
    parser.add_argument(
        "--again", nargs="+", default=[], choices=SPACES, help="forget these models' cells"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="of tables")
    parser.add_argument("--images", type=Path, default=IMAGES, help="of plots")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)

"""How many rows a second do the default and its peers train, in turn, on one thread?

    python benchmarks/peers_speed.py SOURCE [--rows likes] [--newest 30]

mmrec's steps are the trainer's, with its loader from parquet; the peers' rows lie in memory. The
peers have the settings that `peers.py` chose, mmrec has the default and, as "chosen", what was
chosen of it. In each round every model makes some steps: rates are medians over rounds by CPU
seconds, with quartiles. Writes peers_speed_ROWS.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peers_fuxictr as fuxictr
import torch
from machine import RESULTS, write_result
from peers_mmrec import RECIPE, inputs_of, recipe_of
from peers_rows import ROW_SETS, prepare, read_rows

from mmrec.batch import Batch
from mmrec.cli import run
from mmrec.errors import positive
from mmrec.models import build_ranker
from mmrec.stream.loader import Loader
from mmrec.train.step.stepper import Stepper, click_loss

PEERS = ("dcnv2", "din", "finalmlp")
Steps = Callable[[int], int]
"""Makes that many steps and says how many rows they had."""


def main() -> None:
    """Measure, print, write."""
    given = parse()
    positive(rounds=given.rounds, steps=given.steps)
    torch.set_num_threads(1)
    root = prepare(given.source, given.out, given.rows)
    chosen = json.loads((given.results / f"peers_{given.rows}.json").read_text())["models"]
    ours: dict[str, dict[str, Any]] = {
        "mmrec, default": {RECIPE: "small"},
        "mmrec, default, batch 1,024": {RECIPE: "small", "batch_size": 1024},
        "mmrec, chosen": chosen["mmrec"]["setting"],
    }
    runs = {name: mmrec(root, setting, given.newest) for name, setting in ours.items()}
    runs |= {name: peer(root, name, chosen[name]["setting"]) for name in PEERS}
    rows = measure(runs, given.rounds, given.steps)
    for row in rows:
        low, high = row["quartiles"]
        print(f"| {row['model']} | {row['rows_per_second']:,.0f} | {low:,.0f} to {high:,.0f} |")
    write_result(
        f"peers_speed_{given.rows}",
        {"rows": rows, "newest": given.newest, "row set": given.rows},
        folder=given.results,
    )


def measure(runs: dict[str, Steps], rounds: int, steps: int) -> list[dict[str, Any]]:
    """The first round warms up and is not counted."""
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, go in runs.items():
            began = time.process_time()
            done = go(steps)
            rates[name].append(done / (time.process_time() - began))
    return [
        {
            "model": name,
            "rows_per_second": statistics.median(found[1:]),
            "quartiles": statistics.quantiles(found[1:], n=4)[::2],
        }
        for name, found in rates.items()
    ]


def mmrec(root: Path, setting: dict[str, Any], newest: int) -> Steps:
    """The trainer's steps on batches as its loader reads them."""
    rows, recipe = read_rows(root), recipe_of({**setting, "history.newest": newest}, 0)
    torch.manual_seed(0)
    ranker = build_ranker(recipe, rows.items, inputs_of(rows)).train()
    stepper = Stepper(ranker, recipe.training, torch.device("cpu"), click_loss)
    loader = rows.files.loader("train", batch_size=recipe.batch_size or 512, shuffle=True, seed=0)
    batches, number = endless(loader), itertools.count()

    def go(steps: int) -> int:
        done = 0
        for batch in itertools.islice(batches, steps):
            stepper.step([(batch, batch.row)], step=next(number), factor=1.0)
            done += len(batch)
        stepper.records.take()
        return done

    return go


def endless(loader: Loader[Batch]) -> Iterator[Batch]:
    for epoch in itertools.count():
        loader.seek(epoch=epoch, batch=0)
        yield from loader


def peer(root: Path, name: str, setting: dict[str, Any]) -> Steps:
    """Its steps on rows gathered from memory in random order, as its training takes them."""
    tables = fuxictr.tables_of(root)
    torch.manual_seed(0)
    training = fuxictr.Training(fuxictr.Peer(tables, setting, name), setting, tables)
    train = tables.rows["train"]

    def go(steps: int) -> int:
        for _ in range(steps):
            some = torch.randint(len(train["target"]), (fuxictr.BATCH,))
            training.step({name: value[some] for name, value in train.items()})
        return steps * fuxictr.BATCH

    return go


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="ml-latest-small as GroupLens ships it")
    parser.add_argument("--out", type=Path, default=Path("out/peers"), help="data (peers.py's)")
    parser.add_argument("--rows", choices=ROW_SETS, default="likes")
    parser.add_argument("--newest", type=int, default=30, help="history items of mmrec (30)")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=40, help="of each model in a round (40)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="of peers.py, and of this")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)

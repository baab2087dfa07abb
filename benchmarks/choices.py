"""What does each choice made for speed give? One training step with it and without, in turn.

    python benchmarks/choices.py
    python benchmarks/choices.py --only compile --name choices_compile_cpu  # minutes to compile

`choice_rows.py` holds the choices. Both sides of one start from the same weights and take the same
ready batches (lengths as MicroLens has them, from `train_speed.write_data`) through the trainer's
own `Stepper`. In every round each side makes one step; what counts is the ratio within a round.
Peak memory is what a step allocates beyond what stood before it. Prints a table, writes NAME.json.
"""

from __future__ import annotations

import argparse
import functools
import gc
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from choice_rows import CASES, CHOICES, ROWS, Case, Side
from machine import write_result
from torch.profiler import ProfilerActivity, profile
from train_speed import COLLATE, INPUTS, LENGTH, write_data

from mmrec.batch import Batch
from mmrec.cli import run
from mmrec.config import TrainConfig
from mmrec.data.items import ItemTable
from mmrec.data.microlens import MICROLENS
from mmrec.models import build_ranker
from mmrec.nn.history.tokens import first_filled
from mmrec.stream.loader import make_loader
from mmrec.stream.stream import ParquetStream
from mmrec.train.step.stepper import click_loss

BATCHES = 8  # ready ones, taken in turn
SHARE = 4  # full histories are twelve times as long: a batch has a quarter of the rows
COLUMNS = "choice, instead of, model, with ms, without ms, gain, quartiles, peak MiB with, without"


class Runner:
    """Training steps of one side of a choice; a call makes one and gives its seconds."""

    def __init__(self, case: Case, side: Side, root: Path, *, batch_size: int = 128) -> None:
        folder = root / ("full" if case.history == "full" else "typical")
        items = read_items(folder, case.widths)
        torch.manual_seed(0)
        config = TrainConfig(log_every=10**6, compile=side.compile, speed=side.speed)
        model = build_ranker(replace(case.recipe, training=config), items, INPUTS)
        self.stepper = side.stepper(model.train(), config, torch.device("cpu"), click_loss)
        size = batch_size // SHARE if case.history == "full" else batch_size
        self.batches = read_batches(folder, size)
        if case.history == "cut":
            self.batches = [
                replace(batch, history=batch.history[:, first_filled(batch.history) :])
                for batch in self.batches
            ]
        self.steps = 0

    def __call__(self) -> float:
        batch = self.batches[self.steps % len(self.batches)]
        began = time.perf_counter()
        self.stepper.step([(batch, batch.row)], step=self.steps, factor=1.0)
        self.steps += 1
        return time.perf_counter() - began

    def peak(self) -> float:
        """MiB that one step allocates beyond what stood before it."""
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            self()
        assert seen.profiler is not None
        events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
        sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
        return float(max(itertools.accumulate(sizes)) / 2**20)


@functools.cache
def read_items(folder: Path, widths: tuple[int, int]) -> ItemTable:
    """The table of `write_data`, with random vectors of these widths; 128 and 0 are its own."""
    items = ItemTable.read(folder / "item_info.parquet", MICROLENS.items)
    if not widths[1]:
        return items
    draw = torch.Generator().manual_seed(0)
    image, text = (torch.randn(len(items.tags), width, generator=draw).half() for width in widths)
    there = torch.arange(len(items.tags)) > 0
    vectors, present = {"image": image, "text": text}, {"image": there, "text": there}
    return replace(items, vectors=vectors, present=present)


def read_batches(folder: Path, batch_size: int) -> list[Batch]:
    stream = ParquetStream(
        folder / "train.parquet",
        batch_size=batch_size,
        columns=COLLATE.columns,
        list_widths={"item_seq": LENGTH},
        collate=COLLATE,
    )
    return list(itertools.islice(make_loader(stream), BATCHES))


@contextmanager
def elsewhere(row: int, side: str, root: Path, given: Namespace) -> Iterator[Callable[[], float]]:
    """A Runner in a process of its own, whose environment torch reads as it starts."""
    wanted = os.environ | getattr(ROWS[row][0], side).environment
    asked = [sys.executable, __file__, "--child", str(row), side, str(root)]
    asked += ["--batch-size", str(given.batch_size), "--threads", str(given.threads)]
    pipe = subprocess.PIPE
    with subprocess.Popen(asked, env=wanted, stdin=pipe, stdout=pipe, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        write, read = child.stdin, child.stdout

        def step() -> float:
            print(file=write, flush=True)
            return float(read.readline())

        yield step
        write.close()


def measure(row: int, root: Path, given: Namespace) -> dict[str, Any]:
    """Medians over rounds, in which the two sides take turns at going first."""
    choice, name = ROWS[row]
    found: dict[str, Any] = {"group": choice.group, "choice": choice.name}
    found |= {"against": choice.against, "case": name}
    with ExitStack() as stack:
        steps: dict[str, Callable[[], float]] = {}
        for side in ("on", "off"):
            if choice.group == "pages":
                steps[side] = stack.enter_context(elsewhere(row, side, root, given))
            else:
                chosen = getattr(choice, side)
                runner = Runner(CASES[name], chosen, root, batch_size=given.batch_size)
                steps[side] = runner
            found[f"first_step_s_{side}"] = steps[side]()
            if choice.group in ("pages", "compile"):
                steps[side]()
            else:
                found[f"peak_mib_{side}"] = runner.peak()
        seconds: dict[str, list[float]] = {"on": [], "off": []}
        for turn in range(given.rounds):
            for side in ("on", "off") if turn % 2 else ("off", "on"):
                seconds[side].append(steps[side]())
    ratios = [off / on for on, off in zip(seconds["on"], seconds["off"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    found |= {f"step_ms_{side}": 1e3 * statistics.median(seconds[side]) for side in seconds}
    return found | {"speedup": middle, "speedup_quartiles": [low, high]}


def print_row(row: dict[str, Any]) -> None:
    low, high = row["speedup_quartiles"]
    peaks = [f"{row[key]:,.0f}" if key in row else "" for key in ("peak_mib_on", "peak_mib_off")]
    cells = [row["choice"], row["against"], row["case"]]
    cells += [f"{row[f'step_ms_{side}']:.0f}" for side in ("on", "off")]
    cells += [f"{row['speedup']:.2f}x", f"{low:.2f} to {high:.2f}", *peaks]
    print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    given = parse()
    torch.set_num_threads(given.threads)
    if given.child:
        row, side, root = given.child
        choice, case = ROWS[int(row)]
        serve(Runner(CASES[case], getattr(choice, side), Path(root), batch_size=given.batch_size))
        return
    results = []
    print("| " + COLUMNS.replace(", ", " | ") + " |\n" + "|---" * len(COLUMNS.split(",")) + "|")
    with tempfile.TemporaryDirectory() as folder:
        for history in ("typical", "full"):
            rows = BATCHES * given.batch_size
            write_data(Path(folder) / history, given, rows=rows, history=history)
        for row, (choice, _) in enumerate(ROWS):
            if choice.group in given.only:
                results.append(measure(row, Path(folder), given))
                print_row(results[-1])
                gc.collect()
    settings = {"batch_size": given.batch_size, "threads": given.threads, "rounds": given.rounds}
    write_result(given.name, {"settings": settings, "results": results})


def serve(runner: Runner) -> None:
    """One step for each line that comes."""
    for _ in sys.stdin:
        print(runner(), flush=True)


def parse() -> Namespace:
    groups = list(dict.fromkeys(choice.group for choice in CHOICES))
    parser = argparse.ArgumentParser(description="A training step with each choice and without.")
    usual = [group for group in groups if group != "compile"]
    parser.add_argument(
        "--only", nargs="+", default=usual, choices=groups, help="choices (all but compile)"
    )
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="of torch (1)")
    parser.add_argument("--items", type=int, default=91_718)
    parser.add_argument("--tags", type=int, default=11_740)
    parser.add_argument("--name", default="choices_cpu", help="of the JSON in benchmarks/results")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)

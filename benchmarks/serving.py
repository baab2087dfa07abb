"""How long does a user's request take, by what answers it?

    python benchmarks/serving.py                      # results/serve.json, serve.md and a plot
    python benchmarks/serving.py --recipe light --calls 20 --name serve_light
    python benchmarks/serving.py --former CHECKOUT    # and rows repeated at a6b636c

One user with a history, 1 to 5,000 candidates, one thread. Compared in one run, in turns: the
ranker on the user's row repeated, `Scorer` from Python lists to scores, the exported program in
torch and in onnxruntime (form "user"), and, as what nobody can do without, the interaction and the
head alone on a ready matrix. Weights are random: no figure depends on them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import provenance, write_result
from torch import Tensor

from mmrec.batch import Batch
from mmrec.cli import run
from mmrec.models import Inputs, Ranker, build_ranker, get_recipe
from mmrec.nn.categorical import Vocabulary
from mmrec.schema import Categorical, Clicks, Items, Schema
from mmrec.serve import Scorer
from mmrec.serve.export import ExportOptions, export

SCHEMA = Schema(
    Clicks(
        "history",
        "item",
        ("label",),
        categorical=(Categorical("hour"), Categorical("device")),
        history_categorical=(Categorical("liked", limit=2),),
    ),
    Items("item"),
)
READY = "interaction and head alone"
# What commit a6b636c is asked, in its own words: the same table and request, its own ranker.
FORMER = """
import json, sys, time, torch
from mmrec.batch import Batch
from mmrec.models import build_ranker, get_recipe
torch.set_num_threads(1)
recipe, items, length, candidates, calls = sys.argv[1], *map(int, sys.argv[2:])
made = torch.load(sys.stdin.buffer, weights_only=True)
class Table: pass
table = Table()
table.__dict__.update(made, num_tags=int(made["tags"].max()) + 1)
ranker = build_ranker(get_recipe(recipe), table).eval()
nobody = torch.zeros(candidates, dtype=torch.int64)
batch = Batch(
    user=nobody,
    history=torch.randint(1, items, (1, length)).repeat(candidates, 1),
    target=torch.randint(1, items, (candidates,)),
    context=torch.ones(candidates, 2, dtype=torch.int64),
    label=None,
    row=nobody,
)
took, busy = [], []
with torch.inference_mode():
    for _ in range(calls):
        began, ran = time.perf_counter(), time.process_time()
        ranker(batch)
        busy.append(1000 * (time.process_time() - ran))
        took.append(1000 * (time.perf_counter() - began))
print(json.dumps([took, busy]))
"""


@dataclass
class Table:
    """Items with two modalities and tags."""

    tags: Tensor
    vectors: dict[str, Tensor]
    present: dict[str, Tensor]
    categorical: Tensor
    numeric: Tensor
    num_tags: int
    widths: tuple[int, ...] = ()


def make_items(count: int) -> Table:
    torch.manual_seed(0)
    return Table(
        tags=torch.randint(0, 300, (count, 5)),
        vectors={
            "image": torch.randn(count, 512).half(),
            "text": torch.randn(count, 384).half(),
        },
        present={"image": torch.rand(count) < 0.9, "text": torch.rand(count) < 0.95},
        categorical=torch.zeros((count, 0), dtype=torch.int64),
        numeric=torch.zeros((count, 0)),
        num_tags=300,
    )


def make_ranker(recipe: str, items: Table) -> Ranker:
    inputs = Inputs(
        schema=SCHEMA,
        categorical=(Vocabulary(torch.arange(24)), Vocabulary(torch.arange(5))),
        history_categorical=(Vocabulary(torch.arange(2)),),
    )
    return build_ranker(get_recipe(recipe), items, inputs).eval()


@dataclass(frozen=True)
class Asked:
    """One request, as each contender takes it."""

    history: list[int]
    candidates: list[int]
    liked: list[int]

    def tensors(self) -> dict[str, Tensor]:
        """Of the program of form "user"."""
        count = len(self.candidates)
        return {
            "history": torch.tensor(self.history),
            "candidates": torch.tensor(self.candidates),
            "categorical": torch.tensor([[7, 2]]).repeat(count, 1),
            "history_categorical": torch.tensor(self.liked).unsqueeze(1),
        }

    def batch(self) -> Batch:
        count, own = len(self.candidates), self.tensors()
        return Batch.of(
            history=own["history"].repeat(count, 1),
            target=own["candidates"],
            categorical=own["categorical"],
            history_categorical=own["history_categorical"].repeat(count, 1, 1),
        )


def contenders(ranker: Ranker, length: int, folder: Path) -> dict[str, Callable[[Asked], Any]]:
    """Name -> what answers a request."""
    import onnxruntime

    scorer = Scorer(ranker, schema=SCHEMA)
    options = ExportOptions(form="user", length=length)
    export(ranker, folder / "ranker.pt2", options=options)
    export(ranker, folder / "ranker.onnx", options=replace(options, format="onnx"))
    with (folder / "ranker.pt2").open("rb") as file:
        program = torch.export.load(file).module()
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        folder / "ranker.onnx", settings, providers=["CPUExecutionProvider"]
    )

    def ask_scorer(asked: Asked) -> Any:
        columns = {"hour": 7, "device": 2, "liked": asked.liked}
        return scorer.score(asked.history, asked.candidates, columns=columns)

    def ask_onnx(asked: Asked) -> Any:
        return session.run(["logits"], {n: x.numpy() for n, x in asked.tensors().items()})[0]

    width: int = ranker.interaction.in_dim  # type: ignore[assignment]

    def alone(asked: Asked) -> Any:
        return ranker.heads[0](ranker.interaction(ready[len(asked.candidates)]))

    ready = {count: torch.randn(count, width) for count in (1, 100, 1000, 5000)}
    return {
        "rows repeated": lambda asked: ranker(asked.batch()).numpy(),
        "Scorer": ask_scorer,
        "torch.export": lambda asked: program(*asked.tensors().values()).numpy(),
        "onnxruntime": ask_onnx,
        READY: alone,
    }


def measure(
    found: dict[str, Callable[[Asked], Any]], asked: Asked, calls: int
) -> dict[str, dict[str, float]]:
    """Milliseconds of each, in turns; all must agree first."""
    scores = {name: ask(asked) for name, ask in found.items() if name != READY}
    for name, values in scores.items():
        np.testing.assert_allclose(values, scores["rows repeated"], atol=1e-4, err_msg=name)
    took: dict[str, list[float]] = {name: [] for name in found}
    busy: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(calls):
        for name, ask in found.items():
            began, ran = time.perf_counter(), time.process_time()
            ask(asked)
            busy[name].append(1000 * (time.process_time() - ran))
            took[name].append(1000 * (time.perf_counter() - began))
    count = len(asked.candidates)
    return {name: summary(took[name], count, busy[name]) for name in found}


def summary(took: list[float], candidates: int, busy: list[float]) -> dict[str, float]:
    """Of wall times, and of the processor's, which other programs of the machine do not change."""
    low, p50, p95, p99 = np.quantile(took, [0, 0.5, 0.95, 0.99])
    figures = {"least": low, "p50": p50, "p95": p95, "p99": p99}
    figures |= {"cpu_least": min(busy), "cpu_p50": np.median(busy)}
    return {
        **{name: round(float(value), 3) for name, value in figures.items()},
        "candidates_per_second": round(1000 * candidates / float(p50)),
    }


def former(checkout: Path, given: argparse.Namespace, items: Table) -> dict[str, float]:
    """Rows repeated, 1,000 candidates, at another commit."""
    with tempfile.TemporaryFile() as file:
        tensors = {n: v for n, v in vars(items).items() if isinstance(v, Tensor)}
        # That commit knew two modalities, by these names.
        tensors |= items.vectors | {f"has_{name}": v for name, v in items.present.items()}
        torch.save(tensors, file)
        file.seek(0)
        numbers = [given.items, given.history, 1000, max(10, given.calls // 4)]
        said = subprocess.run(
            [sys.executable, "-c", FORMER, given.recipe, *map(str, numbers)],
            stdin=file,
            cwd=checkout,  # where `-c` looks for modules before all other places
            env={**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            check=True,
        )
    took, busy = json.loads(said.stdout)
    return summary(took, 1000, busy)


def commit_of(checkout: Path) -> str:
    words = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def ratios(
    figures: dict[str, dict[str, dict[str, float]]], former: dict[str, Any] | None
) -> dict[str, float]:
    """What is promised of the processor's time, by its median and its least, where measured."""
    found: dict[str, float] = {}
    if "1000" not in figures:
        return found
    own = figures["1000"]
    for name in ("cpu_p50", "cpu_least"):
        scorer = own["Scorer"][name]
        found[f"Scorer over {READY}, {name}"] = scorer / own[READY][name]
        found[f"rows repeated over Scorer, {name}"] = own["rows repeated"][name] / scorer
        if former is not None:
            found[f"rows repeated at {former['commit']} over Scorer, {name}"] = (
                former[name] / scorer
            )
    return {name: round(float(value), 2) for name, value in found.items()}


def table(figures: dict[str, dict[str, dict[str, float]]]) -> str:
    lines = ["| candidates | | p50 ms | p95 | p99 | CPU, least | candidates/s |"]
    lines.append("|---|---|---|---|---|---|---|")
    for count, found in figures.items():
        for name, f in found.items():
            rate = f"{f['candidates_per_second']:,}"
            lines.append(
                f"| {int(count):,} | {name} | {f['p50']:.2f} | {f['p95']:.2f} | {f['p99']:.2f} "
                f"| {f['cpu_least']:.2f} | {rate} |"
            )
    return "\n".join(lines)


def plot(figures: dict[str, dict[str, dict[str, float]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    picture, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    sizes = [int(count) for count in figures]
    for name in figures[str(sizes[0])]:
        style = "--" if name == READY else "-"
        values = [figures[str(n)][name]["p50"] for n in sizes]
        axes.plot(sizes, values, style, marker="o", ms=4, label=name)
    axes.set(xscale="log", yscale="log", xlabel="candidates", ylabel="ms, median")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    picture.savefig(path)
    plt.close(picture)


def main() -> None:
    """Measure, print a table, write JSON and a plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--recipe", default="small")
    add("--items", type=int, default=20_000)
    add("--history", type=int, default=50)
    add("--sizes", type=int, nargs="+", default=[1, 100, 1000, 5000])
    add("--calls", type=int, default=200, help="of each contender and size")
    add("--former", type=Path, help="a checkout of a6b636c, to be measured as well")
    add("--name", default="serve")
    given = parser.parse_args()
    torch.set_num_threads(1)
    items, rng = make_items(given.items), np.random.default_rng(0)
    ranker = make_ranker(given.recipe, items)

    def asked(count: int) -> Asked:
        draw = rng.integers(1, given.items, given.history + count).tolist()
        liked = rng.integers(0, 2, given.history).tolist()
        return Asked(draw[: given.history], draw[given.history :], liked)

    figures = {}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        found = contenders(ranker, given.history, Path(folder))
        for count in given.sizes:
            figures[str(count)] = measure(found, asked(count), given.calls)
    # A checkout is a place on this machine; which commit it is, is told with its figures.
    settings = {k: v for k, v in vars(given).items() if k != "former"}
    told: dict[str, Any] = {"settings": settings}
    told |= {"load": os.getloadavg(), "milliseconds": figures}
    if given.former is not None:
        command = str(provenance()["command"]).replace(str(given.former), "CHECKOUT")
        told["provenance"] = provenance() | {"command": command}
        told["former"] = {"commit": commit_of(given.former), **former(given.former, given, items)}
    told["ratios"] = ratios(figures, told.get("former"))
    shown = "\n".join([table(figures), "", *(f"{n}: {v}" for n, v in told["ratios"].items())])
    print(shown)
    place = write_result(given.name, told)
    place.with_suffix(".md").write_text(shown + "\n")
    plot(figures, Path(__file__).parents[1] / "docs" / "img" / f"{given.name}.svg")


if __name__ == "__main__":
    run(main)

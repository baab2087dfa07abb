"""How fast does the reference model train, here and in fuxictr's layers?

    python benchmarks/train_speed.py --out benchmarks/results/train_speed.json

Same widths, batch size and data, one run: the reference recipe (267.9 M parameters) in mmrec, fed
by `ParquetStream`, and its twin in PyPI fuxictr's layers (extra `peers`), fed by a loader that
looks item rows up with pandas as the challenge's does. `--history typical` draws lengths as
MicroLens has them (median 6, mean near 8, at most 100), `full` fills all 100 places. Prints a
table; the JSON carries date, commit and hardware.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from fuxictr_peer import PeerLoader, PeerModel, import_fuxictr, make_step
from machine import provenance
from torch.utils.flop_counter import FlopCounterMode

from mmrec.cli import run
from mmrec.config import Speed, TrainConfig
from mmrec.data.batches import ToBatch
from mmrec.data.items import ItemTable
from mmrec.data.microlens import MICROLENS
from mmrec.devices import resolve_device
from mmrec.io.files import write_json
from mmrec.models import Inputs, build_ranker, get_recipe
from mmrec.nn.categorical import Vocabulary
from mmrec.stream.loader import make_loader
from mmrec.stream.stream import ParquetStream
from mmrec.train.loaders import on_device
from mmrec.train.step.stepper import Stepper, click_loss

LENGTH, EPOCH_ROWS, WARM_UP = 100, 3_600_000, 1
# What `write_data` writes: two columns of levels 1 … 10 beside the history.
COLLATE = ToBatch(MICROLENS.clicks, ("item_seq",))
INPUTS = Inputs(categorical=(Vocabulary(torch.arange(1, 11)),) * 2)
PEAK_BFLOAT16 = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense, by NVIDIA's data sheets


def main() -> None:
    given = parse()
    if given.peer_path:
        sys.path.insert(0, str(given.peer_path))
    device = resolve_device(given.device)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for history in given.history:
            for size in given.batch_size:
                data = Path(folder) / f"{history}-{size}"
                write_data(data, given, rows=size * (given.steps + WARM_UP), history=history)
                runs = [("mmrec", measure_mmrec)]
                runs += [] if given.skip_peer else [("fuxictr", measure_peer)]
                for name, measure in runs:
                    found = measure(data, given, size, device)
                    results.append({"code": name, "history": history, "batch_size": size, **found})
                    print_row(results[-1], results)
                    gc.collect()
                    if device.type == "cuda":
                        torch.cuda.empty_cache()
    if given.out:
        write_json(given.out, {"provenance": provenance(), "results": results})


def write_data(root: Path, given: argparse.Namespace, *, rows: int, history: str) -> None:
    """Clicks and item_info in the layout, Zipf-distributed items."""
    rng = np.random.default_rng(0)
    root.mkdir(parents=True)
    lengths = np.full(rows, LENGTH)
    if history == "typical":  # quartiles 4, 6, 9
        lengths = np.clip(np.exp(rng.normal(np.log(6), 0.65, rows)).round(), 1, LENGTH)
    weight = 1 / np.arange(1, given.items) ** 0.8
    seen = np.searchsorted(np.cumsum(weight / weight.sum()), rng.random((rows, LENGTH)))
    seen = np.minimum(seen + 1, given.items - 1)
    seen[np.arange(LENGTH) < (LENGTH - lengths)[:, None]] = 0
    offsets = np.arange(rows + 1, dtype=np.int32) * LENGTH
    table = {
        "user_id": rng.integers(1, 1_000_000, rows),
        "item_seq": pa.ListArray.from_arrays(offsets, pa.array(seen.ravel())),
        "item_id": rng.integers(1, given.items, rows),
        "likes_level": rng.integers(1, 11, rows),
        "views_level": rng.integers(1, 11, rows),
        "label": rng.integers(0, 2, rows),
    }
    pq.write_table(pa.table(table), root / "train.parquet", row_group_size=16_384)
    tags = rng.integers(1, given.tags, (given.items, 5))
    tags[-1, -1] = given.tags - 1
    vectors = rng.normal(size=(given.items, 128))
    tags[0] = vectors[0] = 0
    info = {"item_id": np.arange(given.items), "item_tags": list(tags)}
    pq.write_table(pa.table(info | {"item_emb_d128": list(vectors)}), root / "item_info.parquet")


def measure_mmrec(
    data: Path, given: argparse.Namespace, size: int, device: torch.device
) -> dict[str, Any]:
    """The trainer's own step, fed by the library's loader."""
    torch.manual_seed(0)
    items = ItemTable.read(data / "item_info.parquet", MICROLENS.items)
    config = TrainConfig(
        learning_rate=5e-4,
        compile=given.compile,
        speed=Speed(recompute=tuple(given.recompute)),
        precision=given.precision,
        log_every=10**6,
    )
    recipe = get_recipe(given.recipe)
    recipe = recipe.with_ready_vectors() if recipe.two_stage else recipe
    model = build_ranker(replace(recipe, training=config), items, INPUTS)
    stepper = Stepper(model, config, device, click_loss)
    stream = ParquetStream(
        data / "train.parquet",
        batch_size=size,
        columns=COLLATE.columns,
        list_widths={"item_seq": LENGTH},
        collate=COLLATE,
        shuffle=True,
        drop_last=True,
    )
    loader = make_loader(stream, num_workers=given.workers, pin_memory=device.type == "cuda")
    stepper.model.train()
    numbers = iter(range(10**9))
    return timed(
        on_device(loader, device),
        lambda pair: stepper.step([pair], step=next(numbers), factor=1.0),
        size=size,
        steps=given.steps,
        device=device,
    ) | {"parameters": sum(p.numel() for p in model.parameters())}


def measure_peer(
    data: Path, given: argparse.Namespace, size: int, device: torch.device
) -> dict[str, Any]:
    """Adam, clipping at 10, float32, cross-entropy of probabilities: as fuxictr trains."""
    import_fuxictr()
    torch.manual_seed(0)
    model = PeerModel(items=given.items, tags=given.tags, length=LENGTH).to(device).train()
    loader = PeerLoader(data / "train.parquet", data / "item_info.parquet", batch_size=size)
    step = make_step(model, device)
    found = timed(iter(loader), step, size=size, steps=given.steps, device=device)
    return found | {"parameters": sum(p.numel() for p in model.parameters())}


def timed(
    batches: Iterator[Any],
    step: Callable[[Any], None],
    *,
    size: int,
    steps: int,
    device: torch.device,
) -> dict[str, Any]:
    """Seconds of whole steps (data, transfer, update), after a warm-up that counts FLOPs."""
    with FlopCounterMode(display=False) as counter:
        for _ in range(WARM_UP):
            step(next(batches))
    wait = device.type == "cuda"
    if wait:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    loading_seconds, each = 0.0, []
    began, busy = time.perf_counter(), time.process_time()
    for _ in range(steps):
        start = time.perf_counter()
        batch = next(batches)
        loading_seconds += time.perf_counter() - start
        step(batch)
        each.append(time.perf_counter() - start)
    if wait:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    rate = steps * size / seconds
    found = {
        "step_ms": 1e3 * seconds / steps,
        "median_step_ms": None if wait else 1e3 * statistics.median(each),
        "cpu_ms": 1e3 * (time.process_time() - busy) / steps,  # what a busy machine distorts less
        "samples_per_second": rate,
        "epoch_seconds": EPOCH_ROWS / rate,
        "data_wait_share": loading_seconds / seconds,
        "tflops_per_step": counter.get_total_flops() / WARM_UP / 1e12,
    }
    if wait:
        found["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        name = torch.cuda.get_device_name()
        peak = next((v for k, v in PEAK_BFLOAT16.items() if k in name), None)
        done = found["tflops_per_step"] * 1e12 * steps / seconds
        found["flops_utilisation"] = done / peak if peak else None
    return found


def print_row(row: dict[str, Any], so_far: list[dict[str, Any]]) -> None:
    if len(so_far) == 1:
        columns = "code, history, batch, step ms, CPU ms, rows/s, data wait, TFLOP/step, to peer"
        print("| " + columns.replace(", ", " | ") + " |")
        print("|---|---|---|---|---|---|---|---|---|")
    against = ""
    if row["code"] == "fuxictr":
        same = ("history", "batch_size")
        ours = next(r for r in so_far if all(r[k] == row[k] for k in same))
        row["mmrec_speedup"] = row["step_ms"] / ours["step_ms"]
        row["mmrec_cpu_speedup"] = row["cpu_ms"] / ours["cpu_ms"]
        against = f"mmrec {row['mmrec_speedup']:.2f}x (CPU time {row['mmrec_cpu_speedup']:.2f}x)"
    print(
        f"| {row['code']} | {row['history']} | {row['batch_size']} | {row['step_ms']:.1f} "
        f"| {row['cpu_ms']:.1f} | {row['samples_per_second']:.1f} | {row['data_wait_share']:.1%} "
        f"| {row['tflops_per_step']:.3f} | {against} |",
        flush=True,
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Seconds per training step, against fuxictr's.")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[128])
    parser.add_argument("--steps", type=int, default=3, help="timed steps (3)")
    parser.add_argument(
        "--history", nargs="+", default=["typical", "full"], choices=("typical", "full")
    )
    parser.add_argument("--items", type=int, default=91_718)
    parser.add_argument("--tags", type=int, default=11_740)
    parser.add_argument("--recipe", default="reference")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--compile", action="store_true", help="mmrec through torch.compile")
    parser.add_argument(
        "--recompute", nargs="+", default=[], help="modules of mmrec whose activations are not kept"
    )
    parser.add_argument("--workers", type=int, default=0, help="mmrec's reading processes (0)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--skip-peer", action="store_true")
    parser.add_argument("--peer-path", type=Path, help="directory that holds the fuxictr package")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)

"""Steps of `gpu.py` that train: the time of a step, whole epochs, profiles.

A step is the trainer's own (`Stepper`) on batches that lie on the device; an epoch is `fit` from
parquet.
"""

from __future__ import annotations

import signal
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from gpu_job import INPUTS, Job, draw_batch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from mmrec.batch import Batch
from mmrec.data.clicks import ClickData
from mmrec.models import Recipe, build_ranker, describe
from mmrec.train import fit, read_log
from mmrec.train.loaders import on_device
from mmrec.train.step.stepper import Stepper, click_loss

PEAK_BFLOAT16 = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense, by NVIDIA's data sheets
EPOCH_ROWS = 3_600_000
WARM_UP, BATCHES = 3, 4
Step = Callable[[Batch], None]


def bare(recipe: Recipe, **changes: Any) -> Recipe:
    """Nothing but steps: no look at the device, no checkpoint inside an epoch."""
    training = replace(recipe.training, log_every=10**6, save_every_seconds=None, **changes)
    return replace(recipe, training=training)


def make_stepper(job: Job, name: str, *, mode: str | None = None) -> Stepper:
    """Steps of a named recipe, in bfloat16 on a card; `mode` of torch.compile, None = eager."""
    torch.manual_seed(0)
    recipe = bare(job.recipe(name), device=str(job.device))
    model: Any = build_ranker(recipe, job.items(), INPUTS)
    if mode is not None:  # a rehearsal records the graph and leaves the compiler out
        how: dict[str, Any] = {"backend": "eager"} if job.small else {"mode": mode}
        model = torch.compile(model, **how)
    return Stepper(model.train(), recipe.training, job.device, click_loss)


def eager(job: Job) -> None:
    """The step "steps": every recipe, batch size and length."""
    steppers = {name: make_stepper(job, name) for name in ("reference-fused", "small", "light")}
    for rows in sorted(job.size.batches, key=lambda size: size not in (128, 2048)):
        for name, stepper in steppers.items():
            for full in (False, True):
                with job.attempt(recipe=name, batch=rows, full=full, mode="eager") as row:
                    batches = ready(job, rows, full)
                    row |= time_steps(job, plain(stepper), batches)
                    row |= work(job, stepper, batches[0], row["step_ms"])
            # Finding what is padding waits for the card; where does that pay?
            tried = job.attempt(recipe=name, batch=rows, full=False, mode="no padding")
            with tried as row, least_work(stepper.model):
                row |= time_steps(job, plain(stepper), ready(job, rows, False))


def graphs(job: Job) -> None:
    """The step "graphs": a whole step as one CUDA graph, where launching kernels costs most."""
    rows = min(job.size.batches)
    for name in ("reference-fused", "small", "light"):
        for full in (False, True):
            with job.attempt(recipe=name, batch=rows, full=full, mode="CUDA graph") as row:
                if not job.on_cuda:
                    row["left_out"] = "there are no graphs on a CPU"
                    continue
                batches = ready(job, rows, full)
                row |= time_steps(job, captured(make_stepper(job, name), batches[0]), batches)


def compiled(job: Job) -> None:
    """The step "compile": the same steps through torch.compile, with what compiling took."""
    largest = 2048 if 2048 in job.size.batches else max(job.size.batches)
    for name, rows, full, mode in (
        ("small", largest, False, "default"),
        ("reference-fused", largest, True, "default"),
        ("small", min(job.size.batches), False, "reduce-overhead"),
        ("reference-fused", min(job.size.batches), False, "reduce-overhead"),
        ("light", largest, False, "default"),
    ):
        with job.attempt(recipe=name, batch=rows, full=full, mode=f"compiled, {mode}") as row:
            torch.compiler.reset()
            step, batches = plain(make_stepper(job, name, mode=mode)), ready(job, rows, full)
            began = time.perf_counter()
            step(batches[0])
            job.wait()
            row["first_step_s"] = time.perf_counter() - began
            row |= time_steps(job, step, batches)


def ready(job: Job, rows: int, full: bool) -> list[Batch]:
    """Batches on the device, as the trainer sends them."""
    drawn = (draw_batch(job.size, rows, full=full, seed=seed) for seed in range(BATCHES))
    return [batch for batch, _ in on_device(drawn, job.device)]


def plain(stepper: Stepper) -> Step:
    """A step as the trainer takes it; `row` stays on the host, as a loader leaves it."""
    rows: dict[int, torch.Tensor] = {}

    def step(batch: Batch) -> None:
        row = rows.setdefault(len(batch), torch.arange(len(batch)))
        stepper.step([(batch, row)], step=0, factor=1.0)

    return step


def captured(stepper: Stepper, batch: Batch) -> Step:
    """The step as a CUDA graph over one copy of the batch. For timing alone: dropout repeats."""
    fixed = batch.map(torch.clone)
    step = plain(stepper)
    for group in stepper.optimizer.param_groups:
        group["capturable"] = True
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            step(fixed)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # No generator may be seeded while a graph is recorded.
    with mock.patch("torch.cuda.manual_seed"), torch.cuda.graph(graph):
        step(fixed)

    def replay(batch: Batch) -> None:
        for place, value in zip(fixed.tensors(), batch.tensors(), strict=True):
            place.copy_(value)
        graph.replay()

    return replay


def time_steps(job: Job, step: Step, batches: list[Batch]) -> dict[str, Any]:
    """Milliseconds of a step, the mean of many in a row, and the peak of memory."""
    for turn in range(WARM_UP):
        step(batches[turn % BATCHES])
    job.wait()
    if job.on_cuda:
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    for turn in range(job.size.steps):
        step(batches[turn % BATCHES])
    launched = time.perf_counter() - began
    job.wait()
    seconds = (time.perf_counter() - began) / job.size.steps
    rate = len(batches[0]) / seconds
    found = {"step_ms": 1e3 * seconds, "host_ms": 1e3 * launched / job.size.steps}
    found |= {"samples_per_second": rate, "epoch_seconds": EPOCH_ROWS / rate}
    if job.on_cuda:
        found["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return found


def work(job: Job, stepper: Stepper, batch: Batch, step_ms: float) -> dict[str, Any]:
    """TFLOP that the step needs at least, and their share of what the card could do meanwhile."""
    with least_work(stepper.model), FlopCounterMode(display=False) as counter:
        plain(stepper)(batch)
    flops = counter.get_total_flops()
    found: dict[str, Any] = {"tflops_needed": flops / 1e12}
    if job.on_cuda:
        name = torch.cuda.get_device_name()
        peak = next((peak for card, peak in PEAK_BFLOAT16.items() if card in name), None)
        found["utilisation"] = flops / (step_ms / 1e3) / peak if peak else None
    return found


@contextmanager
def least_work(model: nn.Module) -> Iterator[None]:
    """Inside, each item is encoded once and no padding is computed."""
    switches = [
        (m, n) for m in model.modules() for n in ("compact", "deduplicate") if hasattr(m, n)
    ]
    before = [getattr(module, name) for module, name in switches]
    for module, name in switches:
        setattr(module, name, True)
    try:
        yield
    finally:
        for (module, name), value in zip(switches, before, strict=True):
            setattr(module, name, value)


def profiles(job: Job) -> None:
    """The step "profile": where a step makes the host wait, and which operations take its time."""
    largest = 2048 if 2048 in job.size.batches else max(job.size.batches)
    for name, rows, full in (
        ("reference-fused", largest, True),
        ("reference-fused", min(job.size.batches), False),
        ("small", largest, False),
    ):
        with job.attempt(recipe=name, batch=rows, full=full) as row:
            batches = ready(job, rows, full)
            step = plain(make_stepper(job, name))
            time_steps(job, step, batches)
            row["waits"] = waits(step, batches[0]) if job.on_cuda else "only CUDA tells"
            row["operations"] = operations(job, step, batches)


def waits(step: Step, batch: Batch) -> list[str]:
    """Each place at which one step makes the host wait."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    told = [w for w in caught if "synchroniz" in str(w.message)]
    return [f"{'/'.join(w.filename.split('/')[-3:])}:{w.lineno}" for w in told]


def operations(job: Job, step: Step, batches: list[Batch]) -> list[dict[str, Any]]:
    """The fifteen that take most of the device's time in a step, and how often they run."""
    kinds = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * job.on_cuda]
    steps = min(5, job.size.steps)
    with profile(activities=kinds) as seen:
        for turn in range(steps):
            step(batches[turn % BATCHES])
        job.wait()
    what = "self_device_time_total" if job.on_cuda else "self_cpu_time_total"
    events = sorted(seen.key_averages(), key=lambda e: -float(getattr(e, what)))
    return [
        {
            "name": event.key[:120],
            "ms": float(getattr(event, what)) / 1e3 / steps,
            "calls": event.count / steps,
        }
        for event in events[:15]
    ]


def epoch_of_reference(job: Job) -> None:
    """The step "epoch-reference"."""
    epochs(job, "reference-fused", [2048, 8192])


def epoch_of_default(job: Job) -> None:
    """The step "epoch-default": at large batches, then at the recipe's own."""
    epochs(job, "small", [8192, 2048, job.recipe("small").batch_size or 512])


def epochs(job: Job, name: str, sizes: list[int]) -> None:
    """Open the data, every value checked; then an epoch at each batch size."""
    began = time.perf_counter()
    data = ClickData.open(job.data)
    job.note(recipe=name, open_s=time.perf_counter() - began)
    for threads in (torch.get_num_threads(), 1):
        rows = min(*sizes, max(job.size.batches))
        with job.attempt(part="loader alone", threads=threads, batch=rows) as row:
            row |= loader_rate(job, data, rows, threads)
    for done, size in enumerate(sizes):
        rows = min(size, max(job.size.batches))
        with job.attempt(recipe=name, rows=data.rows["train"], batch=rows) as row:
            row |= epoch(job, data, rows, name, (job.left - 5) / (len(sizes) - done) - 5)


def loader_rate(job: Job, data: ClickData, rows: int, threads: int) -> dict[str, Any]:
    """Rows a second that arrive on the device where nothing else is done, for some seconds."""
    torch.set_num_threads(threads)
    loader = data.loader("train", batch_size=rows, shuffle=True, workers=workers(job))
    seen, began, seconds = 0, 0.0, 0.0
    for number, (batch, _) in enumerate(on_device(loader, job.device)):
        began = began or time.perf_counter()
        seen += len(batch) * (number > 0)
        seconds = time.perf_counter() - began
        if seconds > 4:
            break
    job.wait()
    return {"rows_per_second": seen / max(seconds, 1e-9)}


def workers(job: Job) -> int:
    return 0 if job.small else 14


def epoch(job: Job, data: ClickData, rows: int, name: str, seconds: float) -> dict[str, Any]:
    """One epoch by `fit`, checkpoint and evaluation in it, or as much as these seconds allow."""
    settings: dict[str, Any] = {
        "epochs": 1,
        "device": str(job.device),
        "log_every": 2 if job.small else 50,
        "save_every_seconds": None,
        "progress": False,
    }
    recipe = job.recipe(name)
    config = replace(recipe.training, **settings)
    model = build_ranker(replace(recipe, training=config), job.items(), INPUTS)
    loaders = (
        data.loader("train", batch_size=rows, shuffle=True, workers=workers(job)),
        data.loader("valid", batch_size=rows),
    )
    out, found = job.folder / f"epoch-{name}-{rows}", {}
    began = time.perf_counter()
    described = describe(recipe, INPUTS)
    with suppress(TimeIsUp), ended_after(seconds):
        fit(model, *loaders, config=config, out=out, recipe=described, restart=True)
        found["fit_s"] = time.perf_counter() - began
    lines = [line for line in read_log(out) if line["event"] == "train"]
    return found | told_by_log(lines, data)


class TimeIsUp(Exception):
    """Leaves `fit` at once: a checkpoint of the reference is 3 GB."""


@contextmanager
def ended_after(seconds: float) -> Iterator[None]:
    """`TimeIsUp` after that time, wherever the block is."""

    def end(*_: object) -> None:
        raise TimeIsUp

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def told_by_log(lines: list[dict[str, Any]], data: ClickData) -> dict[str, Any]:
    """Rows a second and data wait, in the median over windows past the first."""
    if not lines:
        return {"error": "it ended before the first line of the log"}
    later = lines[1:] or lines
    rate = statistics.median(line["rows_per_second"] for line in later)
    return {
        "rows_per_second": rate,
        "epoch_seconds": data.rows["train"] / rate,
        "data_wait": statistics.fmean(line["data_wait"] for line in later),
        "epochs": lines[-1]["epochs"],
    }

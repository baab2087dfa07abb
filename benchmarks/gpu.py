"""Everything that waits for a card, in one command: tests, speeds, goals, written as they come.

    python benchmarks/gpu.py --out FILE                         # eight minutes on a bare machine
    python benchmarks/gpu.py --device cpu --small --out FILE    # all of it rehearsed

Needs torch, torchvision, pyarrow, fsspec, safetensors, tqdm, pandas and pytest with its timeout;
fuxictr where it is there. Every step is a process of its own with a time limit, the most important
first; FILE is written after each, so that a run that is cut off still tells. What no longer fits
into `--budget` is left out, and said so. `make gpu` calls this. Next: `gpu_job.py`;
the figures against their goals: `gpu_goals.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from gpu_goals import judge  # noqa: E402
from machine import RESULTS, provenance  # noqa: E402

from mmrec.cli import run  # noqa: E402
from mmrec.errors import InputError  # noqa: E402
from mmrec.io.files import write_json  # noqa: E402


@dataclass(frozen=True)
class Step:
    """One process. `limit` ends it; it is not begun with less than `least` seconds left."""

    name: str
    function: str
    limit: float
    least: float = 15


STEPS = (
    Step("tests", "gpu_checks.contract", 90),
    Step("data", "gpu_job.make_data", 80),
    Step("peer", "gpu_peer.peer", 50),
    Step("epoch-reference", "gpu_train.epoch_of_reference", 85, 30),
    Step("steps", "gpu_train.eager", 70),
    Step("embed", "gpu_items.embed", 100, 30),
    Step("predict", "gpu_items.predictions", 50),
    Step("epoch-default", "gpu_train.epoch_of_default", 65, 30),
    Step("profile", "gpu_train.profiles", 45),
    Step("graphs", "gpu_train.graphs", 40),
    Step("scorer", "gpu_items.requests", 40),
    Step("compile", "gpu_train.compiled", 120, 40),
    Step("sanitizer", "gpu_checks.sanitizer", 90, 60),
)


def main() -> None:
    given = parse()
    if given.child:
        child(given)
        return
    with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
        steps = go(given, Path(folder), [step for step in STEPS if step.name in given.only])
    bad = [step["name"] for step in steps if step["state"] != "done"]
    if bad:
        raise InputError(f"every step must end well; these did not: {', '.join(bad)}")


def go(given: Namespace, folder: Path, chosen: Sequence[Step]) -> list[dict[str, Any]]:
    """Run the steps, and write the whole result after each of them."""
    began, done = time.monotonic(), []
    head: dict[str, Any] = {
        "provenance": provenance(),
        "device": given.device,
        "small": given.small,
    }
    head["budget_s"] = given.budget
    if given.commit:
        head["provenance"]["commit"] = given.commit
    for step in chosen:
        left = given.budget - (time.monotonic() - began)
        print(f"== {step.name} ({left:.0f} s left)", flush=True)
        if left < step.least:
            done.append({"name": step.name, "state": "left out", "why": "no time was left"})
        else:
            done.append(measure(step, given, folder, min(step.limit, left)))
        print(f"== {step.name}: {done[-1]['state']}", flush=True)
        goals = [] if given.small else judge(done)
        write_json(given.out, {**head, "goals": goals, "steps": done})
    for goal in [] if given.small else judge(done):
        print("| " + " | ".join(map(str, goal.values())) + " |")
    return done


def measure(step: Step, given: Namespace, folder: Path, limit: float) -> dict[str, Any]:
    """Run one step to its end or its limit; what it wrote until then is kept."""
    out, log = folder / f"{step.name}.json", folder / f"{step.name}.log"
    asked = command(step, given, folder, out, limit)
    places = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    began = time.monotonic()
    with log.open("w") as written:
        process = subprocess.Popen(
            asked,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": places},
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that what it started ends with it
        )
        try:
            code = process.wait(limit)
            state = "done" if code == 0 else "failed"
        except subprocess.TimeoutExpired:
            state = "cut off"
        finally:
            end_group(process)
    told = log.read_text(errors="replace")
    print(told if state == "done" else told[-3000:], end="", flush=True)
    row = {"name": step.name, "state": state, "seconds": round(time.monotonic() - began, 1)}
    row["rows"] = json.loads(out.read_text()) if out.exists() else []
    if state != "done" or step.name == "tests":
        row["log"] = told[-3000:]
    return row


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End the process and all that it started and left."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def command(step: Step, given: Namespace, folder: Path, out: Path, limit: float) -> list[str]:
    asked = [sys.executable, __file__, "--child", step.function, str(folder)]
    asked += ["--out", str(out), "--device", given.device, "--budget", str(limit)]
    asked += ["--peer-path", str(given.peer_path)] if given.peer_path else []
    return asked + ["--small"] * given.small


def child(given: Namespace) -> None:
    """Inside a step's process."""
    from importlib import import_module

    from gpu_job import Job

    function, folder = given.child
    file, name = function.split(".")
    device = torch.device(given.device)
    job = Job(Path(folder), device, given.small, given.out, given.budget, given.peer_path)
    getattr(import_module(file), name)(job)


def parse() -> Namespace:
    parser = argparse.ArgumentParser(description="All that waits for a card, in one command.")
    parser.add_argument("--device", default="cuda", help="cuda or cpu (%(default)s)")
    parser.add_argument("--small", action="store_true", help="toy sizes: a rehearsal")
    parser.add_argument("--budget", type=float, default=480.0, help="seconds in all (480)")
    names = [step.name for step in STEPS]
    parser.add_argument("--only", nargs="+", default=names, choices=names, help="steps (all)")
    parser.add_argument("--peer-path", type=Path, help="folder that holds the fuxictr package")
    parser.add_argument("--out", type=Path, help="JSON (benchmarks/results/gpu_<card>.json)")
    parser.add_argument("--commit", help="of this code, on a machine without its git folder")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(
            "torch finds no CUDA device here: --device cpu --small rehearses all of it"
        )
    if given.out is None:
        card = torch.cuda.get_device_name() if given.device.startswith("cuda") else "cpu"
        given.out = RESULTS / f"gpu_{card.replace(' ', '_').lower()}.json"
    given.out = given.out.resolve()
    return given


if __name__ == "__main__":
    run(main)

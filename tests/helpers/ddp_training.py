"""One rank, or the only one, of the runs that test_distributed compares."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from toy_training import Stopped, ToyLoader, ToyModel, crash_at, toy_config

from mmrec.predict import predict, write_submission
from mmrec.train import World, fit, process_group

# Adam divides by the gradient's size: eps keeps differences of rounding as small as they are.
RUNS: dict[str, dict[str, Any]] = {
    "plain": {"clip_norm": 0.3},
    "resumed": {"clip_norm": 0.3, "save_every_steps": 5},
    "accumulated": {"accumulate": 2, "ema_decay": 0.9},
}


def train(out: Path, name: str, world: World, crash: int | None = None) -> None:
    slices = {"rank": world.rank, "world_size": world.size}
    # The first rank's weights must win; 193 rows in batches of 16: one row is left for the last
    # batch, so that one of two ranks has none.
    model = ToyModel(dropout=0.0, seed=5 + world.rank)
    fit(
        model,
        ToyLoader(193, **slices, hook=crash_at(crash) if crash else None),
        ToyLoader(101, data_seed=2, shuffle=False, **slices),
        config=toy_config(epochs=2, log_every=1, eps=1e-4, **RUNS[name]),
        out=out / name,
        recipe={"kind": "toy"},
    )
    test = ToyLoader(101, data_seed=3, shuffle=False, labelled=False, **slices)
    rows, probability = predict(model, test, device="cpu")
    if world.is_first:
        write_submission(rows, probability, out / name, id_column="ID", columns=["click"])


def crash_once(out: Path) -> None:
    """Leave the "resumed" run stopped after 17 of its steps."""
    try:
        train(out, "resumed", World(), crash=18)
    except Stopped:
        return
    raise RuntimeError("the run was not stopped")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with process_group("cpu") as here:
        for run in json.loads(sys.argv[2]):
            train(Path(sys.argv[1]), run, here)
    threads = [(task / "comm").read_text() for task in Path("/proc/self/task").glob("*")]
    (Path(sys.argv[1]) / f"threads-{here.rank}").write_text("".join(threads))

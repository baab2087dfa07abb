"""Neither memory nor step time grows: 300 steps in every run, 2,000 in the slow one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from slow_variants import thorough
from toy_training import ToyLoader, ToyModel, toy_config

from mmrec import Batch
from mmrec.train import fit


class Watched(ToyLoader):
    """Notes time and resident memory at every batch."""

    def __init__(self, batches: int) -> None:
        super().__init__(batches * 16)
        self.process = psutil.Process()
        self.seen: list[tuple[float, int]] = []

    def __iter__(self) -> Iterator[Batch]:
        for batch in super().__iter__():
            self.seen.append((time.thread_time(), self.process.memory_info().rss))
            yield batch


def measure(out: Path, steps: int) -> tuple[float, float]:
    """MiB that memory grows by over the steps, and the pace of the last quarter to the second."""
    loader = Watched(steps)
    fit(
        ToyModel(),
        loader,
        ToyLoader(101, data_seed=2, shuffle=False),
        config=toy_config(epochs=1, log_every=20, ema_decay=0.99),
        out=out,
        recipe={},
    )
    seconds, memory = (np.array(column) for column in zip(*loader.seen, strict=True))
    quarter = steps // 4
    steady = slice(quarter, None)  # the first quarter warms caches up
    growth = np.polyfit(np.arange(steps)[steady], memory[steady], 1)[0] * steps / 2**20
    # The quick steps of each quarter: a leak slows all of them, a busy neighbour only some.
    pace = np.diff(seconds)
    late, early = pace[-quarter:], pace[quarter : 2 * quarter]
    slower = float(np.quantile(late, 0.1) / np.quantile(early, 0.1))
    print(json.dumps({"steps": steps, "growth_mib": growth, "slower": slower}))
    return float(growth), slower


@pytest.mark.parametrize("steps", [300, thorough(2000)])
def test_nothing_grows(tmp_path: Path, steps: int) -> None:
    # Growth of ours shows in every run; what other processes do to one of them does not.
    runs = [measure(tmp_path / str(run), steps) for run in range(3)]
    growth, slower = (min(column) for column in zip(*runs, strict=True))
    assert growth < 4, f"{growth:.2f} MiB over {steps} steps"
    assert slower < 1.5, f"the last steps take {slower:.2f} times the earlier ones"

"""How well does the default recipe rank on MovieLens-small? The example, once a seed.

    python benchmarks/movielens.py SOURCE [--no-ablation …]   # ml-latest-small, features.parquet

Prints a table of valid and test AUC a seed and their means, and writes results/movielens.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from machine import write_result

from mmrec.cli import run
from mmrec.metrics.auc import auc

EXAMPLE = Path(__file__).parents[1] / "examples" / "microlens_1m.py"


def main() -> None:
    """Prepare, train once a seed, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="ml-latest-small as GroupLens ships it")
    parser.add_argument("--seeds", type=int, default=3, help="runs (3)")
    parser.add_argument("--jobs", type=int, default=1, help="seeds at a time (1)")
    parser.add_argument("--name", default="movielens", help="of the result file (movielens)")
    given, options = parser.parse_known_args()  # what is unknown here goes to the example
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        prepare = [sys.executable, "-m", "mmrec.datasets.movielens", str(given.source), str(data)]
        subprocess.run([*prepare, "--images", "none"], check=True)
        with ThreadPoolExecutor(given.jobs) as pool:
            runs = list(
                pool.map(
                    lambda seed: one(data, Path(folder) / str(seed), seed, options),
                    range(given.seeds),
                )
            )
    print(f"{'seed':>4} {'valid AUC':>10} {'logloss':>8} {'test AUC':>9} {'unseen':>7} {'s':>5}")
    for found in runs:
        print(
            f"{found['seed']:>4} {found['valid_auc']:>10.4f} {found['valid_logloss']:>8.4f} "
            f"{found['test_auc']:>9.4f} {found['valid_auc_unseen']:>7.4f} {found['seconds']:>5.0f}"
        )
    names = ("valid_auc", "valid_logloss", "test_auc", "valid_auc_unseen", "seconds")
    means = {name: statistics.mean(found[name] for found in runs) for name in names}
    print("mean " + ", ".join(f"{name} {value:.4f}" for name, value in means.items()))
    print(write_result(given.name, {"mean": means, "runs": runs}))


def one(data: Path, out: Path, seed: int, options: list[str]) -> dict[str, Any]:
    """The figures of one seed."""
    command = [sys.executable, str(EXAMPLE), "--data", str(data), "--out", str(out)]
    subprocess.run([*command, "--seed", str(seed), "--no-audit", "--quiet", *options], check=True)
    found = json.loads((out / "metrics.json").read_text())
    (task,) = found["tasks"].values()
    label = pq.read_table(data / "test_labels.parquet")["label"].to_numpy()
    predicted = np.loadtxt(out / "prediction.csv", delimiter=",", skiprows=1)[:, 1]
    return {
        "seed": seed,
        "valid_auc": found["valid"]["auc"],
        "valid_logloss": found["valid"]["logloss"],
        "valid_auc_unseen": task["ranker"]["auc_unseen_items"],
        "test_auc": auc(label, predicted),
        "no_content": task["no_content"],
        "parameters": found["parameters"],
        "baselines": {
            name: task[name]["auc"] for name in ("item_mean", "user_item_mean") if name in task
        },
        "seconds": found["seconds"]["train"],
    }


if __name__ == "__main__":
    run(main)

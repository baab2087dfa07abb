"""The one place that reads test labels for `peers.py`: at most three times a row set.

    python benchmarks/peers_test.py --rows likes [--out out/peers]

Takes the models and seeds that peers.py chose on valid and wrote to peers_ROWS.json, and appends
to test_readings.jsonl: date, commit, mean test AUC of each model, and mmrec's less each other's,
with 95 % intervals over users and seeds. Readings are kept, the ones that disappoint as well.
"""

from __future__ import annotations

import argparse
import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from machine import RESULTS, commit
from numpy.typing import NDArray
from peers import READINGS
from peers_report import OURS, differences, readings
from peers_rows import ROW_SETS

from mmrec.cli import run
from mmrec.data.clicks import ClickData
from mmrec.errors import InputError, require
from mmrec.io.files import replacing

MOST = 3


def read_test(rows: str, out: Path, results: Path) -> dict[str, Any]:
    """Read once, append, and give what was appended.

    Raises:
        InputError: a fourth reading, no search, cells of it that are gone, or no mmrec in it.
    """
    log, chosen = results / READINGS, results / f"peers_{rows}.json"
    before = len(readings(log, rows))
    require(
        before < MOST,
        f"the test labels of row set {rows} have been read {before} times, {MOST} is the most: "
        f"choose on valid, or report what {log} says",
    )
    if not chosen.exists():
        raise InputError(f"there is no {chosen}: run peers.py first")
    models = json.loads(chosen.read_text())["models"]
    require(
        OURS in models, f"{chosen} holds no {OURS} to compare: run peers.py with all its models"
    )
    keys = {model: row["cells"] for model, row in models.items()}
    folder = out / "cells"
    gone = [key for of in keys.values() for key in of if not (folder / f"{key}.npz").exists()]
    require(not gone, f"{len(gone)} cells are gone, {folder / (gone or [''])[0]}.npz: run peers.py")
    user, label = test_rows(out / "data" / rows)
    compared = differences(keys, "test", user, label, folder)
    reading = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "rows": rows,
        "models": {
            model: {**found, "cells": keys[model], "setting": models[model]["setting"]}
            for model, found in compared.items()
        },
    }
    text = log.read_text() if log.exists() else ""
    with replacing(log) as temporary:
        temporary.write_text(text + json.dumps(reading) + "\n")
    return reading


def test_rows(root: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """User and label of the test rows, matched by the row's id where the schema has one."""
    clicks = ClickData.open(root, check=False).schema.clicks
    test = pq.read_table(root / "test.parquet", columns=[clicks.user, clicks.row_id])
    labels = pq.read_table(root / "test_labels.parquet")
    require(
        test[clicks.row_id].equals(labels[clicks.row_id]),
        f"test_labels.parquet of {root} has other rows than test.parquet: prepare it again",
    )
    return (
        test[clicks.user].to_numpy(),
        labels[clicks.labels[0]].to_numpy().astype(np.float64),
    )


def main() -> None:
    """Read once and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", required=True, choices=ROW_SETS)
    parser.add_argument("--out", type=Path, default=Path("out/peers"), help="as peers.py's")
    parser.add_argument("--results", type=Path, default=RESULTS, help="as peers.py's")
    given = parser.parse_args()
    for model, found in read_test(given.rows, given.out, given.results)["models"].items():
        gap = found.get("difference")
        less = "" if gap is None else " mmrec less it {value:+.4f} [{low:+.4f}, {high:+.4f}]"
        print(f"{model}: test AUC {found['auc']:.4f}{less.format(**(gap or {}))}")


if __name__ == "__main__":
    run(main)

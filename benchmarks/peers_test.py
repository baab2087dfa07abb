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
        InputError: a fourth reading, or see `chosen`.
    """
    log = results / READINGS
    before = len(readings(log, rows))
    require(
        before < MOST,
        f"the test labels of row set {rows} have been read {before} times, {MOST} is the most: "
        f"choose on valid, or report what {log} says",
    )
    models = chosen(results / f"peers_{rows}.json", out / "cells")
    user, label = read_labels(out / "data" / rows)
    keys = {model: row["cells"] for model, row in models.items()}
    compared = differences(keys, "test", user, label, out / "cells")
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


def chosen(path: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """Model -> what peers.py wrote of it, all that is compared being there.

    Raises:
        InputError: no search, no mmrec in it, or cells of it that are gone.
    """
    if not path.exists():
        raise InputError(f"there is no {path}: run peers.py first")
    models: dict[str, dict[str, Any]] = json.loads(path.read_text())["models"]
    require(
        OURS in models and len(models) > 1,
        f"{path} must hold {OURS} and a peer, got {', '.join(models)}: run peers.py of all",
    )
    keys = [key for row in models.values() for key in row["cells"]]
    gone = [key for key in keys if not (folder / f"{key}.npz").exists()]
    if gone:
        raise InputError(
            f"{len(gone)} trainings of {path} are gone, {folder / gone[0]}.npz: run peers.py again"
        )
    return models


def read_labels(root: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """User and label of the test rows, which must stand in one order in both files.

    Raises:
        InputError: no ids of rows, or others.
    """
    files = ClickData.open(root, check=False)
    clicks = files.schema.clicks
    require(clicks.row_id, f"test labels are matched by row_id, the schema of {root} has none")
    test = pq.read_table(files.test, columns=[clicks.user, clicks.row_id])
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

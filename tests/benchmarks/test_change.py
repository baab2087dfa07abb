"""`benchmarks/change.py` on small synthetic rows."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import change
import numpy as np
import pytest
from peers_rows import read_rows

from mmrec.datasets.synthetic import SyntheticConfig, make_synthetic
from mmrec.errors import InputError
from mmrec.metrics import auc

CONFIG = SyntheticConfig(num_items=120, rows=(600, 130, 110), content="features")


def run_change(
    folder: Path, data: list[Path], monkeypatch: pytest.MonkeyPatch
) -> dict[str, object]:
    command = [
        "change.py",
        *map(str, data),
        "--set",
        "training.learning_rate=0.001",
        "--seeds",
        "2",
    ]
    command += ["--out", str(folder / "out"), "--results", str(folder), "--name", "found"]
    monkeypatch.setattr(sys, "argv", command)
    change.main()
    found: dict[str, object] = json.loads((folder / "found.json").read_text())["data"]
    return found


def test_two_recipes_are_trained_and_compared_and_nothing_is_done_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "shop"
    make_synthetic(data, CONFIG)
    (data / "test_labels.parquet").unlink()
    found = run_change(tmp_path, [data], monkeypatch)
    cells = tmp_path / "out" / "shop" / "cells"
    made = {path: path.stat().st_mtime_ns for path in cells.iterdir()}
    assert len(made) == 2 * 2 * 2  # recipes, seeds, files
    rows = read_rows(data)
    unseen = change.unseen(rows)
    targets = set(rows.train.target.tolist())
    assert [target not in targets for target in rows.valid.target.tolist()] == unseen.tolist()
    label = rows.valid.labels[:, 0].numpy()
    by_change: dict[bool, list[float]] = {False: [], True: []}
    for path in cells.glob("*.json"):
        changed = "training.learning_rate" in json.loads(path.read_text())["setting"]
        with np.load(path.with_suffix(".npz")) as logits:
            by_change[changed].append(auc(label, logits["valid"]))
    of_all = found["shop"]["auc"]["all rows"]  # type: ignore[index]
    assert of_all["before"] == pytest.approx(np.mean(by_change[False]))
    assert of_all["after"] == pytest.approx(np.mean(by_change[True]))
    difference = of_all["difference"]
    assert difference["value"] == pytest.approx(of_all["after"] - of_all["before"])
    assert difference["low"] < difference["value"] < difference["high"]
    assert run_change(tmp_path, [data], monkeypatch) == found
    assert {path: path.stat().st_mtime_ns for path in cells.iterdir()} == made


def test_data_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="different names, got shop, shop"):
        run_change(tmp_path, [tmp_path / "a" / "shop", tmp_path / "b" / "shop"], monkeypatch)

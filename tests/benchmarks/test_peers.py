"""`benchmarks/peers.py` on small synthetic rows, and the three readings of the test labels."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import peers
import peers_test
import pyarrow.parquet as pq
import pytest
from peers_rows import prepare, read_rows
from peers_search import SPACES, draw

from mmrec.datasets.click_model import ClickModel
from mmrec.datasets.synthetic import SyntheticConfig, make_synthetic
from mmrec.errors import InputError

CONFIG = SyntheticConfig(
    num_items=120, rows=(600, 130, 110), content="features", model=ClickModel(liked_weight=1.0)
)
NEEDS = ("fuxictr", "lightgbm")


def run_peers(folder: Path, models: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["peers.py", "nowhere", "--out", str(folder / "out"), "--rows", "all"]
    command += ["--results", str(folder / "results"), "--images", str(folder / "img")]
    command += ["--draws", "2", "--seeds", "2", "--models", *models]
    monkeypatch.setattr(sys, "argv", command)
    peers.main()


@pytest.mark.parametrize("models", [["dcnv2", "mmrec"], ["din", "finalmlp"], ["dcnv2", "lightgbm"]])
def test_two_models_are_searched_without_a_label_of_test_and_nothing_is_done_twice(
    models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in NEEDS[: 1 + ("lightgbm" in models)]:
        if not find_spec(package):  # an import would come before the stand-ins for what it imports
            pytest.skip(f"needs {package}")
    root = tmp_path / "out" / "data" / "all"
    make_synthetic(root, CONFIG)
    (root / "test_labels.parquet").unlink()
    run_peers(tmp_path, models, monkeypatch)
    cells = tmp_path / "out" / "cells"
    made = {path: path.stat().st_mtime_ns for path in cells.iterdir()}
    more = 2 * ("mmrec" in models)  # it has two seeds more on these rows
    assert len(made) == 2 * (2 * (2 + 1) + more)  # draws, seed 1 of the best; two files each
    found = json.loads((tmp_path / "results" / "peers_all.json").read_text())["models"]
    assert set(found) == set(models)
    for model in models:
        aucs = [one["valid_auc"] for one in found[model]["draws"]]
        assert max(aucs) in found[model]["valid"]["seeds"]
        assert found[model]["setting"] in [one["setting"] for one in found[model]["draws"]]
        assert 0 < found[model]["best_seconds"] <= found[model]["seconds"]
        with np.load(cells / f"{found[model]['cells'][0]}.npz") as logits:
            assert (len(logits["valid"]), len(logits["test"])) == (130, 110)
    assert ("difference" in found[models[0]]["valid"]) == ("mmrec" in models)
    assert (tmp_path / "img" / "peers_all.png").exists()
    run_peers(tmp_path, models, monkeypatch)
    assert {path: path.stat().st_mtime_ns for path in cells.iterdir()} == made


@pytest.mark.parametrize("model", SPACES)
def test_settings_are_drawn_by_seed_and_differ(model: str) -> None:
    drawn = draw(model, 16, 0)
    assert drawn == draw(model, 16, 0) != draw(model, 16, 1)
    assert len({json.dumps(setting) for setting in drawn}) == 16
    assert drawn[:8] == draw(model, 8, 0)


def test_rows_of_likes_tell_nothing_of_dislikes(tmp_path: Path) -> None:
    for rows in ("likes", "all"):
        make_synthetic(tmp_path / "data" / rows, CONFIG)
    both = read_rows(prepare(tmp_path, tmp_path, "all"))
    assert both.sign == 0
    assert both.train.history_categorical.shape[-1] == 1
    likes = read_rows(prepare(tmp_path, tmp_path, "likes"))
    assert likes.sign is None
    for batch in (likes.train, likes.valid, likes.test):
        assert batch.history_categorical.shape[-1] == batch.numeric.shape[-1] == 0
    assert both.test.labels.shape[-1] == 0


def searched(folder: Path, models: Sequence[str]) -> None:
    """As if peers.py had run: three seeds of each model, the logits of mmrec near the labels."""
    root, cells = folder / "out" / "data" / "all", folder / "out" / "cells"
    make_synthetic(root, CONFIG)
    label = pq.read_table(root / "test_labels.parquet")["label"].to_numpy()
    cells.mkdir()
    generator, rows = np.random.default_rng(0), {}
    for model in models:
        keys = [f"all-{model}-x-{seed}" for seed in range(3)]
        for key in keys:
            noise = generator.normal(size=len(label)) * (1 if model == "mmrec" else 10)
            np.savez(cells / f"{key}.npz", test=label + noise)
        rows[model] = {"cells": keys, "setting": {}}
    (folder / "results").mkdir()
    (folder / "results" / "peers_all.json").write_text(json.dumps({"models": rows}))


def test_a_fourth_reading_of_the_test_labels_is_refused(tmp_path: Path) -> None:
    searched(tmp_path, ["mmrec", "din"])
    out, results = tmp_path / "out", tmp_path / "results"
    log = results / peers.READINGS
    log.parent.mkdir(exist_ok=True)
    log.write_text(json.dumps({"rows": "likes"}) + "\n")  # of other rows: it does not count
    for _ in range(3):
        reading = peers_test.read_test("all", out, results)
    gap = reading["models"]["din"]["difference"]
    assert gap["low"] < gap["value"] < gap["high"]
    assert gap["value"] == pytest.approx(
        reading["models"]["mmrec"]["auc"] - reading["models"]["din"]["auc"]
    )
    assert gap["low"] > 0
    before = log.read_text()
    assert [json.loads(line)["rows"] for line in before.splitlines()] == ["likes"] + ["all"] * 3
    with pytest.raises(InputError, match="have been read 3 times, 3 is the most"):
        peers_test.read_test("all", out, results)
    assert log.read_text() == before


def test_nothing_is_read_where_there_is_nothing_to_compare(tmp_path: Path) -> None:
    searched(tmp_path, ["din"])
    out, results = tmp_path / "out", tmp_path / "results"
    with pytest.raises(InputError, match="must hold mmrec and a peer, got din"):
        peers_test.read_test("all", out, results)
    with pytest.raises(InputError, match=r"run peers\.py first"):
        peers_test.read_test("likes", out, results)
    chosen = results / "peers_all.json"
    models = {model: {"cells": ["gone"], "setting": {}} for model in ("mmrec", "din")}
    chosen.write_text(json.dumps({"models": models}))
    with pytest.raises(InputError, match=r"2 trainings of .* are gone, .*gone\.npz: run"):
        peers_test.read_test("all", out, results)
    assert not (results / peers.READINGS).exists()

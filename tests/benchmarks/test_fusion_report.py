"""What the fusion benchmark concludes from cells whose truth is known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fusion_report
import numpy as np
import pytest
import torch
from cells import Cell, Result
from fusion_plots import plot_all

from mmrec.metrics import auc
from mmrec.metrics.intervals import Replicates
from mmrec.models.recipes import small

USERS, EACH = 120, 12


@pytest.fixture(scope="module")
def summary() -> dict[str, Any]:
    """Three rows: the baseline, its double, and one that ranks better; two seeds each."""
    rng = np.random.default_rng(0)
    rows = USERS * EACH
    truth = rng.normal(size=rows)
    data = SimpleNamespace(
        label=(rng.random(rows) < 1 / (1 + np.exp(-truth))).astype(np.float64),
        user=np.repeat(np.arange(USERS), EACH),
        target=rng.integers(1, 40, rows),
        counts=SimpleNamespace(
            known_items=torch.arange(40) < 30, item_rows=np.arange(40)[::-1, None].copy()
        ),
        items=SimpleNamespace(present={"image": torch.arange(40) % 3 > 0}),
    )
    noise = rng.normal(size=(2, rows))
    scores = {"concat": truth + 2 * noise, "double": truth + 2 * noise, "better": truth + noise}
    results = {
        name: [result(name, seed, s[seed]) for seed in range(2)] for name, s in scores.items()
    }
    found = fusion_report.summarise(results, data, baseline="concat", jobs=1)  # type: ignore[arg-type]
    for row in found["rows"]:
        row["us_per_item"] = 1.0
    found |= {"cells": 6, "cell_seconds": 60}
    found["truth"] = {
        name: np.mean([auc(data.label, one) for one in s]) for name, s in scores.items()
    }
    return found


def result(name: str, seed: int, score: np.ndarray) -> Result:
    cell = Cell(name, small().changed({"training.seed": seed}))
    figures = {"valid": {"auc": 0.7}, "parameters": 9, "fusion_parameters": 5, "seconds": 1.0}
    logit = score.astype(np.float32)
    dropped = np.zeros_like(logit)
    return Result(cell, figures, {"all": logit, "image dropped": dropped, "text dropped": logit})


def row(summary: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (row for row in summary["rows"] if row["name"] == name)
    return found


def test_aucs_are_means_over_seeds(summary: dict[str, Any]) -> None:
    for name, truth in summary["truth"].items():
        found = row(summary, name)["auc"]["all"]
        assert found["value"] == pytest.approx(truth, abs=1e-6)
        assert found["low"] < found["value"] < found["high"]


def test_a_model_is_not_better_than_its_double(summary: dict[str, Any]) -> None:
    found = row(summary, "double")
    assert found["difference"]["all"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert fusion_report.verdict(found) == ""


def test_a_better_model_is_called_so(summary: dict[str, Any]) -> None:
    found = row(summary, "better")
    assert found["difference"]["all"]["low"] > 0
    assert fusion_report.verdict(found) == "better"
    assert found["p_adjusted"] >= found["p"]


def test_what_is_lost_without_a_modality_is_the_difference_of_two_aucs(
    summary: dict[str, Any],
) -> None:
    found = row(summary, "better")
    assert found["lost"]["text"]["value"] == 0.0
    assert found["lost"]["image"]["value"] == pytest.approx(found["auc"]["all"]["value"] - 0.5)


def test_slices_hold_the_rows_they_name(summary: dict[str, Any]) -> None:
    assert set(summary["slices"]) <= set(row(summary, "better")["auc"])
    # Targets 30-39 are unseen; 35-38 have 1-4 rows; a third has no image.
    rows = USERS * EACH
    assert summary["slices"]["unseen items"] == pytest.approx(rows * 10 / 39, rel=0.2)
    assert summary["slices"]["items with 1-4 train rows"] == pytest.approx(rows * 4 / 39, rel=0.3)
    assert summary["slices"]["items without image"] == pytest.approx(rows * 13 / 39, rel=0.2)


def test_holm_adjusts_as_its_paper_does() -> None:
    rows = [{"p": p} for p in (0.01, 0.04, 0.03, 0.005)]
    fusion_report.adjust(rows)
    assert [row["p_adjusted"] for row in rows] == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_seeds_widen_the_interval() -> None:
    """Two seeds that disagree: resampling them adds their spread to that of the users."""
    drawn = np.random.default_rng(0).normal(scale=0.001, size=4000)
    agree = fusion_report.over_seeds([Replicates(0.5, 0.5 + drawn), Replicates(0.5, 0.5 + drawn)])
    differ = fusion_report.over_seeds([Replicates(0.4, 0.4 + drawn), Replicates(0.6, 0.6 + drawn)])
    assert agree.value == differ.value == 0.5
    assert agree.drawn.std() == pytest.approx(0.001, rel=0.1)
    assert differ.drawn.std() == pytest.approx(0.1 / np.sqrt(2), rel=0.1)


def test_table_and_plots_are_written(summary: dict[str, Any], tmp_path: Path) -> None:
    text = fusion_report.to_markdown(summary, tmp_path / "x.json")
    table = [line for line in text.splitlines() if line.startswith("| better")]
    assert len(table) == 2
    assert "| better |" in table[0]
    plot_all(summary, tmp_path, "x")
    for kind in ("auc", "difference", "cost", "slices"):
        assert (tmp_path / f"x_{kind}.png").read_bytes()[:4] == b"\x89PNG"


def test_of_the_baseline_alone_no_difference_is_drawn(
    summary: dict[str, Any], tmp_path: Path
) -> None:
    alone = summary | {"rows": [row(summary, "concat")]}
    plot_all(alone, tmp_path, "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x_auc.png", "x_cost.png"]

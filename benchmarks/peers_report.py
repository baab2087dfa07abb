"""What the cells of `peers.py` say: figures, intervals over users and seeds, table and plot."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fusion_plots import label_points
from fusion_report import over_seeds
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from peers_rows import ROW_SETS
from peers_search import Cell, figures_of, logits_of

from mmrec.metrics.intervals import Replicates, bootstrap

OURS = "mmrec"
NAMES = {
    "mmrec": "mmrec",
    "dcnv2": "FuxiCTR DCNv2",
    "din": "FuxiCTR DIN",
    "finalmlp": "FuxiCTR FinalMLP",
    "lightgbm": "LightGBM",
}


def differences(
    keys: Mapping[str, Sequence[str]], split: str, user: ArrayLike, label: ArrayLike, folder: Path
) -> dict[str, dict[str, Any]]:
    """Model -> mean AUC of its cells, AUC of each, and where `OURS` is there its AUC less the
    model's, with a 95 % interval over the same resampled users and over seeds."""
    drawn: dict[str, Replicates] = {}
    found: dict[str, dict[str, Any]] = {}
    for model, of in keys.items():
        each = [bootstrap("auc", user, label, logits_of(key, split, folder)) for key in of]
        drawn[model] = over_seeds(each)
        found[model] = {"auc": drawn[model].value, "seeds": [one.value for one in each]}
    for model in [name for name in keys if OURS in keys and name != OURS]:
        gap = (drawn[OURS] - drawn[model]).interval()
        found[model]["difference"] = {"value": gap.value, "low": gap.low, "high": gap.high}
    return found


def summarise(
    searched: Mapping[str, tuple[list[Cell], list[Cell]]],
    valid: tuple[ArrayLike, ArrayLike],
    folder: Path,
) -> dict[str, Any]:
    """Every figure but those of test; `valid` is users and labels."""
    keys = {model: [cell.key for cell in best] for model, (_, best) in searched.items()}
    compared = differences(keys, "valid", *valid, folder)
    models = {}
    for model, (tried, best) in searched.items():
        each = [figures_of(cell.key, folder) for cell in best]
        draws = [figures_of(cell.key, folder) for cell in tried]
        rates = [one["rows_per_second"] for one in each if one["rows_per_second"] is not None]
        models[model] = {
            "setting": dict(best[0].setting),
            "seeds": len(best),
            "cells": keys[model],
            "commits": sorted({one.get("commit", "unknown") for one in draws + each}),
            "valid": compared[model],
            "best_seconds": statistics.median(one["best_seconds"] for one in each),
            "seconds": statistics.median(one["seconds"] for one in each),
            "prepare_seconds": statistics.median(one["prepare_seconds"] for one in each),
            "rows_per_second": statistics.median(rates) if rates else None,
            "parameters": each[0]["parameters"],
            "best_at": each[0]["best_at"],
            "search_seconds": sum(one["seconds"] for one in draws),
            "draws": [{"setting": one["setting"], "valid_auc": one["valid_auc"]} for one in draws],
        }
    return {"models": models}


def readings(path: Path, rows: str) -> list[dict[str, Any]]:
    """Every reading of the test labels of a row set, oldest first."""
    if not path.exists():
        return []
    found = [json.loads(line) for line in path.read_text().splitlines() if line]
    return [reading for reading in found if reading["rows"] == rows]


def _gap(figures: Mapping[str, Any]) -> str:
    if "difference" not in figures:
        return ""
    gap = figures["difference"]
    return f"{gap['value']:+.4f} [{gap['low']:+.4f}, {gap['high']:+.4f}]"


FOOT = (
    "Seconds are CPU seconds of one thread, evaluations included, medians of seeds, counted from "
    "the first step; before it: components, a tree's features, once for all trainings. A tree's "
    "parameters are its leaves. Intervals (95 %) resample users and seeds."
)


def to_markdown(summary: dict[str, Any], rows: str, reading: dict[str, Any] | None) -> str:
    """One row a model, the best on valid first; test where it has been read."""
    models = sorted(summary["models"].items(), key=lambda item: -item[1]["valid"]["auc"])
    head = "| | valid AUC | sd of seeds | mmrec less it | CPU s before | to best | in all | rows/s "
    head += "| parameters | settings tried |"
    if reading is not None:
        head += " test AUC | mmrec less it |"
    lines = [f"MovieLens-small, {ROW_SETS[rows]}.", "", head, "|---" * (head.count("|") - 1) + "|"]
    for name, row in models:
        line = _line(name, row)
        if reading is not None:
            test = reading["models"].get(name)
            line += " | |" if test is None else f" {test['auc']:.4f} | {_gap(test)} |"
        lines.append(line)
    lines += ["", FOOT]
    if reading is not None:
        read = reading["models"]
        same = all(read.get(name, {}).get("cells") == row["cells"] for name, row in models)
        end = "." if same else ", of other trainings than these."
        lines += ["", f"Test as read on {reading['date']} at commit {reading['commit']}{end}"]
    return "\n".join(lines) + "\n"


def _line(name: str, row: dict[str, Any]) -> str:
    each = row["valid"]["seeds"]
    spread = statistics.stdev(each) if len(each) > 1 else float("nan")
    rate = "" if row["rows_per_second"] is None else f"{row['rows_per_second']:,.0f}"
    return (
        f"| {NAMES[name]} | {row['valid']['auc']:.4f} | {spread:.4f} | {_gap(row['valid'])} "
        f"| {row['prepare_seconds']:.1f} | {row['best_seconds']:.1f} | {row['seconds']:.1f} "
        f"| {rate} | {row['parameters']:,} | {len(row['draws'])} |"
    )


def plot(summary: dict[str, Any]) -> Figure:
    """Valid AUC against CPU seconds to the best evaluation."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    models = summary["models"].items()
    seconds = [row["best_seconds"] for _, row in models]
    auc = [row["valid"]["auc"] for _, row in models]
    names = [NAMES[name] for name, _ in models]
    label_points(axes, seconds, auc, names, "CPU seconds to the best evaluation, one thread")
    axes.set_ylabel("valid AUC, mean over seeds")
    axes.set_xlim(np.min(seconds) / 1.5, np.max(seconds) * 2.5)
    return figure

"""Pictures of what `fusion.py` found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmrec.io.files import replacing

INK, SOFT, GOOD, BAD = "#1f4e79", "#9aa7b5", "#2e7d32", "#b23b3b"


def plot_all(summary: dict[str, Any], folder: Path, name: str) -> None:
    """`<name>_auc.png`, `_cost.png`; where there is more than the baseline `_difference.png`, too,
    and `_slices.png`."""
    rows = sorted(summary["rows"], key=lambda row: row["auc"]["all"]["value"])
    drawn = {
        "auc": plot_intervals(rows, "auc", "test AUC, 95 % interval", None),
        "cost": plot_cost(rows),
    }
    others = [row for row in rows if row["name"] != summary["baseline"]]
    if others:
        title = f"test AUC less {summary['baseline']}'s, 95 % interval"
        drawn["difference"] = plot_intervals(others, "difference", title, 0.0)
        drawn["slices"] = plot_slices(others, summary["baseline"])
    for kind, figure in drawn.items():
        save(figure, folder / f"{name}_{kind}.png")


def plot_intervals(rows: list[dict[str, Any]], key: str, title: str, zero: float | None) -> Figure:
    """One line a row: value and interval."""
    figure = Figure(figsize=(7, 0.26 * len(rows) + 1.1), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        found = row[key]["all"]
        significant = key == "difference" and row.get("p_adjusted", 1.0) < 0.05
        colour = (GOOD if found["value"] > 0 else BAD) if significant else INK
        axes.plot([found["low"], found["high"]], [place, place], color=colour, lw=1.5)
        axes.plot(found["value"], place, "o", color=colour, ms=4)
    if zero is not None:
        axes.axvline(zero, color=SOFT, lw=0.8)
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows], fontsize=8)
    axes.set_xlabel(title)
    axes.grid(axis="x", lw=0.3)
    return figure


def plot_cost(rows: list[dict[str, Any]]) -> Figure:
    """AUC against parameters of the fusion and against microseconds an item, plain variants."""
    plain = [row for row in rows if row["name"] == row["fusion"]]
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    names = [row["name"] for row in plain]
    for axes, key, title in zip(
        panels,
        ("fusion_parameters", "us_per_item"),
        ("parameters of the fusion", "µs an item, one thread"),
        strict=True,
    ):
        auc = [row["auc"]["all"]["value"] for row in plain]
        label_points(axes, [max(row[key], 0.01) for row in plain], auc, names, title)
    panels[0].set_ylabel("test AUC, mean over seeds")
    return figure


def label_points(axes: Any, x: list[float], y: list[float], names: list[str], title: str) -> None:
    """A dot with its name for each, x on a logarithmic scale."""
    for name, place in zip(names, zip(x, y, strict=True), strict=True):
        axes.plot(*place, "o", color=INK, ms=4)
        axes.annotate(name, place, textcoords="offset points", xytext=(4, 3), fontsize=7)
    axes.set_xscale("log")
    axes.set_xlabel(title)
    axes.grid(lw=0.3)


def save(figure: Figure, path: Path) -> None:
    """As PNG, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def plot_slices(others: list[dict[str, Any]], baseline: str) -> Figure:
    """Difference to the baseline on every slice; coloured where the interval is without zero."""
    keys = [key for key in others[0]["difference"] if key != "all"]
    figure = Figure(figsize=(2.3 * len(keys) + 1.6, 0.24 * len(others) + 1.2), layout="constrained")
    panels = figure.subplots(1, len(keys), sharey=True, squeeze=False)[0]
    for axes, key in zip(panels, keys, strict=True):
        for place, row in enumerate(others):
            found = row["difference"][key]
            sure = found["low"] > 0 or found["high"] < 0
            colour = (GOOD if found["value"] > 0 else BAD) if sure else SOFT
            axes.plot([found["low"], found["high"]], [place, place], color=colour, lw=1.2)
            axes.plot(found["value"], place, "o", color=colour, ms=3)
        axes.axvline(0, color=SOFT, lw=0.8)
        axes.set_title(key, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(axis="x", lw=0.3)
    panels[0].set_yticks(range(len(others)), [row["name"] for row in others], fontsize=7)
    figure.supxlabel(f"AUC less {baseline}'s, 95 % interval", fontsize=8)
    return figure

"""One page of plots of an audit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmrec.errors import InputError
from mmrec.io.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mmrec.audit.report import Report

COLOURS = {"train": "#4c72b0", "valid": "#dd8452", "test": "#55a868"}
GREY = "#777777"


def plot(report: Report, path: str | Path) -> Path:
    """Draw the report's facts on one page.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("plots need matplotlib: pip install 'mmrec[plots]'") from None
    figure = Figure(figsize=(13, 8.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3)
    draws = (_lengths, _columns, _popularity, _rates, _means, _content)
    for draw, axis in zip(draws, axes.flat, strict=True):
        draw(axis, report.facts)
        axis.spines[["top", "right"]].set_visible(False)
    counts = ", ".join(
        f"{sum(f.severity == s for f in report.findings)} {s}"
        for s in ("serious", "warning", "notice")
    )
    figure.suptitle(f"Audit of {Path(report.root).name or report.root}: {counts}")
    path = Path(path)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=90)
    return path


def _lengths(axis: Axes, facts: dict[str, Any]) -> None:
    """Share of rows with at least so many items in the history."""
    for name, counts in facts["shape"]["history lengths"].items():
        some = np.asarray(counts, dtype=float)
        left = some[::-1].cumsum()[::-1] / max(1.0, some.sum())
        axis.plot(np.arange(len(some)), left, color=COLOURS[name], label=name)
    axis.set(
        title="History length", xlabel="items in the history, at least", ylabel="share of rows"
    )
    axis.set_ylim(0, 1.02)
    axis.legend(frameon=False)


def _forest(axis: Axes, measured: dict[str, dict[str, float]], title: str) -> None:
    """Estimates with 95 % intervals, one below the other."""
    names = list(measured)[::-1]
    for place, name in enumerate(names):
        m = measured[name]
        axis.plot([m["low"], m["high"]], [place, place], color=GREY, linewidth=2)
        axis.plot(m["value"], place, "o", color=COLOURS["train"], markersize=5)
    axis.axvline(0.5, color=GREY, linewidth=0.8, linestyle=":")
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set(title=title, xlabel="AUC against the label, 95 % interval")
    axis.margins(y=0.08)
    low, high = axis.get_xlim()
    axis.set_xlim(max(0.0, low), min(1.0, high))


def _columns(axis: Axes, facts: dict[str, Any]) -> None:
    leaks = facts["leaks"]
    measured = {
        **leaks.get("AUC of means, out of fold", {}),
        **leaks.get("AUC of single columns in train", {}),
        **leaks.get("AUC of row order in train", {}),
    }
    if "target in history, train" in leaks:
        measured["target in history"] = leaks["target in history, train"]["AUC"]
    for column, group in leaks.get("levels", {}).items():
        for name, value in group.items():
            if name.startswith("AUC of differing") and name.endswith("train"):
                where = "usual" if "usual" in name else "item_feature"
                measured[f"{column} ≠ {where}"] = value
    _forest(axis, measured, "What knows the label by itself (train)")


def _by_split(facts: dict[str, Any], what: str) -> dict[str, list[float | None]]:
    """Split to its figure in each tenth."""
    rows = list(facts["shift"]["popularity"].values())
    splits = [name.removesuffix(f" {what}") for name in rows[0] if name.endswith(what)]
    return {split: [row[f"{split} {what}"] for row in rows] for split in splits}


def _bars(axis: Axes, groups: dict[str, list[float | None]], title: str, ylabel: str) -> None:
    width = 0.8 / max(1, len(groups))
    for number, (name, values) in enumerate(groups.items()):
        shown = [np.nan if value is None else value for value in values]
        places = np.arange(len(shown)) + (number - (len(groups) - 1) / 2) * width
        axis.bar(places, shown, width, color=COLOURS[name], label=name)
    axis.set_xticks(range(11), [*(str(i) for i in range(1, 11)), "new"])
    axis.set(title=title, xlabel="tenth of train's rows, popular items first", ylabel=ylabel)
    axis.legend(frameon=False)


def _popularity(axis: Axes, facts: dict[str, Any]) -> None:
    groups = _by_split(facts, "share")
    _bars(axis, groups, "Which items are asked about", "share of rows")


def _rates(axis: Axes, facts: dict[str, Any]) -> None:
    groups = _by_split(facts, "positive")
    _bars(axis, groups, "Positive rate by popularity", "positive rate")


def _means(axis: Axes, facts: dict[str, Any]) -> None:
    measured = dict(facts["shift"].get("AUC of item means", {}))
    content = facts["content"].get("AUC of content on valid", {})
    measured |= {name: m for name, m in content.items() if name != "content adds"}
    _forest(axis, measured, "What carries over to valid")


def _content(axis: Axes, facts: dict[str, Any]) -> None:
    """Vector norms, and above them the state of the pictures."""
    content = facts["content"]
    for name, vectors in content.get("vectors", {}).items():
        if "norm counts" in vectors:
            edges = np.asarray(vectors["norm edges"])
            counts = np.asarray(vectors["norm counts"], dtype=float)
            scale = max(vectors["norm q50"], 1e-12)
            axis.stairs(counts / counts.max(), edges / scale, label=f"{name} ({scale:.3g})")
    title = "Vector norms"
    if "images" in content:
        images = content["images"]
        missing = images["missing"] / max(1, images["items"])
        broken = images["broken"] / max(1, images["checked"])
        title += f"\npictures: {missing:.1%} missing, {broken:.1%} broken"
    axis.set(title=title, xlabel="norm / median norm (median in brackets)", ylabel="items, of peak")
    if axis.get_legend_handles_labels()[0]:
        axis.set_ylim(0, 1.25)
        axis.legend(frameon=False, fontsize=8, loc="upper left")

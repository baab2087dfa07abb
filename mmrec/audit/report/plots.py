"""One page of plots of an audit's facts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmrec.audit.checks.shift import TENTHS
from mmrec.audit.checks.statistics import Measured
from mmrec.audit.facts import Facts
from mmrec.errors import InputError
from mmrec.io.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"train": "#4c72b0", "valid": "#dd8452", "test": "#55a868"}
GREY = "#777777"


def plot(facts: Facts, path: str | Path, *, title: str) -> Path:
    """Draw the facts on one page.

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
        draw(axis, facts)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=90)
    return Path(path)


def _lengths(axis: Axes, facts: Facts) -> None:
    """Share of rows with at least so many items in the history."""
    for name, lengths in facts.shape.lengths.items():
        some = np.asarray(lengths, dtype=float)
        left = some[::-1].cumsum()[::-1] / max(1.0, some.sum())
        axis.plot(np.arange(len(some)), left, color=COLOURS[name], label=name)
    axis.set(
        title="History length", xlabel="items in the history, at least", ylabel="share of rows"
    )
    axis.set_ylim(0, 1.02)
    axis.legend(frameon=False)


def _forest(axis: Axes, measured: Mapping[str, Measured | None], title: str) -> None:
    """Estimates with 95 % intervals, one below the other."""
    there = {name: value for name, value in measured.items() if value is not None}
    for place, value in enumerate(reversed(there.values())):
        axis.plot(value.interval(), [place, place], color=GREY, linewidth=2)
        axis.plot(value.value, place, "o", color=COLOURS["train"], markersize=5)
    axis.axvline(0.5, color=GREY, linewidth=0.8, linestyle=":")
    axis.set_yticks(range(len(there)), [*there][::-1], fontsize=8)
    axis.set(title=title, xlabel="AUC against the label, 95 % interval")
    axis.margins(y=0.08)
    low, high = axis.get_xlim()
    axis.set_xlim(max(0.0, low), min(1.0, high))


def _columns(axis: Axes, facts: Facts) -> None:
    measured: dict[str, Measured | None] = {}
    if facts.leaks is not None:
        leaks = facts.leaks
        measured |= {f"means of {name}": mean for name, mean in leaks.means.items()}
        for score in leaks.scores:
            subject = "" if score.subject == "column" else score.subject.replace("_", " ")
            measured[f"{score.column} {subject}".strip()] = score.auc
        measured["target in history"] = leaks.target_in_history.auc
    for one in facts.levels.disagreements:
        if one.split == "train" and one.share:
            measured[f"{one.column} ≠ {one.source}"] = one.auc
    _forest(axis, measured, "What knows the label by itself (train)")


def _bars(
    axis: Axes, groups: Mapping[str, Mapping[str, float | None]], title: str, ylabel: str
) -> None:
    """A bar for each split in each tenth of popularity."""
    width = 0.8 / max(1, len(groups))
    for number, (name, values) in enumerate(groups.items()):
        shown = [np.nan if value is None else value for value in values.values()]
        places = np.arange(len(shown)) + (number - (len(groups) - 1) / 2) * width
        axis.bar(places, shown, width, color=COLOURS[name], label=name)
    axis.set_xticks(range(len(TENTHS)), TENTHS)
    axis.set(title=title, xlabel="tenth of train's rows, popular items first", ylabel=ylabel)
    axis.legend(frameon=False)


def _popularity(axis: Axes, facts: Facts) -> None:
    _bars(axis, facts.shift.popularity, "Which items are asked about", "share of rows")


def _rates(axis: Axes, facts: Facts) -> None:
    _bars(axis, facts.shift.popularity_rate, "Positive rate by popularity", "positive rate")


def _means(axis: Axes, facts: Facts) -> None:
    measured: dict[str, Measured | None] = {}
    if facts.shift.item_means is not None:
        means = facts.shift.item_means
        measured["half of train on the other half"] = means.half_on_other_half
        measured["half of train on valid"] = means.half_on_valid
        measured["train on valid"] = means.train_on_valid
    if facts.content.probe is not None:
        probe = facts.content.probe
        measured |= {"content alone": probe.content, "ids alone (item means)": probe.ids}
        measured |= {"both": probe.both, "content alone, items new to train": probe.new_items}
    _forest(axis, measured, "What carries over to valid")


def _content(axis: Axes, facts: Facts) -> None:
    """Vector norms, and above them the state of the pictures."""
    for name, vectors in facts.content.vectors.items():
        if vectors.items:
            scale = max(vectors.norm_quantiles[1], 1e-12)
            counts = np.asarray(vectors.norm_counts, dtype=float)
            edges = np.asarray(vectors.norm_edges) / scale
            axis.stairs(counts / counts.max(), edges, label=f"{name} ({scale:.3g})")
    title = "Vector norms"
    if facts.content.images is not None:
        images = facts.content.images
        missing = images.missing / max(1, images.items)
        broken = images.broken / max(1, images.checked)
        title += f"\npictures: {missing:.1%} missing, {broken:.1%} broken"
    axis.set(title=title, xlabel="norm / median norm (median in brackets)", ylabel="items, of peak")
    if facts.content.vectors:
        axis.set_ylim(0, 1.25)
        axis.legend(frameon=False, fontsize=8, loc="upper left")

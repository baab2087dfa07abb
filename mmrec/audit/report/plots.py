"""One page of plots of an audit's facts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmrec.audit.checks.content import ContentFacts
from mmrec.audit.checks.shift import TENTHS
from mmrec.audit.checks.statistics import Measured
from mmrec.audit.facts import Facts, TaskFacts
from mmrec.errors import InputError
from mmrec.io.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"train": "#4c72b0", "valid": "#dd8452", "test": "#55a868"}
GREY = "#777777"
MOST_SCORES = 20  # that are legible


def plot(facts: Facts, path: str | Path, *, title: str) -> Path:
    """Draw the facts on one page; of several labels, those of the first.

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
    label, task = next(iter(facts.tasks.items()))
    which = f" {label}" if len(facts.tasks) > 1 else ""
    rates = task.rates.popularity_rate
    _lengths(axes[0, 0], facts.shape.lengths)
    _forest(axes[0, 1], _scores(task), f"What knows the label{which} by itself (train)")
    _bars(axes[0, 2], facts.shift.popularity, "Which items are asked about", "share of rows")
    _bars(axes[1, 0], rates, f"Positive rate{which} by popularity", "positive rate")
    _forest(axes[1, 1], _carried(task), f"What{which} carries over to valid")
    _content(axes[1, 2], facts.content)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=90)
    return Path(path)


def _lengths(axis: Axes, lengths: Mapping[str, list[int]]) -> None:
    """Share of rows with at least so many items in the history."""
    for name, counts in lengths.items():
        left = np.cumsum(counts[::-1])[::-1] / max(1, sum(counts))
        axis.plot(np.arange(len(left)), left, color=COLOURS[name], label=name)
    axis.set(
        title="History length", xlabel="items in the history, at least", ylabel="share of rows"
    )
    axis.set_ylim(0, 1.02)
    axis.legend(frameon=False)


def _forest(axis: Axes, measured: Mapping[str, Measured], title: str) -> None:
    """Estimates with 95 % intervals, one below the other."""
    for place, value in enumerate([*measured.values()][::-1]):
        axis.plot(value.interval(), [place, place], color=GREY, linewidth=2)
        axis.plot(value.value, place, "o", color=COLOURS["train"], markersize=5)
    axis.axvline(0.5, color=GREY, linewidth=0.8, linestyle=":")
    axis.set_yticks(range(len(measured)), [*measured][::-1], fontsize=8)
    axis.set(title=title, xlabel="AUC against the label, 95 % interval")
    axis.margins(y=0.08)
    low, high = axis.get_xlim()
    axis.set_xlim(max(0.0, low), min(1.0, high))


def _scores(task: TaskFacts) -> dict[str, Measured]:
    """Those furthest from 0.5."""
    leaks = task.leaks
    measured = {f"means of {name}": mean for name, mean in leaks.means.items()}
    for score in leaks.scores:
        subject = "" if score.subject in ("column", "id") else score.subject.replace("_", " ")
        measured[f"{score.column} {subject}".strip()] = score.auc
    if leaks.target_in_history is not None:
        measured["target in history"] = leaks.target_in_history.auc
    train = [one for one in task.categories.disagreements if one.split == "train" and one.share]
    measured |= {f"{one.column} ≠ {one.source}": one.auc for one in train}
    telling = sorted(measured, key=lambda name: -abs(measured[name].value - 0.5))[:MOST_SCORES]
    return {name: auc for name, auc in measured.items() if name in telling}


def _carried(task: TaskFacts) -> dict[str, Measured]:
    measured: dict[str, Measured | None] = {}
    if (labels := task.rates.labels) is not None:
        measured = {
            "half of train on the other half": labels.half_on_other_half,
            "half of train on valid": labels.half_on_valid,
            "train on valid": labels.train_on_valid,
        }
    if (probe := task.probe.probe) is not None:
        measured |= {
            "content alone": probe.content,
            "ids alone (item means)": probe.ids,
            "both": probe.both,
            "content alone, items new to train": probe.new_items,
        }
    return {name: value for name, value in measured.items() if value is not None}


def _bars(axis: Axes, groups: Mapping[str, Mapping[str, float]], title: str, ylabel: str) -> None:
    """A bar for each split in each tenth of popularity."""
    width = 0.8 / max(1, len(groups))
    for number, (name, values) in enumerate(groups.items()):
        places = np.arange(len(values)) + (number - (len(groups) - 1) / 2) * width
        axis.bar(places, [*values.values()], width, color=COLOURS[name], label=name)
    axis.set_xticks(range(len(TENTHS)), TENTHS)
    axis.set(title=title, xlabel="tenth of train's rows, popular items first", ylabel=ylabel)
    if groups:
        axis.legend(frameon=False)


def _content(axis: Axes, content: ContentFacts) -> None:
    """Vector norms, and above them the state of the pictures."""
    there = {name: vectors for name, vectors in content.vectors.items() if vectors.items}
    for name, vectors in there.items():
        scale = max(vectors.norm_quantiles[1], 1e-12)
        counts, edges = np.array(vectors.norm_counts), np.array(vectors.norm_edges)
        axis.stairs(counts / counts.max(), edges / scale, label=f"{name} ({scale:.3g})")
    title, images = "Vector norms", content.images
    if images is not None:
        broken = images.broken / max(1, images.checked)
        title += (
            f"\npictures: {images.missing / max(1, images.items):.1%} missing, {broken:.1%} broken"
        )
    axis.set(title=title, xlabel="norm / median norm (median in brackets)", ylabel="items, of peak")
    if there:
        axis.set_ylim(0, 1.25)
        axis.legend(frameon=False, fontsize=8, loc="upper left")

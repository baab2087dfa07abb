"""Pictures of a finished run: training curve and calibration (extra `plots`)."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmrec.errors import InputError, require
from mmrec.io.files import replacing
from mmrec.metrics.calibration import calibration_curve, calibration_error, predicted_over_observed
from mmrec.train.evaluate import Scores
from mmrec.train.state.log import read_log


def plot_run(out: Path, scores: Scores) -> None:
    """The pictures of a run of the example, where matplotlib is installed.

    Args:
        scores: of labelled rows; calibration is drawn once a task.
    """
    if not find_spec("matplotlib"):
        return
    plot_training(out / "ranker")
    for task in scores.tasks:
        of = scores.of_task(task)
        require(of.label is not None, "a calibration needs labels, the scores have none")
        name = "calibration.png" if len(scores.tasks) == 1 else f"calibration_{task}.png"
        plot_calibration(np.asarray(of.label), of.probability, out / name)


def plot_training(out: Path) -> Path:
    """Draw `out/log.jsonl` to `out/training.png`: loss and AUC over epochs.

    Filled points are evaluations, the star the best of them; red lines are steps that were skipped.
    """
    events = read_log(out)
    train = [e for e in events if e["event"] == "train" and e["loss"] is not None]
    valid = [e for e in events if e["event"] == "valid"]
    ranked = [e for e in valid if "auc" in e]
    figure, panels = _figure(2 if ranked else 1)
    losses = panels[0]
    losses.plot(*_over(train, "loss"), lw=1, color="tab:blue", label="train, logged steps")
    _draw_evaluations(losses, valid, "logloss")
    epochs_a_step = valid[-1]["epochs"] / valid[-1]["step"] if valid else 1.0
    for number, event in enumerate(e for e in events if e["event"] == "skipped"):
        named = None if number else "skipped step"
        at = event["step"] * epochs_a_step
        losses.axvline(at, color="tab:red", lw=0.5, alpha=0.5, label=named)
    losses.set(xlabel="epochs", ylabel="logloss", title="logloss")
    if ranked:
        _draw_evaluations(panels[1], ranked, "auc")
        panels[1].set(xlabel="epochs", ylabel="AUC", title="AUC of the validation rows")
    figure.legend(*losses.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return _save(figure, out / "training.png")


def _over(events: list[dict[str, Any]], name: str) -> tuple[list[float], list[float]]:
    return [e["epochs"] for e in events], [e[name] for e in events]


def _draw_evaluations(axes: Any, valid: list[dict[str, Any]], name: str) -> None:
    axes.plot(*_over(valid, name), "o-", ms=3, color="tab:orange", label="valid")
    best = [event for event in valid if event["improved"]][-1:]
    axes.plot(*_over(best, name), "*", ms=11, color="tab:green", label="best checkpoint")


def plot_calibration(
    label: ArrayLike, probability: ArrayLike, path: Path, *, bins: int = 20
) -> Path:
    """Draw click rate against prediction in equal-mass bins; on the diagonal, promises are kept.

    Bars are 95 % intervals of the click rate (Wilson 1927) by the bin's rows.
    """
    predicted, observed, rows = calibration_curve(label, probability, bins=bins)
    error = calibration_error(label, probability, bins=bins)
    ratio = predicted_over_observed(label, probability)
    low, high = _wilson(observed, rows)
    figure, (axes,) = _figure(1)
    top = float(max(predicted.max(), high.max())) * 1.05
    axes.plot([0, top], [0, top], color="gray", lw=0.8, label="as promised")
    bars = [observed - low, high - observed]
    axes.errorbar(predicted, observed, yerr=bars, fmt="o-", ms=4, lw=1, label="bins of equal size")
    axes.set(xlabel="mean prediction", ylabel="click rate", xlim=(0, top), ylim=(0, top))
    axes.set_title(f"calibration error {error:.4f}, predicted/observed {ratio:.3f}")
    figure.legend(loc="outside lower center", ncols=2)
    return _save(figure, path)


def _wilson(rate: NDArray[Any], rows: NDArray[Any], z: float = 1.96) -> tuple[Any, Any]:
    middle = (rate + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * np.sqrt(rate * (1 - rate) / rows + z**2 / (4 * rows**2))
    return np.minimum(middle - half, rate), np.maximum(middle + half, rate)


def _figure(columns: int) -> tuple[Any, list[Any]]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("plots need matplotlib: pip install 'mmrec[plots]'") from error
    figure = Figure(figsize=(5 * columns, 3.6), layout="constrained")  # no global state, no window
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def _save(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    return path

"""Pictures of a finished run: training curve and calibration (extra `plots`)."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

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
    """Draw `out/log.jsonl` to `out/training.png`: loss and AUC by step, skipped steps marked."""
    events = read_log(out)
    train = [e for e in events if e["event"] == "train" and e["loss"] is not None]
    valid = [e for e in events if e["event"] == "valid"]
    skipped = [e["step"] for e in events if e["event"] == "skipped"]
    figure, (losses, ranking) = _figure(2)
    losses.plot([e["step"] for e in train], [e["loss"] for e in train], lw=1, label="train")
    steps = [e["step"] for e in valid]
    losses.plot(steps, [e["logloss"] for e in valid], "o-", ms=3, label="valid")
    for step in skipped:
        losses.axvline(step, color="tab:red", lw=0.5, alpha=0.5)
    losses.set(xlabel="step", ylabel="logloss", title="logloss")
    losses.legend()
    ranking.plot(steps, [e.get("auc") for e in valid], "o-", ms=3, color="tab:orange")
    ranking.set(xlabel="step", ylabel="AUC", title="valid AUC")
    return _save(figure, out / "training.png")


def plot_calibration(
    label: ArrayLike, probability: ArrayLike, path: Path, *, bins: int = 20
) -> Path:
    """Draw click rate against prediction in equal-mass bins; on the diagonal, promises are kept."""
    predicted, observed, _ = calibration_curve(label, probability, bins=bins)
    error = calibration_error(label, probability, bins=bins)
    ratio = predicted_over_observed(label, probability)
    figure, (axes,) = _figure(1)
    top = float(max(predicted.max(), observed.max())) * 1.05
    axes.plot([0, top], [0, top], color="gray", lw=0.8)
    axes.plot(predicted, observed, "o-", ms=4)
    axes.set(xlabel="mean prediction", ylabel="click rate", xlim=(0, top), ylim=(0, top))
    axes.set_title(f"calibration error {error:.4f}, predicted/observed {ratio:.3f}")
    return _save(figure, path)


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

"""The pictures of a run are drawn from its log and scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from toy_training import ToyLoader, ToyModel, toy_config

from mmrec import InputError
from mmrec.analysis.plots import plot_calibration, plot_training
from mmrec.train import fit, score


def test_both_pictures(tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    model, valid = ToyModel(), ToyLoader(101, data_seed=2, shuffle=False)
    fit(model, ToyLoader(), valid, config=toy_config(), out=tmp_path, recipe={})
    scores = score(model, valid, device="cpu")
    assert scores.label is not None
    for path in (
        plot_training(tmp_path),
        plot_calibration(scores.label, scores.probability, tmp_path / "calibration.png"),
    ):
        pixels = image.imread(path)
        assert pixels.shape[0] > 300
        assert len(np.unique(pixels[..., :3].reshape(-1, 3), axis=0)) > 10  # more than a blank page


def test_no_log_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no training log"):
        plot_training(tmp_path)

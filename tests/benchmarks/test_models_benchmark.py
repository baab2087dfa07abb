"""The models that `benchmarks/models.py` compares are what their names say."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import models
import pytest
from cells import Cell, Data, read_data
from sweep import SYNTHETIC, bind

from mmrec.datasets.synthetic import SyntheticConfig, make_synthetic
from mmrec.errors import InputError
from mmrec.models.recipes import Recipe


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    root = tmp_path_factory.mktemp("models")
    rows = (600, 120, 120)
    config = SyntheticConfig(num_items=120, rows=rows, content="features", **SYNTHETIC["pairs"])
    make_synthetic(root, config)
    return read_data(root)


def recipe(name: str) -> Recipe:
    return models.eighth().changed({**models.ROWS[name], "batch_size": 64})


def test_every_other_model_has_fewer_weights_in_its_crosses(data: Data) -> None:
    weights = {name: models.interaction_parameters(recipe(name), data) for name in models.ROWS}
    full = weights.pop(models.BASELINE)
    assert full > 3 * 1136**2  # three full crosses over (17 x 64 + 32 + 16) inputs
    assert all(count < full / 5 for count in weights.values())


def test_rates_are_taken_of_real_steps(data: Data) -> None:
    names = [models.BASELINE, "mean, full"]
    cells = {name: Cell(name, recipe(name)) for name in names}
    rates = models.samples_per_second(cells, data, rounds=5)
    assert 0 < rates[models.BASELINE] < rates["mean, full"]


def test_cells_of_data_written_anew_are_refused_unless_restarted(tmp_path: Path) -> None:
    root, out = tmp_path / "data", tmp_path / "out"
    config = SyntheticConfig(num_items=120, rows=(60, 60, 60), content="features")
    make_synthetic(root, config)
    bind(out, root, restart=False)
    bind(out, root, restart=False)
    (out / "cells").mkdir()
    shutil.rmtree(root)
    make_synthetic(root, dataclasses.replace(config, seed=1))
    with pytest.raises(InputError, match=r"made with another splits: .*; use --restart"):
        bind(out, root, restart=False)
    bind(out, root, restart=True)
    assert not (out / "cells").exists()

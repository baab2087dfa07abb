"""A third modality by the example's command line: a column and a line of the schema."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from mmrec.cli import EXIT_BAD_INPUT, run
from mmrec.data.microlens import MICROLENS
from mmrec.datasets.synthetic import SyntheticConfig, make_synthetic
from mmrec.io.parquet import as_lists
from mmrec.predict.__main__ import main as predict_main

EXAMPLE = Path(__file__).parents[1] / "examples"
COLUMN = "sound"
Go = Callable[..., None]


@pytest.fixture
def go(monkeypatch: pytest.MonkeyPatch) -> Go:
    """Run a command line in this process."""
    monkeypatch.syspath_prepend(str(EXAMPLE))

    def call(*words: object) -> None:
        monkeypatch.setattr(sys, "argv", ["here", *map(str, words)])
        run(import_module("microlens_1m").main if words[0] == "--data" else predict_main)

    return call


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What drives the clicks sounds; image and text are noise."""
    root = tmp_path_factory.mktemp("third") / "data"
    config = SyntheticConfig(num_items=97, rows=(3000, 600, 100), content="features")
    make_synthetic(root, config)
    table, rng = pq.read_table(root / "features.parquet"), np.random.default_rng(0)
    driving = [np.array(table[name].to_pylist()) for name in MICROLENS.items.modalities.values()]
    for name, old in zip(MICROLENS.items.modalities.values(), driving, strict=True):
        noise = as_lists(rng.normal(size=old.shape).astype(np.float32))
        table = table.set_column(table.column_names.index(name), name, noise)
    sounds = as_lists(np.concatenate(driving, axis=1).astype(np.float32))
    table = table.append_column(COLUMN, sounds)
    pq.write_table(table, root / "features.parquet")
    with_line(root, "audio", COLUMN)
    return root


def with_line(root: Path, name: str, column: str) -> None:
    """The schema with one more line."""
    schema = MICROLENS.to_dict()
    schema["items"]["modalities"][name] = column
    (root / "schema.json").write_text(json.dumps(schema))


def train(go: Go, data: Path, out: Path, *more: str) -> dict[str, Any]:
    settings = {"training.epochs": 3, "batch_size": 64, "items.id_dim": 0, "items.tag_dim": 0}
    settings |= {"context.wide": "false", "training.learning_rate": 0.01}
    given = [f"--set={name}={value}" for name, value in settings.items()]
    go("--data", data, "--out", out, "--quiet", "--no-audit", "--no-ablation", *given, *more)
    found: dict[str, Any] = json.loads((out / "diagnosis.json").read_text())["label"]
    return {c["name"]: c["lost"]["value"] for c in found["contributions"]} | {
        "auc": found["auc"]["value"]
    }


def test_a_column_and_a_line_make_a_modality(go: Go, data: Path, tmp_path: Path) -> None:
    found = train(go, data, tmp_path / "three")
    lost = [found[f"{name} permuted"] for name in ("audio", "image", "text")]
    assert lost[0] > 0.03 + max(lost[1:])
    without = train(go, data, tmp_path / "two", *two_vectors())
    assert "audio permuted" not in without
    assert without["auc"] < found["auc"] - 0.03
    go(tmp_path / "three", "--data", data, "--out", tmp_path / "again", "--column", "p")
    first, again = (pd.read_csv(tmp_path / p / "prediction.csv") for p in ("three", "again"))
    np.testing.assert_allclose(again["p"], first["label"], atol=1e-6)


def two_vectors() -> list[str]:
    """Options that name image and text alone."""
    both = MICROLENS.items.modalities.items()
    return [word for name, column in both for word in ("--vectors", f"{name}={column}")]


@pytest.mark.parametrize(
    ("vectors", "sentence"),
    [
        ("audio", "an option reads NAME=VALUE, got 'audio'"),
        ("audio=noise", "one column noise is needed, got 0 among the columns"),
        ("type=sound", "not like a member of nn.Module, got 'type'"),
        ("image=item_id", "of its own, that of image is 'item_id', the id"),
        ("audio=has_image", "has_image"),
    ],
)
def test_a_wrong_modality_is_one_sentence(
    vectors: str, sentence: str, go: Go, data: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with pytest.raises(SystemExit) as left:
        go("--data", data, "--out", tmp_path / "out", "--vectors", vectors, "--no-audit")
    said = capsys.readouterr().err
    assert left.value.code == EXIT_BAD_INPUT
    assert sentence in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out" / "ranker").exists()


def test_a_modality_that_no_file_has_is_one_sentence(
    go: Go, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in data.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "schema.json").unlink()
    with_line(tmp_path, "smell", "odour")
    for words in (("--data", tmp_path), (tmp_path / "none", "--data", tmp_path)):
        with pytest.raises(SystemExit) as left:
            go(*words, "--out", tmp_path / "out")
        assert left.value.code == EXIT_BAD_INPUT
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        if words[0] == "--data":
            assert "one column odour is needed, got 0" in said

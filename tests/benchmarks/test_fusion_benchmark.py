"""`benchmarks/fusion.py` as it is run: killed and resumed, and with a fusion of one's own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cells
import fusion
import pyarrow.parquet as pq
import pytest
import sweep

from mmrec.data.clicks import ClickData
from mmrec.datasets.synthetic import SyntheticConfig, make_synthetic
from mmrec.errors import InputError
from mmrec.models import build_ranker

ROOT = Path(__file__).parents[2]

GUIDE = (ROOT / "docs" / "guides" / "fusion.md").read_text()
(OWN,) = [code for code in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL) if "class " in code]


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "fusion.py"), *more]
    command += ["--out", str(folder / "out"), "--jobs", "1"]
    command += ["--results", str(folder / "results"), "--images", str(folder / "img")]
    command += ["--seeds", "2", "--epochs", "1", "--rates", "3e-3"]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@pytest.mark.timeout(400)
def test_killed_and_run_again_it_repeats_no_finished_cell(tmp_path: Path) -> None:
    (tmp_path / "my_fusions.py").write_text(OWN)
    what = ["--synthetic", "pairs", "--items", "200", "--train-rows", "2400"]
    what += ["--variants", "concat", "maximum", "--import", "my_fusions"]
    what += ["--options", "plain", "--controls", "no content"]
    cells = tmp_path / "out" / "cells"
    first = start(tmp_path, *what)
    try:
        deadline = time.monotonic() + 180
        while len(list(cells.glob("*.json"))) < 2:
            assert first.poll() is None, first.stderr.read() if first.stderr else ""
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.communicate()
    before = {path.name: path.stat().st_mtime_ns for path in cells.glob("*.json")}
    again = start(tmp_path, *what)
    said, errors = again.communicate(timeout=200)
    assert again.returncode == 0, errors
    after = {path.name: path.stat().st_mtime_ns for path in cells.glob("*.json")}
    assert len(after) == 6  # three rows, two seeds
    assert {name: after[name] for name in before} == before
    assert [path for path in cells.iterdir() if path.is_dir()] == []
    found = json.loads((tmp_path / "results" / "fusion.json").read_text())
    assert {row["name"] for row in found["rows"]} == {"concat", "maximum", "no content"}
    assert "| maximum |" in said
    assert (tmp_path / "results" / "fusion.md").read_text() in said


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "name either a directory of data or --synthetic, one of the two"),
        (
            ["here", "--synthetic", "pairs"],
            "name either a directory of data or --synthetic, one of the two",
        ),
        (
            ["nowhere", "--variants", "concat"],
            "a data directory is needed, there is none at nowhere",
        ),
        (
            ["here", "--import", "no_such_module"],
            "--import no_such_module failed: No module named 'no_such_module'; modules are looked "
            "for in {here} and on PYTHONPATH",
        ),
    ],
)
def test_bad_input_is_one_sentence(tmp_path: Path, options: list[str], sentence: str) -> None:
    given = start(tmp_path, *options)
    _, errors = given.communicate(timeout=120)
    assert given.returncode == 2
    assert errors.strip().splitlines()[-1] == f"error: {sentence.format(here=tmp_path)}"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fusion") / "data"
    make_synthetic(root, SyntheticConfig(num_items=60, rows=(120, 60, 60), content="features"))
    return root


def test_every_fusion_option_and_control_gives_a_ranker(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["fusion.py", str(data)])
    given = fusion.parse()
    base, read = fusion.base_recipe(given), cells.read_data(data)
    rows = fusion.plan(given)
    assert {"concat, by logloss", "gmu", *fusion.CONTROLS} <= set(rows)
    found = {
        name: sweep.cell(name, change, base, given, rate=0.01, seed=0)
        for name, change in rows.items()
    }
    # Each differs from the baseline in what it says, not in its name alone.
    assert len({cell.key.rpartition("-")[2] for cell in found.values()}) == len(rows)
    assert found["concat, by logloss"].recipe.training.monitor == "logloss"
    assert {cell.recipe.training.learning_rate for cell in found.values()} == {0.01}
    for cell in found.values():
        build_ranker(cell.recipe, read.items, read.inputs)


def test_several_labels_are_refused_before_any_training(data: Path, tmp_path: Path) -> None:
    root = tmp_path / "two"
    shutil.copytree(data, root)
    schema = ClickData.open(root).schema.to_dict()
    (name,) = schema["clicks"]["labels"]
    schema["clicks"]["labels"] = [name, "bought"]
    (root / "schema.json").write_text(json.dumps(schema))
    for split in [*root.rglob("train.parquet"), *root.rglob("valid.parquet")]:
        table = pq.read_table(split)
        pq.write_table(table.append_column("bought", table[name]), split)
    with pytest.raises(InputError, match=f"is for one label, .* names {name}, bought: leave one"):
        cells.read_data(root)

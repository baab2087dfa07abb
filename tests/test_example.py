"""The whole pipeline as a user runs it: to the end, killed and run again, and with bad input."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from slow_variants import thorough

from mmrec import Schema
from mmrec.cli import run
from mmrec.data.microlens import MICROLENS
from mmrec.datasets.synthetic import SyntheticConfig, make_synthetic
from mmrec.embed.tiny import TINY_CONFIG, make_model, save_model
from mmrec.io.files import write_json
from mmrec.predict.__main__ import main as predict_main
from mmrec.train import load_checkpoint

SCRIPT = Path(__file__).parents[1] / "examples" / "microlens_1m.py"
ROWS = {"train": 1500, "valid": 400, "test": 300}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set, and a small CLIP with random weights under `clip/`."""
    root = tmp_path_factory.mktemp("source")
    sizes = (ROWS["train"], ROWS["valid"], ROWS["test"])
    make_synthetic(root / "data", SyntheticConfig(num_items=97, rows=sizes, history_length=11))
    save_model(make_model(TINY_CONFIG), TINY_CONFIG, root / "clip")
    return root


def command(source: Path, out: Path, *more: str) -> list[str]:
    files = ["--data", str(source / "data"), "--out", str(out)]
    clip = ["--model", str(source / "clip" / "model.json")]
    clip += ["--pretrained", str(source / "clip" / "model.safetensors")]
    settings = ["training.epochs=2", "batch_size=128"]
    quick = [*(f"--set={setting}" for setting in settings), "--workers", "0", "--quiet"]
    return [sys.executable, str(SCRIPT), *files, *clip, *quick, *more]


def metrics(out: Path) -> dict[str, Any]:
    """All of metrics.json but what differs from run to run."""
    found: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    del found["seconds"], found["files"], found["recipe"]["training"]["save_every_seconds"]
    del found["command"], found["mebibytes"]
    return found


@pytest.fixture(scope="module")
def finished(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "out"
    said = subprocess.run(command(source, out), capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert "valid, ranker" in said.stdout
    return out


def test_metrics_hold_the_promised_keys(finished: Path) -> None:
    found = json.loads((finished / "metrics.json").read_text())
    assert found["rows"] == ROWS
    assert found["parameters"] > 1000
    assert set(found["valid"]) == {"auc", "logloss"}
    assert set(found["tasks"]) == {"label"}
    of = found["tasks"]["label"]
    assert set(of) == {"ranker", "no_content", "item_mean"}  # users are new in valid
    assert all(set(some) == {"auc", "auc_unseen_items"} for some in of.values())
    assert of["ranker"]["auc"] == pytest.approx(found["valid"]["auc"])
    assert 0 <= of["ranker"]["auc_unseen_items"] <= 1
    assert Schema.from_dict(found["schema"]) == MICROLENS
    assert found["command"][1:3] == [str(SCRIPT), "--data"]
    assert {"python", "torch", "mmrec"} <= set(found["versions"])
    assert set(found["oracle"]) == {"auc", "logloss"}
    assert all(Path(path).is_file() for path in found["files"].values())
    assert {"embed", "train", "predict"} <= set(found["seconds"])


def test_every_test_row_is_predicted_once_in_order(finished: Path) -> None:
    rows = list(csv.DictReader((finished / "prediction.csv").read_text().splitlines()))
    assert [int(row["ID"]) for row in rows] == list(range(ROWS["test"]))
    values = np.array([float(row["Task1&2"]) for row in rows])
    assert ((values > 0) & (values < 1)).all()
    assert len(np.unique(values)) > 200
    with zipfile.ZipFile(finished / "prediction.zip") as archive:
        assert archive.namelist() == ["prediction.csv"]
        assert archive.read("prediction.csv") == (finished / "prediction.csv").read_bytes()


def test_artifacts_load_in_pandas_with_128_dimensions(finished: Path) -> None:
    items = pd.read_parquet(finished / "custom_item_embeddings.parquet")
    info = pd.read_parquet(finished / "item_info.parquet")
    assert items["item_id"].tolist() == list(range(1, 98))
    assert info["item_id"].tolist() == list(range(98))
    assert info.iloc[5]["item_emb_d128"].shape == (128,)
    np.testing.assert_allclose(
        info.iloc[5]["item_emb_d128"], items.iloc[4]["item_emb_d128"], rtol=1e-6
    )
    assert np.stack(items["item_emb_d128"]).std(axis=0).min() > 0


def test_the_same_command_again_changes_nothing(source: Path, finished: Path) -> None:
    before = (finished / "prediction.csv").read_bytes(), metrics(finished)
    subprocess.run(command(source, finished, "--no-audit"), check=True, capture_output=True)
    assert ((finished / "prediction.csv").read_bytes(), metrics(finished)) == before


def _embedding(out: Path) -> bool:
    return (out / "features").is_dir()


def _some_checkpoint(out: Path) -> bool:
    return len(list((out / "ranker" / "checkpoints").glob("*.json"))) > 0


@pytest.mark.parametrize("moment", [thorough(_embedding), _some_checkpoint])
def test_killed_and_run_again_gives_the_undisturbed_result(
    source: Path, finished: Path, tmp_path: Path, moment: Callable[[Path], bool]
) -> None:
    out = tmp_path / "out"
    run = command(source, out, "--set", "training.save_every_seconds=0.01", "--no-audit")
    child = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 120
    while not moment(out) and child.poll() is None and time.monotonic() < limit:
        time.sleep(0.002)
    assert child.poll() is None, "it ended before it could be killed"
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (out / "metrics.json").exists()
    subprocess.run(run, check=True, capture_output=True)
    assert metrics(out) == metrics(finished)
    assert (out / "prediction.csv").read_bytes() == (finished / "prediction.csv").read_bytes()


def _damaged(
    source: Path, tmp_path: Path, name: str, change: Callable[[pa.Table], pa.Table]
) -> Path:
    data = tmp_path / "data"
    shutil.copytree(source / "data", data)
    path = data / "MicroLens_1M_x1" / f"{name}.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    return data


def refused(arguments: list[str], *words: str) -> None:
    said = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert said.returncode == 2, said.stderr
    assert "Traceback" not in said.stderr
    lines = [line for line in said.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, said.stderr
    for word in words:
        assert word in lines[0], lines[0]


@pytest.fixture
def refused_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., None]:
    """`refused` in this process: most of a process of its own is importing torch."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))

    def check(arguments: list[str], *words: str) -> None:
        monkeypatch.setattr(sys, "argv", arguments[1:])
        with pytest.raises(SystemExit) as left:
            run(import_module("microlens_1m").main)
        assert left.value.code == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
        assert len(lines) == 1, lines
        for word in words:
            assert word in lines[0], lines[0]

    return check


def test_wrong_paths_are_one_sentence(source: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    start = [sys.executable, str(SCRIPT), "--out", out, "--no-audit", "--data"]
    refused([*start, str(tmp_path / "nowhere")], "there is none at", "nowhere")
    (tmp_path / "empty").mkdir()
    refused(
        [*start, str(tmp_path / "empty")],
        "train, valid, test and item_info.parquet",
        "found nothing",
    )
    assert not (tmp_path / "out" / "prediction.csv").exists()


def test_bad_files_are_one_sentence(
    source: Path, tmp_path: Path, refused_here: Callable[..., None]
) -> None:
    out = str(tmp_path / "out")
    start = [sys.executable, str(SCRIPT), "--out", out, "--no-audit", "--data"]
    text = tmp_path / "text"
    shutil.copytree(source / "data", text)
    (text / "MicroLens_1M_x1" / "train.parquet").write_text("user,item\n1,2\n")
    refused_here([*start, str(text)], "train.parquet")
    cases: list[tuple[str, Callable[[pa.Table], pa.Table], str]] = [
        ("valid", lambda t: t.drop_columns(["likes_level"]), "likes_level"),
        ("train", lambda t: _set(t, "item_id", 7, 5000), "row 7"),
        ("train", lambda t: _all(t, "label", 1), "label"),
    ]
    for number, (name, change, word) in enumerate(cases):
        data = _damaged(source, tmp_path / str(number), name, change)
        refused_here([*start, str(data)], f"{name}.parquet", word)


def test_bad_encoders_and_places_are_one_sentence(
    source: Path, tmp_path: Path, refused_here: Callable[..., None]
) -> None:
    start = [sys.executable, str(SCRIPT), "--no-audit", "--data", str(source / "data")]
    out = ["--out", str(tmp_path / "out")]
    refused_here([*start, *out, "--model", "no-such-model"], "no-such-model")
    (tmp_path / "weights.pt").write_text("these are no weights")
    model = ["--model", str(source / "clip" / "model.json")]
    model += ["--pretrained", str(tmp_path / "weights.pt")]
    refused_here([*start, *out, *model], "weights.pt")
    (tmp_path / "file").write_text("")
    refused_here([*start, "--out", str(tmp_path / "file" / "out")], "file")
    refused_here([*start, "--out", "/proc/out"], "/proc/out")
    mine = tmp_path / "mine" / "data" / "clicks.csv"
    mine.parent.mkdir(parents=True)
    mine.touch()
    alone = [sys.executable, str(SCRIPT), "--restart", "--out", str(tmp_path / "mine")]
    refused_here(alone, "holds other files")
    assert mine.exists()
    settings = {
        "batch_size=0": "batch_size must be a whole number of at least 1, got 0",
        "training.epochs=0": "epochs must be a whole number of at least 1, got 0",
        "items.pretrain_epochs=-1": "pretrain_epochs must be a whole number of at least 0, got -1",
        "items.fusion=no": "fusion must be one of",
        "history.encoder=no": "history.encoder must be one of",
        "no.such=1": "no holds no settings",
    }
    for setting, sentence in settings.items():
        refused_here([*start, *out, "--set", setting], sentence)


def test_another_seed_in_the_same_place_is_refused_and_restart_begins_anew(
    source: Path, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    alone = "--no-audit", "--no-ablation", "--no-diagnosis"
    shutil.copytree(finished, out)
    refused(command(source, out, "--seed", "5"), "seed was 0 and is 5")
    before = metrics(out)
    shards = {path: path.stat().st_mtime_ns for path in (out / "features").glob("*.parquet")}
    subprocess.run(
        command(source, out, "--seed", "5", "--restart", *alone), check=True, capture_output=True
    )
    assert metrics(out)["valid"] != before["valid"]
    assert shards  # what the encoder made of the same pictures does not depend on the seed
    assert {path: path.stat().st_mtime_ns for path in shards} == shards


def test_a_batch_size_found_is_kept_for_the_continued_run(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    quick = ["--set", "batch_size=none", "--set", "training.epochs=1"]
    run = command(source, out, *quick, "--no-audit", "--no-ablation", "--no-diagnosis")

    def batch_size() -> tuple[Any, str]:
        said = subprocess.run(run, capture_output=True, text=True, check=False)
        assert said.returncode == 0, said.stderr
        trained = load_checkpoint(out / "ranker").content["training data"]["batch_size"]
        assert json.loads((out / "batch_size.json").read_text()) == {"batch_size": trained}
        return trained, said.stdout

    size, said = batch_size()
    assert size == 512  # the recipe's: a CPU refuses no memory and is asked for no more
    assert "batch size: 512 rows, the largest that fit" in said
    shutil.rmtree(out / "ranker")
    write_json(out / "batch_size.json", {"batch_size": 96})  # as on a card that holds no more
    size, said = batch_size()
    assert size == 96
    assert "batch size: 96 rows, as found at the start" in said


def _set(table: pa.Table, column: str, row: int, value: int) -> pa.Table:
    values = table[column].to_pylist()
    values[row] = value
    return table.set_column(table.column_names.index(column), column, pa.array(values))


def _all(table: pa.Table, column: str, value: int) -> pa.Table:
    values = pa.array([value] * table.num_rows)
    return table.set_column(table.column_names.index(column), column, values)


def test_two_stages_predict_again_and_are_trained_on(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    out, more = tmp_path / "one", ["--set=items.pretrain_epochs=1", "--set=training.epochs=1"]
    more += ["--no-audit", "--no-ablation", "--no-diagnosis"]

    def go(main: Callable[[], None], *words: object) -> None:
        monkeypatch.setattr(sys, "argv", ["here", *map(str, words)])
        run(main)

    example = import_module("microlens_1m").main
    go(example, *command(source, out, *more)[2:])
    go(predict_main, out, "--data", source / "data", "--out", tmp_path / "again", "--column", "p")
    first, again = (pd.read_csv(place / "prediction.csv") for place in (out, tmp_path / "again"))
    np.testing.assert_allclose(again["p"], first["Task1&2"], atol=1e-6)
    go(example, *command(source, tmp_path / "two", *more, "--continue-from", str(out))[2:])
    start = load_checkpoint(tmp_path / "two" / "ranker").recipe["inputs"]["start"]
    assert start == load_checkpoint(out / "ranker").content["tensors"]["sha256"]
    fusion = "pretrained/fusion.safetensors"
    assert (tmp_path / "two" / fusion).read_bytes() == (out / fusion).read_bytes()

"""`mmrec COMMAND`: each leads where its `python -m` leads, and a run goes from one to the next."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest
import torch
from shop import make_shop

import mmrec
from mmrec.__main__ import COMMANDS, main
from mmrec.cli import run
from mmrec.nn import FUSIONS
from mmrec.train import load_checkpoint

EXPECTED = ["prepare", "audit", "embed", "train", "predict", "serve", "export", "repack"]


def said(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    main([str(word) for word in words])
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What a command says that leaves with code 2."""
    with pytest.raises(SystemExit) as left:
        run(lambda: main([str(word) for word in words]))
    assert left.value.code == 2
    return capsys.readouterr().err


def test_alone_it_lists_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    listed = said(capsys)
    assert listed == said(capsys, "--help")
    assert [line.split()[0] for line in listed.splitlines()[2:]] == EXPECTED == list(COMMANDS)
    assert said(capsys, "--version") == f"mmrec {mmrec.__version__}\n"


@pytest.mark.parametrize("name", EXPECTED)
def test_each_hands_its_arguments_to_a_main(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, given = import_module(COMMANDS[name][0]), []

    def heard(arguments: Sequence[str]) -> None:
        given.append(arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, "main", heard)
        main([name, "--out", "OUT"])
    assert given == [["--out", "OUT"]]
    # Its own parser reads them: nothing of the command line of this process.
    with pytest.raises(SystemExit) as left:
        main([name, "--no-such-option"])
    assert left.value.code == 2
    assert name in capsys.readouterr().err.split("usage: ")[1].splitlines()[0]


def test_a_mistake_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(capsys, "fit").count("\n") == 1
    assert "got 'fit'" in refused(capsys, "fit")
    nowhere = refused(capsys, "train", "--data", tmp_path / "no", "--out", tmp_path / "run")
    assert nowhere.startswith("error: ")
    assert nowhere.count("\n") == 1
    wrong = ("--data", tmp_path, "--out", tmp_path / "run", "--set", "items.fusion=odd")
    assert "got 'odd'" in refused(capsys, "train", *wrong)
    assert not (tmp_path / "run").exists()
    assert "NAME.pt2 or NAME.onnx" in refused(capsys, "export", tmp_path, tmp_path / "a.txt")
    (tmp_path / "b.pt2").mkdir()
    (tmp_path / "c.pt2.json").mkdir()
    for name in ("b.pt2", "c.pt2", "d/e.pt2/"):
        told = refused(capsys, "export", tmp_path / "no_run", f"{tmp_path}/{name}")
        assert "a file is needed to write to" in told
    monkeypatch.setitem(COMMANDS, "prepare", ("mmrec_no_such_package", ""))
    assert "needs the package mmrec_no_such_package" in refused(capsys, "prepare")


def test_train_knows_parts_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a module in the folder that one stands in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    before = dict(FUSIONS)
    Path("my_concat.py").write_text(
        "from mmrec.nn.fusion import FUSIONS, ConcatFusion\n\nFUSIONS['mine'] = ConcatFusion\n"
    )
    train = ["train", "--data", make_shop(tmp_path / "shop", (300, 100, 100)), "--out", "run"]
    train += ["--device", "cpu", "--quiet", "--set", "training.epochs=1"]
    train += ["--set", "items.fusion=mine", "--import"]
    assert "No module named 'not_mine'; modules are" in refused(capsys, *train, "not_mine")
    assert not Path("run").exists()
    try:
        assert "--out SCORED --import my_concat" in said(capsys, *train, "my_concat")
        FUSIONS.pop("mine"), sys.modules.pop("my_concat")
        score = ["predict", "run", "--data", train[2], "--out", "scored", "--device", "cpu"]
        assert "fusion must be one of" in refused(capsys, *score)
        assert "prediction.csv" in said(capsys, *score, "--import", "my_concat")
    finally:
        FUSIONS.clear()
        FUSIONS.update(before)
        sys.modules.pop("my_concat", None)


def test_the_help_calls_a_command_as_it_was_started() -> None:
    words = [sys.executable, "-m", "mmrec", "predict", "--help"]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert told.startswith("usage: mmrec predict ")


@pytest.mark.parametrize("end", ["pass", "sys.exit(1)"])
@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_closed_stdout_ends_in_silence(lines: int, end: str) -> None:
    """Of few lines, which Python writes at the end, and of more than a pipe holds."""
    main = f"def main(): print('x\\n' * {lines}); {end}"
    code = f"import sys; from mmrec.cli import run\n{main}\nrun(main)"
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-c", code]
    left = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (left.returncode, left.stderr) == (141, "")


def test_a_broken_pipe_of_ones_own_is_told() -> None:
    code = (
        "from mmrec.cli import run\ndef main(): raise BrokenPipeError(32, 'Broken pipe')\nrun(main)"
    )
    left = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (left.returncode, left.stdout) == (2, "")
    assert "Broken pipe" in left.stderr


def test_from_a_data_set_to_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shop, out = make_shop(tmp_path / "shop", (900, 300, 200)), tmp_path / "run"
    train = ["train", "--data", shop, "--out", out, "--device", "cpu", "--quiet", "--tensorboard"]
    train += ["--set", "training.epochs=1", "--set", "batch_size=128"]
    assert "next: mmrec predict" in said(capsys, *train)
    assert {"rows", "valid", "recipe", "versions"} <= set(
        json.loads((out / "metrics.json").read_text())
    )
    assert list((out / "tensorboard").glob("events.*"))
    steps = load_checkpoint(out / "ranker", "last").step
    said(capsys, *train[:-4], "--set", "training.epochs=2", "--set", "batch_size=128")  # resumes
    assert load_checkpoint(out / "ranker", "last").step == 2 * steps

    said(capsys, "predict", out, "--data", shop, "--out", tmp_path / "scored")
    assert len(pd.read_csv(tmp_path / "scored" / "prediction.csv")) == 200
    # No mistake costs the run, also where it is to begin anew; nor is it continued in its place.
    mistakes = {
        "nowhere": ("--features", tmp_path / "nowhere"),
        "odd": ("--vectors", "image=odd"),
        "device must be": ("--device", "tpu"),
        "got 'no'": ("--set", "training.monitor=no/auc"),
        "another folder than its own": ("--continue-from", out),
    }
    for word, mistake in mistakes.items():
        assert word in refused(capsys, *train, *mistake, "--restart")
        assert load_checkpoint(out / "ranker", "last").step == 2 * steps
    (tmp_path / "full" / "prediction.csv").mkdir(parents=True)
    score = ["predict", out, "--data", shop, "--device", "cpu", "--out"]
    with monkeypatch.context() as patch:  # all of it before a row is scored
        patch.delattr(import_module("mmrec.predict.__main__"), "predict")
        for words, sentence in (
            ([shop / "test.parquet"], "a folder is needed to write to"),
            ([tmp_path / "full"], "prediction.csv is a folder"),
            (["a", "--column", "p", "q", "r"], "2 prediction columns need names of their own"),
            (["a", "--column", "p", "request"], "give --column (columns) 2 different names"),
            (["a", "--precision", "float16"], "float16 needs CUDA"),
        ):
            assert sentence in refused(capsys, *score, *words)
    rows = ["--rows", shop / "test.parquet", "--items", shop / "item_info.parquet"]
    told = refused(capsys, "predict", out, *rows, "--split", "valid", "--out", "a")
    assert "got --split valid" in told
    program = tmp_path / "ranker.pt2"
    assert str(program) in said(capsys, "export", out, program, "--form", "user")
    inputs = json.loads(Path(f"{program}.json").read_text())["inputs"]
    assert inputs[0]["name"] == "history"
    assert torch.export.load(program) is not None


def test_two_stages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The fusion first, then the ranker; predict finds both."""
    shop, out = make_shop(tmp_path / "shop", (900, 300, 200)), tmp_path / "run"
    settings = ("training.epochs=1", "items.pretrain_epochs=1", "items.content_dim=16")
    words = [word for setting in settings for word in ("--set", setting)]
    said(capsys, "train", "--data", shop, "--out", out, "--device", "cpu", "--quiet", *words)
    assert list((out / "pretrained").iterdir())
    said(capsys, "predict", out, "--data", shop, "--out", tmp_path / "scored")
    assert (tmp_path / "scored" / "prediction.zip").exists()

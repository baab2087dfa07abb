"""Bad values for everything public: one sentence, no traceback, no hang, nothing half-written."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mmrec import FUSIONS, InputError, ParquetStream, TrainConfig, make_loader, write_submission
from mmrec.cli import EXIT_BAD_INPUT, run
from mmrec.config import Speed
from mmrec.datasets.synthetic import SyntheticConfig
from mmrec.metrics import auc, bootstrap, calibration_curve, gauc, logloss
from mmrec.models import Recipe, Wide, small
from mmrec.nn import (
    MLP,
    CategoricalEncoder,
    CrossNetLowRank,
    CrossNetMix,
    CrossNetV2,
    DINAttention,
    LinearNumbers,
    MeanPool,
    PeriodicNumbers,
    ReluAttention,
    SimTier,
    TargetTransformer,
    UserEncoder,
    Vocabulary,
)
from mmrec.schema import Categorical
from mmrec.stream.repack import repack

NAN, INF = math.nan, math.inf
SIZES = (0, -1, 1.5, "4", None, NAN, True)  # for what must be a whole number of at least 1
COUNTS = (-1, 1.5, "4", None, NAN, True)  # of at least 0
CHANCES = (-0.1, 1.0, 2, NAN, INF, "0.5", None)  # in [0, 1)
RATES = (-1.0, NAN, INF, "1", None)  # finite, 0 or more
LABELS = np.array([0.0, 1.0, 1.0])

VOCABULARY = Vocabulary(torch.arange(3))
TABLE: list[tuple[Callable[..., Any], dict[str, Any], dict[str, tuple[Any, ...]]]] = [
    (MLP, {"in_dim": 3, "hidden": (4,)}, {"in_dim": SIZES, "dropout": CHANCES}),
    (CrossNetV2, {"dim": 3, "depth": 2}, {"dim": SIZES, "depth": SIZES}),
    (
        CrossNetLowRank,
        {"dim": 3, "depth": 2, "rank": 2},
        {"dim": SIZES, "depth": SIZES, "rank": SIZES},
    ),
    (
        CrossNetMix,
        {"dim": 3, "depth": 2, "rank": 2, "num_experts": 2},
        {"dim": SIZES, "rank": SIZES, "num_experts": SIZES},
    ),
    (DINAttention, {"dim": 3}, {"dim": SIZES}),
    (MeanPool, {"dim": 3}, {"dim": SIZES}),
    (ReluAttention, {"dim": 4}, {"dim": SIZES, "heads": SIZES}),
    (
        TargetTransformer,
        {"dim": 4},
        {"dim": SIZES, "layers": SIZES, "heads": SIZES, "ff_dim": SIZES, "last": COUNTS,
         "dropout": CHANCES, "positions": COUNTS},
    ),
    (SimTier, {}, {"tiers": SIZES}),
    (UserEncoder, {"num_users": 3, "dim": 2}, {"num_users": SIZES, "dim": SIZES,
                                             "dropout": CHANCES}),
    (Wide, {"num_items": 3}, {"num_items": SIZES, "num_users": COUNTS, "tasks": SIZES}),
    (CategoricalEncoder, {"columns": [VOCABULARY], "dim": 2}, {"dim": SIZES}),
    (LinearNumbers, {"mean": [0.0], "std": [1.0], "dim": 2}, {"dim": SIZES}),
    (
        PeriodicNumbers,
        {"mean": [0.0], "std": [1.0], "dim": 2},
        {"dim": SIZES, "frequencies": SIZES},
    ),
    (Categorical, {"name": "a"}, {"min_count": SIZES, "hash_size": SIZES[:3], "limit": SIZES[:3]}),
    (
        TrainConfig,
        {},
        {"epochs": SIZES, "learning_rate": RATES, "weight_decay": RATES, "accumulate": SIZES,
         "log_every": SIZES, "keep_last": SIZES, "max_bad_steps": SIZES, "warmup_steps": COUNTS,
         "ema_decay": (0.0, 1.0, -1, NAN, "x"), "monitor": ("", "f1", "a/b", None, 3),
         "schedule": ("", "x", None), "precision": ("fp8", "", None),
         "clip_norm": (0, -1.0, NAN, "x"), "patience": (0, -1, "x"), "eps": RATES,
         "save_every_seconds": (-1.0, NAN, "x"),
         "seed": (-1.5, "x", None, NAN, 2**64, -(2**63) - 1)},
    ),
    (Speed, {}, {"workers": COUNTS}),
    (
        SyntheticConfig,
        {},
        {"num_items": (*SIZES, 3), "rows_per_user": SIZES, "history_length": SIZES,
         "content": ("", "x", None), "unseen_share": (-0.1, 1.0, NAN, "x")},
    ),
    (Recipe, {}, {"batch_size": (0, -1, 1.5, "x", NAN)}),
    (
        lambda **values: small().changed({n.replace("__", "."): v for n, v in values.items()}),
        {},
        {"items__id_dim": (-1, 1.5, "x", None), "items__fusion": (3, 1.5, {"options": {}}),
         "no__such": (1,), "items__pretrain_epochs": COUNTS, "training__epochs": ("x", None)},
    ),
    (
        lambda **values: auc(values["label"], values["score"]),
        {"label": LABELS, "score": LABELS},
        {"label": ([0, 2, 1], [1, 1, 1], [0, 1], [], [NAN, 1, 0], "x"),
         "score": ([NAN, 1, 2], [1, 2], "x", None)},
    ),
    (
        lambda **values: logloss(values["label"], values["p"]),
        {"label": LABELS, "p": LABELS / 2},
        {"p": ([2, 0, 0], [-1, 0, 0], [NAN, 0, 0], [0.5])},
    ),
    (
        lambda **values: calibration_curve(LABELS, LABELS / 2, **values),
        {},
        {"bins": SIZES},
    ),
    (
        lambda **values: gauc(values["user"], LABELS, LABELS),
        {"user": [1, 1, 2]},
        {"user": ([1, 2], [])},
    ),
    (
        lambda **values: bootstrap("auc", [1, 1, 2], LABELS, LABELS, **values),
        {},
        {"replicates": SIZES},
    ),
]  # fmt: skip
CASES = [
    pytest.param(make, good, name, value, id=f"{number}-{name}-{value!r}"[:60])
    for number, (make, good, bad) in enumerate(TABLE)
    for name, values in bad.items()
    for value in values
]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("make", "good", "name", "value"), CASES)
def test_arguments(make: Callable[..., Any], good: dict[str, Any], name: str, value: Any) -> None:
    make(**good)
    with pytest.raises(InputError) as error:
        make(**{**good, name: value})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [name for name in FUSIONS if name != "precomputed"])
def test_widths_of_fusions(name: str) -> None:
    for value in SIZES:
        for dims, width in (({"image": value}, 4), ({"image": 6, "text": value}, 4)):
            with pytest.raises(InputError):
                FUSIONS[name](dims=dims, out_dim=width)
        with pytest.raises(InputError):
            FUSIONS[name](dims={"image": 6, "text": 4}, out_dim=value)


STREAM = {
    "batch_size": SIZES,
    "window": SIZES,
    "seed": (1.5, "x", None, NAN),
    "lanes": ((0, 1), (1.5, 1), "x", (1,), 3),
    "rank": (-1, 1, "x"),
    "world_size": (0, "x", NAN),
    "columns": (["no"], [3]),
    "list_widths": ({"s": 0}, {"s": -1}, {"x": 3}, {"no": 3}, {"s": "x"}),
    "row_filter": ("x", 3, [("x", "~", 3)], [("no", "==", 1)]),
    "threads": (-1, 3, "x"),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", STREAM)
def test_options_of_a_stream(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": [1, 2], "s": [[1], [2]]}), path)
    for value in STREAM[name]:
        with pytest.raises(InputError):
            ParquetStream(path, **{"batch_size": 2, "columns": ["x", "s"], name: value})
    for name, values in {"num_workers": COUNTS, "prefetch": (0, -1, "x")}.items():
        for value in values:
            with pytest.raises(InputError):
                make_loader(ParquetStream(path, batch_size=2), **{name: value})
    for name, values in {"group_rows": SIZES, "file_rows": SIZES}.items():
        for value in values:
            with pytest.raises(InputError):
                repack(path, tmp_path / "out", **{name: value})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "paths", ["nowhere", "", [], ["no.parquet"], "*.csv", "näh/ß.parquet", "/dev/null", 3, None]
)
def test_paths(paths: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        ParquetStream(paths, batch_size=2)


def test_predictions_write_nothing(tmp_path: Path) -> None:
    for ids, values in (([], []), ([1], [2.0]), ([1], [NAN]), ([1, 1], [0.5, 0.5]), ([[1]], [0.5])):
        with pytest.raises(InputError):
            write_submission(ids, values, tmp_path / "out", id_column="ID", columns=["p"])
    assert not (tmp_path / "out").exists()


NUMBERS = ("-1", "0", "x", "nan", "1e99", "", "99999999999999999999")
PATHS = ("nowhere", "", "a.txt", "empty", "näh/ß")  # "empty" is a directory, "a.txt" a text
COMMANDS: list[tuple[str, list[str], dict[str, tuple[str, ...]]]] = [
    ("mmrec.audit.__main__", ["--data", "DATA"], {
        "--data": PATHS, "--time": ("no", ""), "--images": NUMBERS[2:], "--out": ("a.txt/x",)}),
    ("mmrec.embed.__main__", ["--items", "ITEMS", "--out", "out", "--model", "no-such"], {
        "--items": PATHS, "--images": PATHS[:1], "--schema": PATHS, "--batch-size": NUMBERS,
        "--shard-size": NUMBERS, "--workers": NUMBERS[2:4], "--max-pixels": NUMBERS,
        "--caption": ("{no}", "{", "x"), "--precision": ("x", ""), "--device": ("x", ""),
        "--dtype": ("x",), "--pretrained": ("no", "")}),
    ("mmrec.embed.sheet", ["--features", "empty", "--items", "ITEMS", "--png", "a.png"], {
        "--features": PATHS, "--items": PATHS, "--rows": NUMBERS, "--fused": PATHS}),
    ("mmrec.predict.__main__", ["empty", "--data", "DATA", "--out", "out"], {
        "--data": PATHS, "--features": PATHS, "--split": ("x", ""), "--batch-size": NUMBERS,
        "--workers": NUMBERS[2:4], "--device": ("x", ""), "--precision": ("x",)}),
    ("mmrec.stream.repack", ["nowhere", "--out", "out"], {
        "--out": ("a.txt/x",), "--list-width": ("x", "x=", "x=-1", "=3"),
        "--group-rows": NUMBERS, "--compression": ("x",)}),
    ("mmrec.datasets.synthetic", ["out"], {
        "--items": ("-1", "0", "x", "3"), "--train-rows": ("-1", "0", "x"), "--seed": ("x", ""),
        "--content": ("x", ""), "--interaction": ("x", "nan"), "--liked": ("x", "nan", "inf")}),
    ("mmrec.datasets.movielens", ["empty", "out"], {
        "--history": ("x", ""), "--history-length": NUMBERS, "--images": ("x",)}),
    ("microlens_1m", ["--data", "empty", "--out", "out"], {
        "--data": PATHS, "--recipe": ("x", "", "no.toml", "a.txt"), "--features": PATHS,
        "--set": ("x", "x=1", "training.epochs=x", "=", "items.fusion=3", "batch_size=0"),
        "--seed": ("x", ""), "--device": ("x", ""), "--workers": ("x",)}),
]  # fmt: skip
LINES = [
    pytest.param(module, start, option, value, id=f"{module}{option}={value}")
    for module, start, options in COMMANDS
    for option, values in options.items()
    for value in values
]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("module", "start", "option", "value"), LINES)
def test_command_lines(
    module: str,
    start: list[str],
    option: str,
    value: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "examples"))
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("a.txt").write_text("no parquet")
    pq.write_table(pa.table({"item_id": [1], "item_title": ["a"]}), "ITEMS")
    monkeypatch.setattr(sys, "argv", [module, *start, f"{option}={value}"])
    before = set(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as left:
        run(import_module(module).main)
    error = capsys.readouterr().err
    assert left.value.code == EXIT_BAD_INPUT, error
    assert "Traceback" not in error
    left_over = {path for path in set(tmp_path.rglob("*")) - before if path.is_file()}
    assert not left_over

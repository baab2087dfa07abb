"""Ranker, parquet loader and training together: resume, then predict from the checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mmrec import Batch
from mmrec.cli import run
from mmrec.data.clicks import ClickData
from mmrec.data.counts import count_clicks
from mmrec.data.items import ItemTable
from mmrec.models import Inputs, build_ranker, describe, small
from mmrec.predict import load_ranker, predict
from mmrec.predict.__main__ import main
from mmrec.stream.loader import Loader
from mmrec.train import Interrupted, TrainConfig, fit, load_checkpoint

ITEMS, LENGTH, ROWS = 29, 7, {"train": 211, "valid": 61, "test": 53}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in the layout, its test IDs not counted from 0."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(ITEMS, 128)) * (np.arange(ITEMS) > 0)[:, None]
    tags = rng.integers(1, 11, (ITEMS, 5)) * (np.arange(ITEMS) > 0)[:, None]
    info = {"item_id": np.arange(ITEMS), "item_tags": list(tags), "item_emb_d128": list(vectors)}
    pq.write_table(pa.table(info), root / "item_info.parquet")
    for name, n in ROWS.items():
        history = rng.integers(1, ITEMS, (n, LENGTH))
        history[np.arange(LENGTH) < rng.integers(0, LENGTH, n)[:, None]] = 0
        item = rng.integers(1, ITEMS, n)
        table = {"ID": np.arange(n) * 3 + 100} if name == "test" else {}
        table |= {"user_id": rng.integers(1, 9, n), "item_seq": list(history), "item_id": item}
        table |= {f"{kind}_level": rng.integers(1, 11, n) for kind in ("likes", "views")}
        if name != "test":
            table["label"] = (rng.random(n) < np.where(item % 2, 0.8, 0.2)).astype(int)
        pq.write_table(pa.table(table), root / f"{name}.parquet")
    return root


class Tapped:
    """A loader whose batches pass by a hook."""

    def __init__(self, loader: Loader[Batch], hook: Callable[[int], None]) -> None:
        self.loader, self.hook, self.given = loader, hook, 0
        self.seek, self.fingerprint = loader.seek, loader.fingerprint

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self):  # type: ignore[no-untyped-def]
        for batch in self.loader:
            self.given += 1
            self.hook(self.given)
            yield batch


def loader(data: ClickData, split: str, workers: int = 0, size: int = 16) -> Loader[Batch]:
    how = {"shuffle": split == "train", "seed": 3}
    return data.loader(split, batch_size=size, workers=workers, **how)


def train(root: Path, out: Path, *, workers: int = 0, stop_at: int | None = None) -> None:
    data = ClickData.open(root)
    items = ItemTable.read(data.item_info, data.schema.items)
    counts = count_clicks(data.train, data.schema.clicks, data.num_items)
    inputs = Inputs.of(data, counts, items, known_users=torch.arange(9))
    recipe = small().changed(
        {
            "history.encoder": {"name": "transformer", "last": 0, "width": 8, "ff_dim": 8},
            "interaction.mlp": (8,),
            "interaction.head": (4,),
            "interaction.bottleneck": 8,
        }
    )
    torch.manual_seed(1)

    def hook(given: int) -> None:
        if given == stop_at:
            raise KeyboardInterrupt

    fit(
        build_ranker(recipe, items, inputs),
        Tapped(loader(data, "train", workers), hook),
        loader(data, "valid"),
        config=TrainConfig(
            epochs=2, learning_rate=0.01, progress=False, device="cpu", save_every_steps=4
        ),
        out=out,
        recipe=describe(recipe, inputs),
    )


def command(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["predict", *map(str, words)])
    run(main)


def test_resumes_bitwise_also_with_other_workers_and_predicts_from_the_checkpoint(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(root, tmp_path / "whole")
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        train(root, tmp_path / "stopped", stop_at=21)
    train(root, tmp_path / "stopped", workers=2)
    whole, stopped = (load_checkpoint(tmp_path / name, "last") for name in ("whole", "stopped"))
    assert whole.content["progress"] == stopped.content["progress"]
    for name, tensor in whole.tensors.items():
        assert torch.equal(tensor, stopped.tensors[name]), name

    answers = []
    for size in (7, 2048):
        out = tmp_path / f"out{size}"
        command(
            monkeypatch,
            tmp_path / "whole",
            "--data",
            root,
            "--out",
            out,
            "--batch-size",
            size,
            "--column",
            "click",
        )
        answers.append(pd.read_csv(out / "prediction.csv"))
    assert answers[0]["ID"].tolist() == [3 * row + 100 for row in range(ROWS["test"])]
    np.testing.assert_allclose(answers[0]["click"], answers[1]["click"], atol=1e-6)
    data = ClickData.open(root)
    ranker = load_ranker(tmp_path / "whole", ItemTable.read(data.item_info, data.schema.items))
    _, probability = predict(ranker, loader(data, "test"), device="cpu")
    np.testing.assert_allclose(answers[1]["click"], probability, atol=1e-6)


def test_mistakes_are_one_sentence_and_exit_code_2(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    for where, sentence in (("nowhere", "no checkpoint at"), ("empty", "no best checkpoint in")):
        with pytest.raises(SystemExit) as left:
            command(monkeypatch, tmp_path / where, "--data", root, "--out", tmp_path / "out")
        assert left.value.code == 2
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

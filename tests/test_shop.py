"""A shop's log in which every role plays: one schema.json, and everything runs over it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from launching import launch
from shop import PLAIN, SCHEMA, make_shop
from shop_training import Trained, rewritten, train

from mmrec import (
    ItemTable,
    Schema,
    predict,
)
from mmrec.analysis import diagnose_tasks
from mmrec.cli import run
from mmrec.metrics import auc
from mmrec.predict import load_ranker
from mmrec.predict.__main__ import main
from mmrec.train import Interrupted, load_checkpoint, score


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shop(tmp_path_factory.mktemp("shop") / "data")


@pytest.fixture(scope="module")
def trained(shop: Path) -> Trained:
    return train(shop, shop.parent / "run")


def test_every_role_carries_what_was_planted_in_it(trained: Trained) -> None:
    data = trained.data
    found = diagnose_tasks(
        trained.ranker, data.loader("valid"), columns=data.places(), progress=False, device="cpu"
    )
    assert list(found) == ["click", "buy"]
    roles = ("categorical", "numeric", "history features", "item categorical", "item numeric")
    columns = list(data.places())
    assert len(columns) == 5 + 3 + 2
    for name in (*roles, *columns):
        assert found["click"][f"{name} permuted"].measurable, name
    for name in roles:
        assert found["buy"][f"{name} permuted"].measurable, name
    assert found["buy"].rows < found["click"].rows == 2500


def test_weights_of_rows_count(shop: Path, trained: Trained, tmp_path: Path) -> None:
    """Rows of weight 0 say the opposite: who heeds them ranks worse where weight is."""
    alike = replace(SCHEMA, clicks=replace(SCHEMA.clicks, weight=None))
    other = train(rewritten(shop, tmp_path, alike), tmp_path / "run")
    table = pq.read_table(shop / "valid.parquet")
    counting = table["importance"].to_numpy() > 0
    label = table["click"].to_numpy()[counting]

    def area(some: Trained) -> float:
        scores = score(some.ranker, some.data.loader("valid"), device="cpu")
        return auc(label, scores.of_task("click").logit[counting])

    assert area(trained) > area(other) + 0.003


def test_a_role_is_added_by_the_schema_alone(shop: Path, trained: Trained, tmp_path: Path) -> None:
    """History, target and label are enough; what else the files hold is left alone."""
    few = train(rewritten(shop, tmp_path, PLAIN), tmp_path / "run", **{"training.epochs": 1})
    batch = next(iter(few.data.loader("train", batch_size=8)))
    assert batch.labels.shape == (8, 1)
    assert batch.user.tolist() == batch.row.tolist()
    for name in ("categorical", "numeric", "history_categorical", "history_numeric", "weight"):
        assert getattr(batch, name).shape[-1] == 0
    whole = next(iter(trained.data.loader("train", batch_size=8)))
    assert whole.categorical.shape == (8, 4 + trained.data.widths["coupons"])
    assert whole.numeric.shape == (8, 3)
    assert whole.history_categorical.shape == (8, 6, 1)
    assert whole.labels.shape == (8, 2)
    assert whole.weight.shape == (8, 1)


def test_resumes_bit_for_bit_also_with_other_workers(shop: Path, tmp_path: Path) -> None:
    short = {"training.epochs": 2}
    train(shop, tmp_path / "whole", **short)
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        train(shop, tmp_path / "stopped", stop_at=40, **short, **{"training.save_every_steps": 7})
    train(shop, tmp_path / "stopped", workers=2, **short, **{"training.save_every_steps": 7})
    whole, stopped = (load_checkpoint(tmp_path / name, "last") for name in ("whole", "stopped"))
    for name, tensor in whole.tensors.items():
        assert torch.equal(tensor, stopped.tensors[name]), name


def test_values_never_seen_are_no_error(trained: Trained) -> None:
    batch = next(iter(trained.data.loader("test")))
    new = batch.categorical.clone()
    new[:, 0], new[:, 1], new[:, -1] = 77, -5, 2**62
    strange = replace(
        batch,
        categorical=new,
        numeric=torch.full_like(batch.numeric, torch.nan),
        history_categorical=batch.history_categorical + 40,
    )
    with torch.no_grad():
        assert trained.ranker.eval()(strange).isfinite().all()


def test_the_checkpoint_alone_predicts_under_the_shops_own_keys(
    shop: Path, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["predict", str(shop.parent / "run"), "--data", str(shop), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    run(main)
    frame = pd.read_csv(tmp_path / "prediction.csv")
    assert list(frame.columns) == ["request", "click", "buy"]
    assert frame["request"].tolist() == pq.read_table(shop / "test.parquet")["request"].to_pylist()
    _, probability = predict(trained.ranker, trained.data.loader("test"), device="cpu")
    np.testing.assert_allclose(frame[["click", "buy"]].to_numpy(), probability, atol=1e-6)
    data = trained.data
    items = ItemTable.read(data.item_info, data.schema.items, data.features)
    again = load_ranker(shop.parent / "run", items)
    assert again.tasks == ("click", "buy")


@pytest.mark.slow
def test_the_example_runs_on_it_as_two_ranks_as_one(tmp_path: Path) -> None:
    """Opened, audited, trained, diagnosed, predicted. Few steps: rounding grows with each."""
    shop, found = make_shop(tmp_path / "shop", (2500, 700, 300)), []
    for ranks in (1, 2):
        out = tmp_path / f"out{ranks}"
        options = ["--data", str(shop), "--out", str(out), "--device", "cpu", "--recipe", "still"]
        options += ["--set", "training.epochs=1", "--quiet"]
        said = launch(ranks, *options, "--no-ablation", *["--no-audit"] * (ranks - 1))
        assert [code for code, _, _ in said] == [0] * ranks, said
        found.append(pd.read_csv(out / "prediction.csv"))
    one, two = found
    assert list(one.columns) == ["request", "click", "buy"]
    assert one["request"].tolist() == two["request"].tolist()
    for task in ("click", "buy"):
        np.testing.assert_allclose(one[task], two[task], rtol=0, atol=1e-6)
    figures = json.loads((tmp_path / "out1" / "metrics.json").read_text())
    assert set(figures["tasks"]) == {"click", "buy"}
    assert Schema.from_dict(figures["schema"]) == SCHEMA
    assert {"torch", "mmrec", "python"} <= set(figures["versions"])
    assert "--recipe" in figures["command"]
    content = load_checkpoint(tmp_path / "out1" / "ranker").content
    assert content["written_by"] == {name: figures[name] for name in ("command", "versions")}
    assert Schema.from_dict(content["recipe"]["inputs"]["schema"]) == SCHEMA
    assert set(json.loads((tmp_path / "out1" / "diagnosis.json").read_text())) == {"click", "buy"}

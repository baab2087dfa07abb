"""Several labels: missing ones are left out, rows and tasks are weighted, figures are by task."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy_training import ITEMS, ToyLoader, toy_config

from mmrec.batch import Batch
from mmrec.errors import InputError
from mmrec.metrics import auc, logloss_of_logits
from mmrec.predict import predict
from mmrec.train import TrainConfig, fit, read_log, score
from mmrec.train.step.stepper import ClickLoss

TASKS = ("click", "buy")


def two_labels(batch: Batch) -> Batch:
    """A second label that is the first's opposite on odd targets; every fifth is missing."""
    click = batch.labels[:, :1]
    buy = torch.where(batch.target[:, None] % 2 == 1, 1 - click, click)
    missing = (batch.row[:, None] % 5) == 0
    return replace(batch, labels=torch.cat([click, buy.masked_fill(missing, math.nan)], dim=1))


class TwoTasks(nn.Module):
    """An appeal of each item for each task."""

    def __init__(self, tasks: tuple[str, ...] | None = TASKS) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.appeal = nn.Embedding(ITEMS, 2)
        if tasks is not None:
            self.tasks = tasks

    def forward(self, batch: Batch) -> Tensor:
        out: Tensor = self.appeal(batch.target)
        return out


def loader(n: int = 203, **options: Any) -> ToyLoader:
    return ToyLoader(n, change=two_labels, **options)


def train(out: Path, model: nn.Module, **changes: Any) -> Any:
    return fit(
        model,
        loader(),
        loader(101, data_seed=2, shuffle=False),
        config=toy_config(**changes),
        out=out,
        recipe={},
    )


@pytest.mark.parametrize("weights", [(), (1.0, 0.25)])
def test_the_loss_is_its_equation(weights: tuple[float, ...]) -> None:
    batch = two_labels(next(iter(ToyLoader(40, batch_size=40))))
    batch = replace(batch, weight=torch.rand(40, 1))
    logits = torch.randn(40, 2, requires_grad=True)
    got = ClickLoss(weights)(logits, batch)
    expected = []
    for row in range(40):
        total = 0.0
        for task in range(2):
            label = float(batch.labels[row, task])
            if math.isnan(label):
                continue
            chance = 1 / (1 + math.exp(-float(logits[row, task].detach())))
            entropy = -math.log(chance if label else 1 - chance)
            total += (weights[task] if weights else 1.0) * entropy
        expected.append(float(batch.weight[row]) * total)
    torch.testing.assert_close(got, torch.tensor(expected), rtol=1e-5, atol=1e-6)
    got.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (logits.grad[:, 1][batch.labels[:, 1].isnan()] == 0).all()


def test_metrics_are_by_task_over_the_rows_that_have_it() -> None:
    model = TwoTasks()
    scores = score(model, loader(101, batch_size=13), device="cpu")
    assert scores.tasks == TASKS
    assert scores.label is not None
    found = scores.metrics()
    for task, name in enumerate(TASKS):
        label, logit = scores.label[:, task], scores.logit[:, task]
        there = ~np.isnan(label)
        assert there.all() == (name == "click")
        assert found[f"{name}/auc"] == auc(label[there], logit[there])
        assert found[f"{name}/logloss"] == logloss_of_logits(label[there], logit[there])
    for metric in ("auc", "logloss"):
        mean = (found[f"click/{metric}"] + found[f"buy/{metric}"]) / 2
        assert found[metric] == pytest.approx(mean)
    with pytest.raises(InputError, match="a task is one of click, buy, got 'sale'"):
        scores.of_task("sale")


@pytest.mark.parametrize("monitor", ["auc", "logloss", "buy/auc", "click/logloss"])
def test_any_metric_chooses_the_best(monitor: str, tmp_path: Path) -> None:
    result = train(tmp_path, TwoTasks(), monitor=monitor, learning_rate=0.3)
    values = [found[monitor] for found in result.history]
    best = max(values) if monitor.endswith("auc") else min(values)
    assert result.best[monitor] == best
    events = [line for line in read_log(tmp_path) if line["event"] == "valid"]
    assert all("buy/auc" in event for event in events)


def test_a_task_without_weight_is_not_trained(tmp_path: Path) -> None:
    model = TwoTasks()
    before = model.appeal.weight.detach().clone()
    train(tmp_path, model, task_weights={"buy": 0.0}, epochs=1)
    assert not torch.equal(model.appeal.weight[:, 0], before[:, 0])
    assert torch.equal(model.appeal.weight[:, 1], before[:, 1])


def test_predictions_have_a_column_a_task() -> None:
    rows, probability = predict(TwoTasks(), loader(57), device="cpu")
    assert probability.shape == (57, 2)
    assert rows.tolist() == list(range(57))


def test_a_model_without_names_has_numbers(tmp_path: Path) -> None:
    result = train(tmp_path, TwoTasks(tasks=None), monitor="auc", epochs=1)
    assert {"0/auc", "1/auc"} <= set(result.best)


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="monitor must be auc or logloss, or task/auc"):
        TrainConfig(monitor="click/f1")
    with pytest.raises(InputError, match="task_weights must not be negative, got -1"):
        TrainConfig(task_weights={"click": -1.0})
    for changes in ({"monitor": "sale/auc"}, {"task_weights": {"sale": 1.0}}):
        with pytest.raises(InputError, match=r"name tasks of the model, click, buy, got 'sale'"):
            train(tmp_path / "a", TwoTasks(), **changes)
    with pytest.raises(InputError, match=r"must return logits of shape \(16, 2\), got \(16,\)"):
        train(tmp_path / "b", One())


class One(TwoTasks):
    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch)[:, 0]

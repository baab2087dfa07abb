"""Parameter groups, schedules and the moving average do what their docstrings say."""

from __future__ import annotations

import math

import pytest
import torch
from toy_training import ToyModel, toy_config

from mmrec.train.state.progress import Progress
from mmrec.train.step.ema import EMA
from mmrec.train.step.optimizer import (
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
    parameter_groups,
    rate_factor,
    set_learning_rates,
)


def test_tables_dense_weights_biases_and_patterns_have_their_own_settings() -> None:
    config = toy_config(
        learning_rate=0.1,
        weight_decay=0.2,
        embedding_learning_rate=0.3,
        embedding_weight_decay=0.0,
        groups={"head.*": {"learning_rate": 0.4, "weight_decay": 0.5}},
    )
    found = {
        name: (group["lr"], group["weight_decay"])
        for group in parameter_groups(ToyModel(), config)
        for name in group["names"]
    }
    assert found == {
        "items.weight": (0.3, 0.0),
        "context.weight": (0.3, 0.0),
        "hidden.weight": (0.1, 0.2),
        "hidden.bias": (0.1, 0.0),
        "head.weight": (0.4, 0.5),
        "head.bias": (0.4, 0.0),  # biases never decay
    }


def test_frozen_parameters_are_left_out() -> None:
    model = ToyModel()
    model.items.weight.requires_grad_(False)
    names = [name for group in parameter_groups(model, toy_config()) for name in group["names"]]
    assert "items.weight" not in names
    assert len(names) == 5


def test_every_group_follows_the_schedule() -> None:
    config = toy_config(learning_rate=0.1, embedding_learning_rate=0.3)
    optimizer = make_optimizer(ToyModel(), config)
    set_learning_rates(optimizer, 0.5)
    set_learning_rates(optimizer, 0.25)  # of the base, not of the last
    assert {group["lr"] for group in optimizer.param_groups} == {0.025, 0.075}


def test_state_moves_between_groupings_by_name() -> None:
    model = ToyModel()
    first = make_optimizer(model, toy_config())
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    first.step()
    second = make_optimizer(model, toy_config(embedding_learning_rate=0.7))
    load_optimizer_tensors(second, optimizer_tensors(first))
    for name, tensor in optimizer_tensors(first).items():
        assert torch.equal(tensor, optimizer_tensors(second)[name])


def test_cosine_and_warm_up_are_their_formulas() -> None:
    config = toy_config(schedule="cosine", warmup_steps=10, final_lr_share=0.1)
    for step in range(10):
        assert rate_factor(config, step, total_steps=110) == pytest.approx((step + 1) / 10)
    for step in range(10, 111):
        shape = 0.5 * (1 + math.cos(math.pi * (step - 10) / 100))
        assert rate_factor(config, step, total_steps=110) == pytest.approx(0.1 + 0.9 * shape)
    assert rate_factor(config, 500, total_steps=110) == pytest.approx(0.1)


def test_plateau_waits_then_lowers() -> None:
    config = toy_config(schedule="plateau", plateau_factor=0.5, plateau_patience=1)
    progress = Progress()
    factors, improved = [], []
    for auc in (0.5, 0.5, 0.4, 0.3, 0.6, 0.6, 0.2):
        improved.append(progress.note({"auc": auc}, config))
        factors.append(rate_factor(config, 0, total_steps=1, plateau=progress.plateau))
    assert improved == [True, False, False, False, True, False, False]
    assert factors == [1, 1, 0.5, 0.5, 0.5, 0.5, 0.25]


def test_the_ema_is_the_loop() -> None:
    model = ToyModel()
    ema = EMA(model, 0.9)
    expected = model.head.weight.detach().clone()
    for step in range(1, 40):
        with torch.no_grad():
            model.head.weight.add_(torch.randn_like(expected))
        ema.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.head.weight.detach()
    raw = model.head.weight.detach().clone()
    with ema.in_place():
        torch.testing.assert_close(model.head.weight.detach(), expected)
    assert torch.equal(model.head.weight, raw)

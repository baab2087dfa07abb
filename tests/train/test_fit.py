"""The training loop learns, logs, stops early, resumes bitwise, refuses what is another run's."""

from __future__ import annotations

import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from slow_variants import thorough
from torch import nn
from torch.nn import functional as F
from toy_training import (
    Stopped,
    ToyLoader,
    ToyModel,
    assert_same_state,
    crash_at,
    state_of,
    toy_config,
)

from mmrec import Batch, InputError
from mmrec.train import FitResult, Interrupted, TrainConfig, fit, load_checkpoint, read_log, score
from mmrec.train.step.stepper import HasAuxiliary, click_loss


def train(
    out: Path, config: TrainConfig | None = None, model: nn.Module | None = None, **loader: Any
) -> FitResult:
    return fit(
        ToyModel() if model is None else model,
        ToyLoader(**loader),
        ToyLoader(101, data_seed=2, shuffle=False),
        config=toy_config() if config is None else config,
        out=out,
        recipe={"kind": "toy"},
    )


def test_learns_and_leaves_best_weights_in_the_model(tmp_path: Path) -> None:
    model = ToyModel()
    result = train(tmp_path, toy_config(epochs=6), model)
    assert result.finished == "epochs"
    assert (result.epochs, result.steps, len(result.history)) == (6, 6 * 13, 6)
    assert result.best["auc"] == max(entry["auc"] for entry in result.history) > 0.65
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]
    again = score(model, ToyLoader(101, data_seed=2, shuffle=False), device="cpu").metrics()
    assert again["auc"] == result.best["auc"]
    assert again["logloss"] == result.best["logloss"]


def test_one_step_is_that_of_plain_adam_on_the_mean_loss(tmp_path: Path) -> None:
    model, plain = ToyModel(dropout=0.0), ToyModel(dropout=0.0)
    config = toy_config(epochs=1, clip_norm=0.05, weight_decay=0.1)
    train(tmp_path, config, model, n=13)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in plain.parameters() if p.ndim > 1], "weight_decay": 0.1},
            {"params": [p for p in plain.parameters() if p.ndim == 1], "weight_decay": 0.0},
        ],
        lr=0.01,
    )
    batch = next(iter(ToyLoader(13)))
    F.binary_cross_entropy_with_logits(plain(batch), batch.labels[:, 0]).backward()
    torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.05)
    optimizer.step()
    for (name, mine), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6, msg=name)


def test_accumulated_batches_give_the_step_of_the_whole(tmp_path: Path) -> None:
    whole, parts = ToyModel(dropout=0.0), ToyModel(dropout=0.0)
    train(tmp_path / "a", toy_config(epochs=2), whole, n=101, batch_size=48)
    train(tmp_path / "b", toy_config(epochs=2, accumulate=3), parts, n=101, batch_size=16)
    for mine, theirs in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


VARIANTS = {
    "plain": {},
    "all options": {
        "schedule": "plateau",
        "warmup_steps": 4,
        "ema_decay": 0.9,
        "evaluate_every": 4,
        "weight_decay": 0.01,
        "embedding_learning_rate": 0.02,
        "groups": {"head.*": {"learning_rate": 0.003}},
        "clip_norm": 0.5,
    },
    "cosine, accumulated": {"schedule": "cosine", "accumulate": 2, "log_every": 3},
    "bfloat16, coupled decay": {"precision": "bfloat16", "decoupled": False, "weight_decay": 0.01},
}


@pytest.mark.parametrize("every", [9, thorough(1)])
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda name: name.replace(" ", "-"))
def test_resumed_is_bitwise_undisturbed(tmp_path: Path, variant: str, every: int) -> None:
    config = toy_config(save_every_steps=3, **VARIANTS[variant])
    model = ToyModel()
    result = train(tmp_path / "whole", config, model)
    whole = state_of(tmp_path / "whole")
    batches = range(1, 3 * 13 + 1, every)
    for batch in batches:
        out = tmp_path / f"at{batch}"
        with pytest.raises(Stopped):
            train(out, config, hook=crash_at(batch))
        torch.manual_seed(batch)  # another process has another generator state
        saved = list(out.glob("checkpoints/last-*.json"))
        continued = ToyModel(seed=99) if saved else ToyModel()
        second = train(out, config, continued)
        assert_same_state(state_of(out), whole)
        assert second.history == result.history
        for mine, theirs in zip(continued.parameters(), model.parameters(), strict=True):
            assert torch.equal(mine, theirs)


def test_a_finished_run_returns_at_once_and_more_epochs_continue_it(tmp_path: Path) -> None:
    first = train(tmp_path / "a")
    model = ToyModel(seed=9)
    loader = {"hook": crash_at(1)}
    second = train(tmp_path / "a", None, model, **loader)
    assert second.history == first.history
    train(tmp_path / "a", toy_config(epochs=5))
    train(tmp_path / "b", toy_config(epochs=5))
    assert_same_state(state_of(tmp_path / "a"), state_of(tmp_path / "b"))


def test_restart_starts_from_scratch(tmp_path: Path) -> None:
    train(tmp_path)
    before = state_of(tmp_path)
    given: list[int] = []
    fit(
        ToyModel(),
        ToyLoader(hook=given.append),
        ToyLoader(101, data_seed=2, shuffle=False),
        config=toy_config(),
        out=tmp_path,
        recipe={"kind": "toy"},
        restart=True,
    )
    assert len(given) == 3 * 13
    assert_same_state(state_of(tmp_path), before)


@pytest.mark.parametrize("monitor", ["auc", "logloss"])
def test_stops_early_and_keeps_the_best(tmp_path: Path, monitor: str) -> None:
    config = toy_config(epochs=60, learning_rate=0.1, patience=2, monitor=monitor)
    model = ToyModel(dropout=0.0)
    result = train(tmp_path, config, model)
    assert result.finished == "early stopping"
    choose = max if monitor == "auc" else min
    assert result.best == choose(result.history, key=lambda entry: entry[monitor])
    assert result.epochs == result.best["epoch"] + 2
    kept = sorted(path.name for path in (tmp_path / "checkpoints").glob("*.json"))
    assert kept == [
        f"best-{result.best['step']:010d}.json",
        f"last-{result.steps - 13:010d}.json",
        f"last-{result.steps:010d}.json",
    ]
    again = train(tmp_path, config)
    assert again.history == result.history


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_checkpoints_and_the_same_call_resumes(
    tmp_path: Path, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    config = toy_config()
    train(tmp_path / "whole", config)

    def hook(given: int) -> None:
        if given == 18:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=r"after step 18; the same call resumes from .*0018.json"):
        train(tmp_path / "stopped", config, hook=hook)
    assert "stopped by a signal after step 18" in capsys.readouterr().err
    assert signal.getsignal(number) is before
    train(tmp_path / "stopped", config)
    assert_same_state(state_of(tmp_path / "stopped"), state_of(tmp_path / "whole"))


def test_a_signal_during_evaluation_is_heard(tmp_path: Path) -> None:
    def hook(given: int) -> None:
        if given == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    config = toy_config(ema_decay=0.5)
    train(tmp_path / "whole", config)
    with pytest.raises(Interrupted, match="after step 13;"):
        fit(
            ToyModel(),
            ToyLoader(),
            ToyLoader(101, data_seed=2, shuffle=False, hook=hook),
            config=config,
            out=tmp_path / "stopped",
            recipe={"kind": "toy"},
        )
    train(tmp_path / "stopped", config)
    assert_same_state(state_of(tmp_path / "stopped"), state_of(tmp_path / "whole"))


def test_ctrl_c_that_also_ends_the_loaders_workers(tmp_path: Path) -> None:
    def hook(given: int) -> None:
        if given == 18:
            os.kill(os.getpid(), signal.SIGINT)
            raise RuntimeError("DataLoader worker (pid 1) exited unexpectedly")

    with pytest.raises(Interrupted, match="after step 17;"):
        train(tmp_path / "stopped", hook=hook)
    train(tmp_path / "stopped")
    train(tmp_path / "whole")
    assert_same_state(state_of(tmp_path / "stopped"), state_of(tmp_path / "whole"))


def test_refuses_another_recipe_setting_or_data(tmp_path: Path) -> None:
    train(tmp_path)
    loaders = ToyLoader(), ToyLoader(101, data_seed=2, shuffle=False)
    with pytest.raises(InputError, match=r"another recipe: kind was 'toy' and is 'other'; put"):
        fit(ToyModel(), *loaders, config=toy_config(), out=tmp_path, recipe={"kind": "other"})
    with pytest.raises(InputError, match=r"another setting: learning_rate was 0.01 and is 0.02;"):
        train(tmp_path, toy_config(learning_rate=0.02))
    with pytest.raises(InputError, match=r"another training data: n was 203 and is 204;"):
        train(tmp_path, n=204)
    nested = {"kind": "toy", "sizes": {"mlp": [8], "head": 4}}
    with pytest.raises(InputError, match=r"sizes.mlp was 'absent' and is \[8\], sizes"):
        fit(ToyModel(), *loaders, config=toy_config(), out=tmp_path, recipe=nested)
    with pytest.raises(InputError, match="does not fit this model"):
        train(tmp_path, model=ToyModel(width=11))


def test_log_and_checkpoint_contents(tmp_path: Path) -> None:
    result = train(tmp_path)
    log = read_log(tmp_path)
    steps = [line["step"] for line in log if line["event"] == "train"]
    assert steps == list(range(5, 40, 5))
    assert [line["auc"] for line in log if line["event"] == "valid"] == [
        entry["auc"] for entry in result.history
    ]
    best = load_checkpoint(tmp_path)
    assert best.recipe == {"kind": "toy"}
    assert set(best.part("model")) == set(ToyModel().state_dict())
    assert load_checkpoint(best.path).step == result.best["step"]


def test_logged_loss_is_the_mean_over_rows(tmp_path: Path) -> None:
    model = ToyModel(dropout=0.0)
    result = train(tmp_path, toy_config(epochs=1, learning_rate=0.0, log_every=13), model)
    scores = score(model, ToyLoader(shuffle=False), device="cpu").metrics()
    assert result.history[0]["train_loss"] == pytest.approx(scores["logloss"], rel=1e-6)
    assert read_log(tmp_path)[0]["loss"] == pytest.approx(scores["logloss"], rel=1e-6)


def test_click_loss_is_the_formula_of_each_row() -> None:
    batch = replace(next(iter(ToyLoader(4))), labels=torch.tensor([[1.0], [1.0], [0.0], [0.0]]))
    logits = torch.tensor([3.0, -20.0, 0.1, 9.0])
    slow = []
    for logit, label in zip(logits.tolist(), batch.labels[:, 0].tolist(), strict=True):
        click = 1 / (1 + math.exp(-logit))
        slow.append(-(label * math.log(click) + (1 - label) * math.log(1 - click)))
    assert click_loss(logits, batch).tolist() == pytest.approx(slow, rel=1e-5)


def test_the_loss_sees_float32_logits_whatever_the_precision(tmp_path: Path) -> None:
    seen = set()

    def loss(logit: torch.Tensor, batch: Batch) -> torch.Tensor:
        seen.add((logit.dtype, torch.is_autocast_enabled("cpu")))
        return click_loss(logit, batch)

    fit(
        ToyModel(),
        ToyLoader(),
        ToyLoader(101, data_seed=2, shuffle=False),
        config=toy_config(epochs=1, precision="bfloat16"),
        out=tmp_path,
        recipe={},
        loss=loss,
    )
    assert seen == {(torch.float32, False)}


class Pulled(ToyModel):
    """Leaves an auxiliary loss, as a ranker with alignment does."""

    def forward(self, batch: Batch) -> torch.Tensor:
        logit = super().forward(batch)
        self.auxiliary = 2.0 * self.head.bias.square().sum() if self.training else None
        return logit


def test_an_auxiliary_loss_joins_the_mean_loss(tmp_path: Path) -> None:
    model, plain = Pulled(dropout=0.0), ToyModel(dropout=0.0)
    train(tmp_path, toy_config(epochs=1, clip_norm=None, learning_rate=1e-3), model, n=13)
    assert isinstance(model, HasAuxiliary)
    assert not isinstance(plain, HasAuxiliary)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-3, weight_decay=0.0)
    batch = next(iter(ToyLoader(13)))
    loss = F.binary_cross_entropy_with_logits(plain(batch), batch.labels[:, 0])
    (loss + 2.0 * plain.head.bias.square().sum()).backward()
    optimizer.step()
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


class TwoColumns(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))

    def forward(self, batch: Any) -> torch.Tensor:
        return self.weight.expand(len(batch), 2)


def test_wrong_uses_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"logits of shape \(16,\), got \(16, 2\)"):
        train(tmp_path / "a", model=TwoColumns())
    with pytest.raises(InputError, match="training needs labels"):
        train(tmp_path / "b", labelled=False)
    with pytest.raises(InputError, match="no batches"):
        train(tmp_path / "c", n=0)
    with pytest.raises(InputError, match="float16 needs CUDA, got device cpu"):
        train(tmp_path / "d", toy_config(precision="float16"))
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="finds no CUDA device"):
            train(tmp_path / "e", toy_config(device="cuda"))
    with pytest.raises(InputError, match="must be auto, cpu, cuda"):
        train(tmp_path / "e", toy_config(device="gpu"))
    with pytest.raises(InputError, match=r"no parameter of the model matches \['nothing.*"):
        train(tmp_path / "f", toy_config(groups={"nothing*": {"learning_rate": 1.0}}))
    for wrong in ({"monitor": "f1"}, {"epochs": 0}, {"ema_decay": 1.0}, {"schedule": "wave"}):
        with pytest.raises(InputError):
            toy_config(**wrong)
    with pytest.raises(InputError, match="unknown settings"):
        replace(toy_config(), groups={"head": {"rate": 1.0}})

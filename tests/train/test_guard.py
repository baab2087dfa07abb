"""Steps that are not finite are skipped, counted, named, and never reach a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy_training import ToyLoader, ToyModel, toy_config

from mmrec import Batch, InputError
from mmrec.train import Diverged, FitResult, TrainConfig, fit, load_checkpoint, read_log
from mmrec.train.state.checkpoint import is_finite
from mmrec.train.step.precision import LossScale
from mmrec.train.step.stepper import Stepper, click_loss


def spoil(*rows: int) -> Callable[[Batch], Batch]:
    """NaN weights in the batches that hold these rows."""

    def change(batch: Batch) -> Batch:
        bad = torch.isin(batch.row, torch.tensor(rows))
        return replace(batch, weight=torch.where(bad, torch.nan, 1.0).unsqueeze(1))

    return change


def train(
    out: Path,
    config: TrainConfig,
    *,
    model: ToyModel | None = None,
    change: Callable[[Batch], Batch] | None = None,
) -> FitResult:
    return fit(
        model or ToyModel(),
        ToyLoader(change=change),
        ToyLoader(101, data_seed=2, shuffle=False),
        config=config,
        out=out,
        recipe={},
    )


def assert_checkpoints_finite(out: Path) -> None:
    for kind in ("last", "best"):
        if list(out.glob(f"checkpoints/{kind}-*.json")):
            assert is_finite(load_checkpoint(out, kind).tensors)


def test_a_nan_in_a_batch_skips_that_step_alone(tmp_path: Path) -> None:
    result = train(tmp_path, toy_config(save_every_steps=1), change=spoil(17))
    assert result.bad_steps == 3  # once an epoch
    skipped = [line for line in read_log(tmp_path) if line["event"] == "skipped"]
    assert len(skipped) == 3
    assert all(17 in line["rows"] and len(line["rows"]) <= 16 for line in skipped)
    assert_checkpoints_finite(tmp_path)
    assert result.best["auc"] > 0.6


def test_a_skipped_step_changes_neither_weights_nor_moments(tmp_path: Path) -> None:
    clean, spoiled = tmp_path / "clean", tmp_path / "spoiled"
    # The same healthy steps: dropout off, since the seed of a step is its number.
    order = list(ToyLoader())
    first_rows = {int(row) for row in order[0].row}

    class Skipping(ToyLoader):
        def __iter__(self):  # type: ignore[no-untyped-def]
            return (b for b in super().__iter__() if int(b.row[0]) not in first_rows)

    common = {"config": toy_config(epochs=1), "recipe": {}}
    valid = ToyLoader(101, data_seed=2, shuffle=False)
    fit(ToyModel(dropout=0.0), Skipping(), valid, out=clean, **common)
    change = spoil(int(order[0].row[0]))
    fit(ToyModel(dropout=0.0), ToyLoader(change=change), valid, out=spoiled, **common)
    one, other = (load_checkpoint(out, "last").tensors for out in (clean, spoiled))
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


class NanGradient(ToyModel):
    """Finite outputs, NaN gradients, from some forward pass on."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first, self.passes = first, 0

    def forward(self, batch: Batch) -> Tensor:
        logit = super().forward(batch)
        self.passes += self.training
        if self.training and self.passes >= self.first:
            logit = logit + 0.0 * torch.sqrt(self.head.bias - self.head.bias).sum()
        return logit


def test_nan_gradients_stop_after_a_few_and_name_rows_and_checkpoint(tmp_path: Path) -> None:
    config = toy_config(save_every_steps=2, max_bad_steps=3, log_every=4)
    with pytest.raises(Diverged) as caught:
        train(tmp_path, config, model=NanGradient(8))
    sentence = str(caught.value)
    assert "gradient norm nan at step 10, the last of 3 such steps in a row" in sentence
    rows = [int(row) for row in list(ToyLoader())[9].row]
    assert f"on rows {', '.join(map(str, rows[:10]))}, … 16 in all" in sentence
    assert sentence.endswith("last-0000000006.json")
    kept = sorted(path.name for path in tmp_path.glob("checkpoints/*.json"))
    assert kept == ["last-0000000004.json", "last-0000000006.json"]
    assert_checkpoints_finite(tmp_path)


@pytest.mark.parametrize("rate", [1e6, 1e30, 3e38])
def test_an_exploding_learning_rate_stops_in_one_sentence(tmp_path: Path, rate: float) -> None:
    train(tmp_path, toy_config(epochs=1))  # a good checkpoint to lose
    before = load_checkpoint(tmp_path, "last")
    good = before.path.read_bytes()
    content = {"model": ToyModel(), "change": None}
    with pytest.raises(InputError, match=r"lower the learning rate"):
        fit(
            content["model"],
            ToyLoader(),
            ToyLoader(101, data_seed=2, shuffle=False),
            config=toy_config(learning_rate=rate, epochs=20, save_every_steps=1),
            out=tmp_path / "exploding",
            recipe={},
        )
    assert before.path.read_bytes() == good
    assert_checkpoints_finite(tmp_path / "exploding")


def test_an_absurd_learning_rate_never_saves_what_it_made(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        train(tmp_path, toy_config(learning_rate=3e38, save_every_steps=1))
    assert not list(tmp_path.glob("checkpoints/*"))


def test_the_loss_scale_halves_on_overflow_and_grows_after_patience() -> None:
    device = torch.device("cpu")
    scale = LossScale(torch.float16, device, patience=3)
    start = float(scale.scale)
    bad, good = torch.tensor(1.0), torch.tensor(0.0)
    seen = []
    for overflow in (bad, bad, good, good, good, good, good, good, bad):
        scale.update(overflow)
        seen.append(float(scale.scale) / start)
    assert seen == [0.5, 0.25, 0.25, 0.25, 0.5, 0.5, 0.5, 1.0, 0.5]
    copy = LossScale(torch.float16, device)
    copy.load_state_dict(scale.state_dict())
    assert float(copy.scale) == float(scale.scale)
    idle = LossScale(torch.bfloat16, device)
    idle.update(bad)
    assert float(idle.scale) == 1.0


class Brittle(ToyModel):
    """Its gradients overflow where the scaled loss is above a limit, as float16 would."""

    def forward(self, batch: Batch) -> Tensor:
        logit = super().forward(batch)
        if self.training:
            logit.register_hook(lambda grad: torch.where(grad.abs().amax() > 50, torch.inf, grad))
        return logit


def test_scaled_steps_are_the_plain_ones_and_overflows_only_cost_steps() -> None:
    config = toy_config(weight_decay=0.1, clip_norm=0.2, log_every=20)
    plain, scaled = ToyModel(dropout=0.0), Brittle(dropout=0.0)
    cpu = torch.device("cpu")
    steppers = [Stepper(model, config, cpu, click_loss) for model in (plain, scaled)]
    steppers[1].scale = LossScale(torch.float16, cpu)
    batches = [(batch, batch.row) for batch in ToyLoader()]
    for number in range(4):  # 2**10 is too much for it, and so are 512, 256, 128
        steppers[1].step(batches[number : number + 1], step=number, factor=1.0)
    records = steppers[1].records.take()
    assert [record.skipped for record in records] == [True, True, True, True]
    for mine, theirs in zip(scaled.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    for number in range(4, 10):
        for stepper in steppers:
            stepper.step(batches[number : number + 1], step=number, factor=1.0)
    assert not any(record.skipped for record in steppers[1].records.take())
    for mine, theirs in zip(scaled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    assert {"scaler/scale", "scaler/streak"} <= set(steppers[1].tensors())


def test_out_of_memory_says_what_to_lower(tmp_path: Path) -> None:
    class Greedy(ToyModel):
        def forward(self, batch: Batch) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    sentence = r"lower the batch size \(now 16\) and raise accumulate \(now 2\)"
    with pytest.raises(InputError, match=sentence):
        train(tmp_path, toy_config(accumulate=2), model=Greedy())

    class GreedyOnHost(ToyModel):
        def forward(self, batch: Batch) -> Tensor:
            return torch.empty(1 << 60)

    with pytest.raises(InputError, match="ran out of memory"):
        train(tmp_path, toy_config(), model=GreedyOnHost())

"""What must hold on every device: parts agree with float64 on the CPU, steps do what they say.

The CPU's half runs always, the card's (`pytest -m cuda tests/models/test_devices.py`) where there
is one. Needs torch alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from ranker_inputs import INPUTS
from torch import Tensor, nn
from toy_training import Stopped, ToyLoader, ToyModel, crash_at, state_of, toy_config
from waiting import no_waiting

from mmrec import Batch
from mmrec.config import Speed, TrainConfig
from mmrec.models import Recipe, build_ranker, light, reference_fused, small
from mmrec.models.build import CROSSES, SEQUENCES
from mmrec.nn import FUSIONS, CrossAndDeep, Part
from mmrec.nn.fusion import EstimatedFusion
from mmrec.nn.history.tokens import first_filled
from mmrec.nn.mlp import MLP
from mmrec.train import fit
from mmrec.train.loaders import on_device
from mmrec.train.step.precision import LossScale
from mmrec.train.step.stepper import Stepper, click_loss

on_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
CUDA = pytest.param("cuda", marks=[pytest.mark.cuda, on_card])
ROWS, LENGTH, IMAGE, TEXT, OUT = 13, 5, 7, 5, 6
FUSION_OPTIONS: dict[str, dict[str, Any]] = {
    "cross_attention": {"tokens": 2, "width": 4},
    "film": {"context_dim": 2},
    "semantic_ids": {"levels": 2, "codes": 5},
    "semantic_ids_dense": {"levels": 2, "codes": 5},
    "bilinear": {"core": 2},
    "precomputed": {"modality": "image"},
}
SEQUENCE_OPTIONS: dict[str, dict[str, Any]] = {
    "parallel": {"encoders": ["mean", "din"]},
    "transformer": {"layers": 2, "heads": 2, "ff_dim": 7, "last": 3},
}
NARROW = {"interaction.bottleneck": 16, "interaction.mlp": (16,), "interaction.head": (8,)}
RECIPES: dict[str, Recipe] = {
    "small": small(),
    "light": light().changed(NARROW),
    "light, the target conditioned": light().changed({**NARROW, "items.fusion": Part("film")}),
    "reference-fused": reference_fused().changed(NARROW),
}


@pytest.fixture(params=["cpu", CUDA])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


def agree(module: nn.Module, inputs: tuple[Any, ...], device: torch.device) -> None:
    """Outputs and every gradient in float32 on `device` are those of float64 on the CPU."""
    found = []
    for dtype, where in ((torch.float64, torch.device("cpu")), (torch.float32, device)):

        def ready(x: Any, dtype: torch.dtype = dtype, where: torch.device = where) -> Any:
            if isinstance(x, Batch):
                return x.to(where)
            kind = dtype if x.is_floating_point() else x.dtype
            return x.to(where, kind).requires_grad_(x.is_floating_point())

        moved = copy.deepcopy(module).to(where, dtype).eval()
        given = [ready(x) for x in inputs]
        out = moved(*given)
        if out.requires_grad:
            weight = torch.linspace(-1, 1, out.numel(), device=where).view(out.shape)
            (out * weight).sum().backward()
        leaves = [*moved.parameters(), *(x for x in given if isinstance(x, Tensor))]
        grads = [leaf.grad for leaf in leaves if leaf.requires_grad]
        found.append([out, *(torch.zeros(()) if g is None else g for g in grads)])
    for slow, fast in zip(*found, strict=True):
        torch.testing.assert_close(fast.double().cpu(), slow.double(), rtol=1e-3, atol=1e-4)


def content() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Image, text and masks in which all four kinds of presence occur."""
    rows = torch.arange(ROWS)
    vectors = {"image": torch.randn(ROWS, IMAGE), "text": torch.randn(ROWS, TEXT)}
    return vectors, {"image": rows % 2 == 0, "text": rows // 2 % 2 == 0}


class Flat(nn.Module):
    """A fusion that takes its four tensors one by one."""

    def __init__(self, fusion: nn.Module) -> None:
        super().__init__()
        self.fusion = fusion

    def forward(self, image: Tensor, text: Tensor, has_image: Tensor, has_text: Tensor) -> Tensor:
        vectors, present = {"image": image, "text": text}, {"image": has_image, "text": has_text}
        fused: Tensor = self.fusion(vectors, present)
        return fused


@pytest.mark.parametrize("name", sorted(FUSIONS))
def test_fusions(name: str, device: torch.device) -> None:
    part, (vectors, present) = Part(name, FUSION_OPTIONS.get(name, {})), content()
    width = IMAGE if name == "precomputed" else OUT
    fusion = FUSIONS.build(part, dims={"image": IMAGE, "text": TEXT}, out_dim=width)
    if isinstance(fusion, EstimatedFusion):
        fusion.estimate(vectors, present)
    agree(Flat(cast(nn.Module, fusion)), (*vectors.values(), *present.values()), device)


@pytest.mark.parametrize("name", sorted(SEQUENCES))
def test_sequence_encoders(name: str, device: torch.device) -> None:
    encoder = SEQUENCES.build(Part(name, SEQUENCE_OPTIONS.get(name, {})), dim=OUT)
    valid = torch.arange(LENGTH) >= LENGTH - torch.arange(ROWS)[:, None] % (LENGTH + 1)
    agree(
        cast(nn.Module, encoder),
        (torch.randn(ROWS, LENGTH, OUT), torch.randn(ROWS, OUT), valid),
        device,
    )


@pytest.mark.parametrize("name", sorted(CROSSES))
def test_interactions(name: str, device: torch.device) -> None:
    cross, deep = CROSSES.build(Part(name), dim=OUT), MLP(in_dim=OUT, hidden=[4])
    both = CrossAndDeep(in_dim=IMAGE, cross=cross, deep=deep, bottleneck=OUT)
    agree(both, (torch.randn(ROWS, IMAGE),), device)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("fast", [True, False], ids=["compact", "padded"])
def test_rankers(name: str, fast: bool, device: torch.device, table: Any, batch: Batch) -> None:
    speed = Speed(deduplicate=fast, compact=fast)
    recipe = RECIPES[name].changed({"training.speed": speed})
    agree(build_ranker(recipe, table, INPUTS), (batch,), device)


def stepper_of(recipe: Recipe, table: Any, device: torch.device, **changes: Any) -> Stepper:
    """Steps of a ranker as a card takes them: padding computed, nothing looked for."""
    speed = Speed(deduplicate=False, compact=False)
    config = replace(recipe.training, speed=speed, log_every=10**6, **changes)
    torch.manual_seed(3)
    ranker = build_ranker(replace(recipe, training=config), table, INPUTS)
    return Stepper(ranker.train(), config, device, click_loss)


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_waits_for_nothing(
    name: str, device: torch.device, table: Any, batch: Batch
) -> None:
    stepper = stepper_of(RECIPES[name], table, device, ema_decay=0.9)
    pair = batch.to(device), batch.row
    for step in range(3):  # the first ones may set something up
        stepper.step([pair], step=step, factor=1.0)
    with no_waiting(device):
        stepper.step([pair, pair], step=3, factor=0.5)


def test_the_guard_against_waiting_sees_it(device: torch.device) -> None:
    x = torch.ones(3, device=device)
    for waits in (x.sum().item, x.nonzero, lambda: x[x > 0]):
        refused = pytest.raises((AssertionError, RuntimeError), match=r"waits|synchroniz")
        with refused, no_waiting(device):
            waits()


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16", "auto"])
def test_steps_learn(precision: str, device: torch.device, table: Any, batch: Batch) -> None:
    if precision == "float16" and device.type == "cpu":
        pytest.skip("float16 needs CUDA")
    recipe = RECIPES["light"].changed({"training.warmup_steps": 0})
    stepper = stepper_of(recipe, table, device, precision=precision, learning_rate=5e-3)
    for step in range(30):
        stepper.step([(batch.to(device), batch.row)], step=step, factor=1.0)
    records = [record for record in stepper.records.take() if not record.skipped]
    assert len(records) >= 20
    assert records[-1].loss < 0.5 * records[0].loss


def test_the_guard_leaves_weights_and_moments(
    device: torch.device, table: Any, batch: Batch
) -> None:
    stepper = stepper_of(RECIPES["light"], table, device)
    good, bad = batch.to(device), batch.to(device)
    bad = replace(bad, labels=torch.full_like(bad.labels, torch.inf))
    stepper.step([(good, batch.row)], step=0, factor=1.0)
    before = {name: tensor.clone() for name, tensor in stepper.tensors().items()}
    stepper.step([(good, batch.row), (bad, batch.row)], step=1, factor=1.0)
    assert before.keys() == stepper.tensors().keys()
    for name, tensor in stepper.tensors().items():
        assert torch.equal(tensor, before[name]), name
    stepper.step([(good, batch.row)], step=2, factor=1.0)
    after = stepper.tensors()
    assert any(not torch.equal(after[name], before[name]) for name in before)
    assert [record.skipped for record in stepper.records.take()] == [False, True, False]


def test_the_loss_scale_follows_overflows(device: torch.device) -> None:
    scale = LossScale(torch.float16, device, patience=3)
    start, seen = scale.scale.item(), []
    no, yes = torch.zeros((), device=device), torch.ones((), device=device)
    with no_waiting(device):
        for overflow in (yes, yes, no, no, no, no):
            scale.update(overflow)
            seen.append(scale.scale.clone())
    assert [value.item() / start for value in seen] == [0.5, 0.25, 0.25, 0.25, 0.5, 0.5]


def test_the_ema_is_its_formula(device: torch.device, table: Any, batch: Batch) -> None:
    stepper = stepper_of(RECIPES["small"], table, device, ema_decay=0.5)
    ema = stepper.ema
    assert ema is not None
    slow = {name: p.detach().cpu().clone() for name, p in ema.weights.items()}
    for step in range(4):
        stepper.step([(batch.to(device), batch.row)], step=step, factor=1.0)
        decay = min(0.5, (2 + step) / (11 + step))
        for name, weight in ema.weights.items():
            slow[name] = decay * slow[name] + (1 - decay) * weight.detach().cpu()
    for name, shadow in ema.shadow.items():
        torch.testing.assert_close(shadow.cpu(), slow[name])


def train(out: Path, device: torch.device, hook: Callable[[int], None] | None = None) -> None:
    config: TrainConfig = toy_config(device=device.type, ema_decay=0.9, save_every_steps=3)
    loaders = ToyLoader(hook=hook), ToyLoader(97, data_seed=2, shuffle=False)
    fit(ToyModel(), *loaders, config=config, out=out, recipe={"toy": 1})


def test_a_resumed_run_ends_as_an_undisturbed_one(device: torch.device, tmp_path: Path) -> None:
    train(tmp_path / "whole", device)
    with pytest.raises(Stopped):
        train(tmp_path / "torn", device, hook=crash_at(20))
    train(tmp_path / "torn", device)
    whole, torn = state_of(tmp_path / "whole"), state_of(tmp_path / "torn")
    exact = device.type == "cpu"  # on CUDA sums may be taken in another order
    tolerance = {"rtol": 0.0, "atol": 0.0} if exact else {"rtol": 1e-3, "atol": 1e-5}
    for part in ("last", "best"):
        assert whole[part].keys() == torn[part].keys()
        for name, tensor in whole[part].items():
            torch.testing.assert_close(torn[part][name], tensor, **tolerance)


@pytest.mark.parametrize("pinned", [True, False])
def test_batches_arrive_whole_and_in_order(pinned: bool, device: torch.device) -> None:
    """While the device is busy with other work and the host frees what it sent."""
    pinned = pinned and torch.cuda.is_available()
    loader = ToyLoader(203, shuffle=False)
    sent = (batch.pin_memory() if pinned else batch for batch in loader)
    busy = torch.randn(256, 256, device=device)
    arrived = []
    for batch, row in on_device(sent, device):
        busy = (busy @ busy).tanh()
        arrived.append((batch, row))
    for (batch, row), expected in zip(arrived, ToyLoader(203, shuffle=False), strict=True):
        assert torch.equal(row, expected.row)
        assert row.device.type == "cpu"
        assert batch.history.device.type == device.type
        known = 0 if device.type == "cpu" else first_filled(expected.history)
        assert batch.padding == known
        for mine, its in zip(batch.tensors(), expected.tensors(), strict=True):
            torch.testing.assert_close(mine.cpu(), its, rtol=0, atol=0, equal_nan=True)

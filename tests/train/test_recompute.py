"""Recomputed activations: the same steps bit by bit, fewer tensors kept, resumes either way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from toy_training import (
    ITEMS,
    Stopped,
    ToyLoader,
    ToyModel,
    assert_same_state,
    crash_at,
    state_of,
    toy_config,
)

from mmrec import Batch, InputError
from mmrec.config import Speed
from mmrec.nn import TargetTransformer
from mmrec.train import fit
from mmrec.train.step.recompute import matching_modules
from mmrec.train.step.stepper import Stepper, click_loss

LAYERS = ("sequence.layers.*",)


class Sequential(nn.Module):
    """Items through a Transformer with dropout, compact as on the CPU or padded as on CUDA."""

    def __init__(self, *, compact: bool) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.items = nn.Embedding(ITEMS, 6)
        self.sequence = TargetTransformer(
            dim=6, layers=3, heads=2, ff_dim=19, dropout=0.4, last=2, compact=compact
        )
        self.head = nn.Linear(self.sequence.out_dim, 1)
        self.calls = 0
        self.sequence.layers[0].linear1.register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.calls += 1

    def forward(self, batch: Batch) -> Tensor:
        history = self.items(batch.history)
        interest = self.sequence(history, self.items(batch.target), batch.valid)
        return self.head(interest).squeeze(-1)


def stepped(recompute: tuple[str, ...], *, compact: bool, precision: str) -> tuple[Stepper, int]:
    """Two steps of two batches each; also the bytes that the first forward pass keeps."""
    model = Sequential(compact=compact)
    config = toy_config(speed=Speed(recompute=recompute), precision=precision, accumulate=2)
    stepper = Stepper(model, config, torch.device("cpu"), click_loss)
    pairs = [(batch, batch.row) for batch in ToyLoader(64, batch_size=16)]
    model.train()
    kept = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        stepper.step(pairs[:2], step=0, factor=1.0)
    stepper.step(pairs[2:], step=1, factor=1.0)
    assert not any("forward" in vars(module) for module in model.modules())
    return stepper, kept


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_weights_and_moments_are_bitwise_equal_with_dropout(compact: bool, precision: str) -> None:
    plain, kept = stepped((), compact=compact, precision=precision)
    again, kept_less = stepped(LAYERS, compact=compact, precision=precision)
    assert (plain.model.calls, again.model.calls) == (4, 8)
    assert kept_less < kept / 2
    for name, tensor in plain.tensors().items():
        assert torch.equal(tensor, again.tensors()[name]), name


def test_dropout_is_drawn_again_in_every_step() -> None:
    """Else equal gradients would prove nothing about dropout."""
    model = Sequential(compact=True).train()
    batch = next(iter(ToyLoader(16)))
    assert not torch.equal(model(batch), model(batch))


@pytest.mark.parametrize("before", [(), ("hidden", "dropout")])
def test_a_run_may_be_continued_with_or_without(tmp_path: Path, before: tuple[str, ...]) -> None:
    def train(out: Path, recompute: tuple[str, ...], crash: int | None = None) -> None:
        fit(
            ToyModel(),
            ToyLoader(hook=crash_at(crash) if crash else None),
            ToyLoader(101, data_seed=2, shuffle=False),
            config=toy_config(speed=Speed(recompute=recompute), save_every_steps=4),
            out=out,
            recipe={"kind": "toy"},
        )

    after = () if before else ("hidden", "dropout")
    train(tmp_path / "undisturbed", ())
    with pytest.raises(Stopped):
        train(tmp_path / "stopped", before, crash=18)
    train(tmp_path / "stopped", after)
    assert_same_state(state_of(tmp_path / "undisturbed"), state_of(tmp_path / "stopped"))


def test_the_outermost_match_is_taken_and_a_pattern_without_one_refused() -> None:
    model = Sequential(compact=True)
    assert matching_modules(model, ("*.layers.*",)) == list(model.sequence.layers)
    assert matching_modules(model, ("*",)) == [model.items, model.sequence, model.head]
    assert matching_modules(model, ()) == []
    with pytest.raises(InputError, match=r"no module of the model matches \['no\*'\]"):
        Stepper(
            model,
            toy_config(speed=Speed(recompute=("head", "no*"))),
            torch.device("cpu"),
            click_loss,
        )

"""What `fit` finds before it begins, what it keeps when it fails, and what it leaves untouched."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from callers_world import world
from toy_training import ToyLoader, ToyModel, toy_config

from mmrec.batch import Batch
from mmrec.errors import InputError
from mmrec.metrics import auc
from mmrec.predict import predict
from mmrec.train import fit, largest_batch_size, load_checkpoint, score
from mmrec.train.step.stepper import click_loss


def alike(batch: Batch) -> Batch:
    return replace(batch, labels=torch.zeros_like(batch.labels))


def unknown(batch: Batch) -> Batch:
    return replace(batch, labels=torch.full_like(batch.labels, torch.nan))


def some_unknown(batch: Batch) -> Batch:
    missing = batch.row.unsqueeze(1) % 5 == 0
    return replace(batch, labels=batch.labels.masked_fill(missing, torch.nan))


class Counting(ToyModel):
    steps = 0

    def forward(self, batch: Batch) -> torch.Tensor:
        Counting.steps += self.training
        return super().forward(batch)


def train(out: Path, valid: Any, model: torch.nn.Module | None = None, **changes: Any) -> Any:
    config = toy_config(epochs=1, **changes)
    model = Counting() if model is None else model
    return fit(model, ToyLoader(), valid, config=config, out=out, recipe={})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"change": alike}, "must be both 0 and 1 for monitor 'auc', those of label are all alike"),
        ({"labelled": False}, "validation needs labels, the loader gives none"),
        ({"change": unknown}, "validation needs labels, those of label are all missing"),
        ({"n": 0}, "the validation loader gives no rows"),
    ],
)
def test_validation_rows_that_measure_nothing_are_found_before_the_first_step(
    options: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    Counting.steps = 0
    with pytest.raises(InputError, match=sentence):
        train(tmp_path, ToyLoader(**{"n": 50, "shuffle": False, **options}))
    assert Counting.steps == 0
    assert not list(tmp_path.iterdir())


def test_logloss_needs_one_class_only(tmp_path: Path) -> None:
    result = train(tmp_path, ToyLoader(50, shuffle=False, change=alike), monitor="logloss")
    assert "auc" not in result.best
    assert result.best["logloss"] > 0


def test_an_evaluation_that_fails_loses_no_training(tmp_path: Path) -> None:
    class Breaks(ToyModel):
        def forward(self, batch: Batch) -> torch.Tensor:
            logit = super().forward(batch)
            return logit if self.training else logit * torch.inf

    with pytest.raises(InputError, match="must be finite"):
        train(tmp_path, ToyLoader(50, shuffle=False), Breaks())
    assert load_checkpoint(tmp_path, "last").step == 13
    assert train(tmp_path, ToyLoader(50, shuffle=False)).steps == 13


@pytest.mark.parametrize("work", ["fit", "score", "predict", "largest batch", "failing fit"])
def test_the_callers_world_is_as_before(work: str, tmp_path: Path) -> None:
    model, loader = ToyModel(), ToyLoader(50, shuffle=False)
    careful = ToyLoader(50, shuffle=False)
    careful.__class__ = Careful
    torch.manual_seed(123)
    before = world()
    if work == "fit":
        train(tmp_path, loader, model)
    elif work == "failing fit":
        with pytest.raises(InputError):
            train(tmp_path, ToyLoader(50, change=alike), model)
    elif work == "score":
        score(model, careful, device="cpu")
    elif work == "predict":
        predict(model, careful, device="cpu")
    else:
        batch = next(iter(loader))
        before = world()
        largest_batch_size(model, batch, config=toy_config(), limit=256)
    if work == "failing fit":  # the loader of these tests draws by itself, before training begins
        before["torch"] = torch.get_rng_state().tolist()
    assert world() == before


class Careful(ToyLoader):
    """Draws nothing."""

    def __iter__(self) -> Any:
        state = torch.get_rng_state()
        for batch in super().__iter__():
            torch.set_rng_state(state)
            yield batch


def test_an_ensemble_has_members(tmp_path: Path) -> None:
    """Fresh weights after a training are not those from before it."""
    models = [ToyModel(seed=1) for _ in range(2)]
    torch.manual_seed(123)
    drawn = []
    for number, model in enumerate(models):
        drawn.append(torch.rand(1).item())
        train(tmp_path / str(number), ToyLoader(50, shuffle=False), model)
    assert drawn[0] != drawn[1]


@dataclass(frozen=True)
class Focal:
    """A loss of one's own, with a setting."""

    gamma: float = 2.0

    def __call__(self, logit: torch.Tensor, batch: Batch) -> torch.Tensor:
        plain = click_loss(logit, batch)
        return (1 - (-plain).exp()) ** self.gamma * plain


def test_a_run_resumes_with_the_loss_that_it_began_with(tmp_path: Path) -> None:
    def go(loss: Any) -> None:
        fit(
            ToyModel(),
            ToyLoader(50),
            ToyLoader(50, shuffle=False),
            config=toy_config(epochs=1),
            out=tmp_path,
            recipe={},
            loss=loss,
        )

    go(Focal(2.0))
    go(Focal(2.0))
    for other in (Focal(1.0), None, lambda logit, batch: click_loss(logit, batch)):
        with pytest.raises(InputError, match="another loss"):
            go(other)


@pytest.mark.parametrize("monitor", ["auc", "logloss"])
def test_some_missing_labels_are_left_out_of_the_metrics(monitor: str, tmp_path: Path) -> None:
    model = Counting()
    result = train(
        tmp_path, ToyLoader(50, shuffle=False, change=some_unknown), model, monitor=monitor
    )
    scores = score(model, ToyLoader(50, shuffle=False), device="cpu")
    assert scores.label is not None
    there = scores.row % 5 != 0
    assert result.best["auc"] == auc(scores.label[there], scores.logit[there])

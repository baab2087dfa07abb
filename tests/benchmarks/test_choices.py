"""Both sides of every choice that `benchmarks/choices.py` times compute the same."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from choice_rows import CASES, ROWS, Case, Choice
from choices import Runner
from train_speed import write_data

# One code, another environment; and what is compiled takes minutes.
COMPARED = [row for row in ROWS if row[0].group not in ("pages", "compile")]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("choices")
    given = Namespace(items=307, tags=11)
    for history in ("typical", "full"):
        write_data(folder / history, given, rows=16, history=history)
    return folder


def shrunk(case: Case) -> Case:
    recipe = case.recipe
    encoder = recipe.history.encoder.options
    settings = {
        "items.id_dim": 5,
        "items.tag_dim": 3,
        "items.content_dim": 7 if case.widths[1] else 128,
        "items.id_dropout": 0.0,
        "history.encoder.ff_dim": 8,
        "history.encoder.dropout": 0.0,
        "history.encoder.width": None if encoder.get("width") is None else 10,
        "interaction.bottleneck": None if recipe.interaction.bottleneck is None else 13,
        "interaction.mlp": (8,),
        "interaction.head": (4,),
        "interaction.dropout": 0.0,
        "context.dim": 2,
    }
    recipe = recipe.changed(settings)
    return replace(case, recipe=recipe, widths=(11, 6) if case.widths[1] else case.widths)


@pytest.mark.parametrize(("choice", "case"), COMPARED, ids=[f"{c.group}-{n}" for c, n in COMPARED])
def test_both_sides_give_the_same_logits_before_and_after_steps(
    choice: Choice, case: str, root: Path
) -> None:
    logits = []
    for side in (choice.on, choice.off):
        runner = Runner(shrunk(CASES[case]), side, root, batch_size=8)
        model, found = runner.stepper.model, []
        # Adam divides a gradient by its size: rounding alone could give it a sign.
        for group in runner.stepper.optimizer.param_groups:
            group["eps"] = 1e-3
        for _ in range(3):
            with torch.no_grad():
                found.append(torch.stack([model(batch)[:2] for batch in runner.batches]))
            runner()
        logits.append(torch.stack(found))
    on, off = logits
    assert (on[1] - on[0]).abs().max() > 1e-6  # a step does something
    torch.testing.assert_close(on, off, rtol=1e-5, atol=1e-5)


def test_a_runner_tells_seconds_and_peak_memory(root: Path) -> None:
    runner = Runner(shrunk(CASES["light"]), COMPARED[0][0].on, root, batch_size=8)
    assert runner() > 0
    assert runner.peak() > 0

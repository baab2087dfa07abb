"""Each code block of docs/tracking.md runs as it stands, with stand-ins for what it imports."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from toy_training import ToyLoader, ToyModel, toy_config

from mmrec.train import fit, read_log

TEXT = (Path(__file__).parents[2] / "docs" / "tracking.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


class StandIn(ModuleType):
    """A module that takes any call and keeps it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *given, **named: self.calls.append((name, (given, named)))

    def given_to(self, name: str) -> list[Any]:
        return [given for called, given in self.calls if called == name]


def run_block(number: int, out: Path, **modules: StandIn) -> None:
    """With the toy model, and `modules` in the place of those that the block imports."""
    scope: dict[str, Any] = {
        "fit": fit,
        "model": ToyModel(),
        "train": ToyLoader(),
        "valid": ToyLoader(101, data_seed=2, shuffle=False),
        "config": toy_config(epochs=2),
        "out": out,
        "recipe": {"kind": "toy"},
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        exec(compile(BLOCKS[number], "docs/tracking.md", "exec"), scope)


def test_the_page_has_four_blocks_of_which_the_first_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(BLOCKS) == 4
    run_block(0, tmp_path)
    valid = [line for line in read_log(tmp_path) if line["event"] == "valid"]
    said = capsys.readouterr().out.splitlines()
    assert said == [f"step {line['step']}: logloss {line['logloss']:.4f}" for line in valid]


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run_block(1, tmp_path)
    assert list((tmp_path / "board").glob("events.*"))


@pytest.mark.parametrize(
    ("block", "name", "begins", "logs", "ends"),
    [
        (2, "wandb", "init", "log", "finish"),
        (3, "mlflow", "start_run", "log_metrics", "end_run"),
    ],
)
def test_trackers_get_every_line_of_numbers(
    tmp_path: Path, block: int, name: str, begins: str, logs: str, ends: str
) -> None:
    tracker = StandIn(name)
    run_block(block, tmp_path, **{name: tracker})
    called = Counter(called for called, _ in tracker.calls)
    lines = read_log(tmp_path)
    assert (called[begins], called[logs], called[ends]) == (1, len(lines), 1)
    assert tracker.calls[0][0] == begins
    assert tracker.calls[-1][0] == ends
    for line, (given, named) in zip(lines, tracker.given_to(logs), strict=True):
        assert named["step"] == line["step"]
        assert given[0][f"{line['event']}/epoch"] == line["epoch"]
        assert all(isinstance(value, float) for value in given[0].values())

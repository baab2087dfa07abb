"""What a callback of `fit` hears, and that one which fails costs the run nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from slow_variants import thorough
from toy_training import (
    Stopped,
    ToyLoader,
    ToyModel,
    assert_same_state,
    crash_at,
    state_of,
    toy_config,
)

from mmrec.train import Callback, Diverged, TensorBoard, fit, read_log


class Heard:
    """Keeps what it hears; raises at the event of that number."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.events: list[tuple[str, int, dict[str, Any]]] = []
        self.fails_at = fails_at

    def __call__(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        self.events.append((event, step, dict(values)))
        if len(self.events) - 1 == self.fails_at:
            raise ConnectionError("the tracker does not answer")

    def lines(self) -> list[dict[str, Any]]:
        """As the log has them."""
        between = [e for e in self.events if e[0] not in ("start", "end")]
        return [{"event": event, "step": step, **values} for event, step, values in between]


def train(out: Path, callback: Callback | None, *, hook: Any = None, **changes: Any) -> None:
    settings = {"epochs": 2, "evaluate_every": 7, "save_every_steps": 4, **changes}
    fit(
        ToyModel(),
        ToyLoader(hook=hook),
        ToyLoader(101, data_seed=2, shuffle=False),
        config=toy_config(**settings),
        out=out,
        recipe={"kind": "toy"},
        callback=callback,
    )


def test_hears_every_line_of_the_log_once_and_in_order(tmp_path: Path) -> None:
    heard = Heard()
    train(tmp_path, heard)
    assert heard.lines() == read_log(tmp_path)
    (first, step, told), *_, last = heard.events
    assert (first, step, told["recipe"]) == ("start", 0, {"kind": "toy"})
    assert last == ("end", 26, {"finished": "epochs"})
    assert {name for name, _, _ in heard.events} == {"start", "train", "valid", "end"}
    again = Heard()
    train(tmp_path, again)  # has ended before
    assert [event[:2] for event in again.events] == [("start", 26), ("end", 26)]


def test_a_stopped_run_says_so_and_the_next_where_it_begins(tmp_path: Path) -> None:
    before, after = Heard(), Heard()
    with pytest.raises(Stopped):
        train(tmp_path, before, hook=crash_at(11))
    assert before.events[-1] == ("end", 10, {"finished": None})
    train(tmp_path, after)
    assert after.events[0][:2] == ("start", 8)
    known = [line for line in before.lines() if line["step"] <= 8]
    assert known + after.lines() == read_log(tmp_path)


# Of 12: start, train at 5, valid at 7, …, the second epoch's valid, end.
@pytest.mark.parametrize("event", [0, 2, 10, 11, *map(thorough, (1, *range(3, 10)))])
def test_one_that_raises_is_heard_and_the_run_goes_on_from_there(
    tmp_path: Path, event: int
) -> None:
    train(tmp_path / "whole", None)
    failing = Heard(fails_at=event)
    with pytest.raises(ConnectionError, match="the tracker does not answer"):
        train(tmp_path / "failed", failing)
    assert len(failing.events) == event + 1  # and was called no more
    after = Heard()
    train(tmp_path / "failed", after)
    assert_same_state(state_of(tmp_path / "whole"), state_of(tmp_path / "failed"))
    step = failing.events[-1][1]  # nothing is trained twice
    assert after.events[0][1] == step


def test_skipped_steps_are_heard_before_the_run_gives_up(tmp_path: Path) -> None:
    class Broken(ToyModel):
        def forward(self, batch: Any) -> torch.Tensor:
            return super().forward(batch) * (torch.nan if self.training else 1.0)

    heard = Heard()
    with pytest.raises(Diverged):
        fit(
            Broken(),
            ToyLoader(),
            ToyLoader(101, shuffle=False),
            config=toy_config(max_bad_steps=3),
            out=tmp_path,
            recipe={},
            callback=heard,
        )
    assert [event for event, _, _ in heard.events] == ["start", *["skipped"] * 3, "end"]
    assert len(heard.events[1][2]["rows"]) == 16


def test_tensorboard_shows_the_numbers_and_hides_what_a_crash_left(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.raises(Stopped):
        train(tmp_path, TensorBoard(tmp_path / "tensorboard"), hook=crash_at(11))
    train(tmp_path, TensorBoard(tmp_path / "tensorboard"))
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for name, value in (("train", "loss"), ("valid", "auc"), ("valid", "improved")):
        shown = [(e.step, pytest.approx(e.value)) for e in board.Scalars(f"{name}/{value}")]
        lines = [line for line in read_log(tmp_path) if line["event"] == name]
        assert shown == [(line["step"], line[value]) for line in lines]

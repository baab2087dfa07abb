"""The search for a batch size, on a device that refuses memory above a known size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy_training import ToyLoader, ToyModel, toy_config

from mmrec import Batch, InputError
from mmrec.train import largest_batch_size
from mmrec.train.batch_size import settled_batch_size


class Bounded(ToyModel):
    """Runs out of memory above `room` history places."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def forward(self, batch: Batch) -> Tensor:
        if int(batch.valid.sum()) > self.room * batch.history.shape[1]:
            raise torch.OutOfMemoryError
        return super().forward(batch)


@pytest.mark.parametrize(
    ("room", "expected"), [(1000, 256), (512, 256), (511, 128), (130, 128), (10**9, 1024)]
)
def test_finds_the_largest_with_room_to_spare_and_leaves_the_model(
    room: int, expected: int
) -> None:
    model = Bounded(room).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sample = next(iter(ToyLoader(7)))
    config = toy_config(weight_decay=0.1)
    assert largest_batch_size(model, sample, config=config, limit=1024) == expected
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_too_little_room_is_one_sentence() -> None:
    sample = next(iter(ToyLoader(7)))
    with pytest.raises(InputError, match="step of 128 rows runs out of memory on cpu"):
        largest_batch_size(Bounded(127), sample, config=toy_config())
    with pytest.raises(InputError, match="1 <= start <= limit"):
        largest_batch_size(Bounded(1), sample, config=toy_config(), start=8, limit=4)


def test_what_was_found_is_kept_where_the_run_will_be(tmp_path: Path) -> None:
    """Also where there is nothing yet; the next call builds no model."""
    built: list[ToyModel] = []

    def build() -> ToyModel:
        built.append(ToyModel())
        return built[-1]

    path = tmp_path / "runs" / "first" / "batch_size.json"

    def settled() -> int:
        return settled_batch_size(
            build,
            lambda rows: next(iter(ToyLoader(rows, batch_size=rows))),
            config=toy_config(),
            train_rows=1_000_000,
            path=path,
        )

    sizes = [settled() for _ in range(2)]
    assert sizes[0] == sizes[1] > 1
    assert len(built) == 1
    for damaged in ("{}", '{"batch_si', '{"batch_size": -3}', '{"batch_size": "512"}', "[]"):
        path.write_text(damaged)
        with pytest.raises(InputError, match=r"batch_size.json cannot be read \(.+\): remove it"):
            settled()
    path.unlink()
    assert settled() == sizes[0]

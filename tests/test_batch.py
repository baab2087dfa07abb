"""Whatever rides in a batch survives its journeys."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmrec import Batch


@dataclass(frozen=True)
class Weathered(Batch):
    """A subclass with a tensor of its own, and something that is none."""

    rain: Tensor = field(default_factory=lambda: torch.zeros(0))
    source: str = "nowhere"


def batch() -> Weathered:
    return Weathered.of(
        history=torch.tensor([[0, 1], [2, 3]]),
        target=torch.tensor([4, 5]),
        numeric=torch.tensor([[1.0], [torch.nan]]),
        extra={"query": torch.tensor([7, 8])},
        rain=torch.tensor([0.5, 0.25]),
        source="here",
    )


class Batches(Dataset[Batch]):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Batch:
        return batch()


def check(one: Batch) -> None:
    assert isinstance(one, Weathered)
    assert one.extra["query"].tolist() == [7, 8]
    assert one.rain.tolist() == [0.5, 0.25]
    assert one.source == "here"
    assert one.valid.tolist() == [[False, True], [True, True]]


def test_every_role_is_there_and_empty_where_not_named() -> None:
    one = batch()
    shapes = {name: tuple(getattr(one, name).shape) for name in ("labels", "weight", "group")}
    assert shapes == {"labels": (2, 0), "weight": (2, 0), "group": (2, 0)}
    assert one.categorical.shape == (2, 0)
    assert one.history_categorical.shape == one.history_numeric.shape == (2, 2, 0)
    assert one.user.tolist() == one.row.tolist() == [0, 1]
    assert len(one) == 2


def test_extra_tensors_and_subclasses_survive() -> None:
    one = batch()
    check(one.to("cpu"))
    check(pickle.loads(pickle.dumps(one)))
    moved = one.to("meta")
    assert {tensor.device.type for tensor in moved.tensors()} == {"meta"}
    assert len(list(moved.tensors())) == 13
    for sent in DataLoader(Batches(), batch_size=None, num_workers=1):
        check(sent)
    few = one.map(lambda tensor: tensor[1:])
    assert isinstance(few, Weathered)
    assert few.extra["query"].tolist() == [8]
    assert len(few) == 1

"""Numbers against loops: standardised, embedded per column, a learned vector where missing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from mmrec.errors import InputError
from mmrec.nn import LinearNumbers, PeriodicNumbers

MEAN, STD = [3.0, -1.0, 100.0], [2.0, 0.5, 1.0]
VALUES = torch.tensor([[5.0, math.nan, 101.0], [math.nan, -2.0, math.nan]], dtype=torch.float64)


def linear(encoder: LinearNumbers, column: int, z: float) -> Tensor:
    return z * encoder.weight[column] + encoder.bias[column]


def periodic(encoder: PeriodicNumbers, column: int, z: float) -> Tensor:
    angles = [2 * math.pi * z * c for c in encoder.frequency[column].tolist()]
    waves = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    total = encoder.bias[column].clone()
    for wave, row in zip(waves, encoder.weight[column], strict=True):
        total = total + wave * row
    return total.clamp(min=0)


@pytest.mark.parametrize(("kind", "one"), [(LinearNumbers, linear), (PeriodicNumbers, periodic)])
@pytest.mark.parametrize("total", [False, True])
def test_each_column_is_its_equation(kind: type, one: object, total: bool, stirred: object) -> None:
    encoder = stirred(kind(mean=MEAN, std=STD, dim=5, total=total))
    got = encoder(VALUES)
    for row, values in zip(got, VALUES.tolist(), strict=True):
        vectors = []
        for column, value in enumerate(values):
            z = (value - MEAN[column]) / STD[column]
            missing = math.isnan(value)
            vectors.append(encoder.absent[column] if missing else one(encoder, column, z))
        expected = torch.stack(vectors).sum(0) if total else torch.cat(vectors)
        torch.testing.assert_close(row, expected)
    assert encoder.out_dim == got.shape[-1] == (5 if total else 15)


@pytest.mark.parametrize("kind", [LinearNumbers, PeriodicNumbers])
def test_a_missing_number_trains_its_vector_alone(kind: type[nn.Module]) -> None:
    encoder = kind(mean=[0.0], std=[1.0], dim=2)
    encoder(torch.tensor([[math.nan]])).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert bool(parameter.grad.any()) == (name == "absent"), name


def test_moments_travel_with_the_weights() -> None:
    first = LinearNumbers(mean=[3.0], std=[2.0], dim=2)
    again = LinearNumbers(mean=[0.0], std=[1.0], dim=2)
    again.load_state_dict(first.state_dict())
    values = torch.tensor([[7.5], [math.nan]])
    assert torch.equal(first(values), again(values))


def test_mistakes_are_one_sentence() -> None:
    with pytest.raises(InputError, match="mean and std a column, got 1 and 2"):
        LinearNumbers(mean=[0.0], std=[1.0, 1.0], dim=2)
    with pytest.raises(InputError, match="must hold 1 columns, got 3"):
        LinearNumbers(mean=[0.0], std=[1.0], dim=2)(torch.zeros(2, 3))

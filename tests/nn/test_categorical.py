"""Categories against a dict a column, values never seen in training included."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmrec.errors import InputError
from mmrec.io.hashing import mix64
from mmrec.nn import CategoricalEncoder, Vocabulary
from mmrec.nn.categorical import ABSENT, mixed
from mmrec.schema import ABSENT as IN_THE_BATCH

WIDE = st.integers(-(2**62), 2**62)


def slow(encoder: CategoricalEncoder, columns: list[Vocabulary], row: list[int]) -> Tensor:
    """One row: of each column the mean of its values' vectors."""
    vectors, first, place = [], 0, 0
    for column in columns:
        known = {value: number for number, value in enumerate(column.known.tolist(), start=1)}
        own = []
        for value in row[place : place + column.places]:
            if value == ABSENT and column.places > 1:
                continue
            if column.hash_size is not None:
                number = 1 + (mix64(value % 2**64) & (2**63 - 1)) % column.hash_size
            else:
                number = known.get(value, 0)
            own.append(encoder.table.weight[first + number])
        zero = torch.zeros(encoder.dim, dtype=torch.float64)
        vectors.append(torch.stack(own).mean(0) if own else zero)
        first += 1 + len(column)
        place += column.places
    return torch.stack(vectors).sum(0) if encoder.total else torch.cat(vectors)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(-3, 30), max_size=9, unique=True),
    st.lists(WIDE, max_size=9, unique=True),
    st.lists(st.tuples(WIDE, st.integers(-5, 35), WIDE), min_size=1, max_size=5),
    st.booleans(),
)
def test_vectors_are_those_of_a_dict(
    near: list[int], far: list[int], rows: list[tuple[int, int, int]], total: bool
) -> None:
    """Values close together, far apart, hashed, and several a row."""
    columns = [
        Vocabulary(torch.tensor(sorted(near), dtype=torch.int64)),
        Vocabulary(torch.tensor(sorted(far), dtype=torch.int64)),
        Vocabulary(torch.empty(0, dtype=torch.int64), hash_size=7),
        Vocabulary(torch.tensor(sorted(near), dtype=torch.int64), places=3),
    ]
    encoder = CategoricalEncoder(columns=columns, dim=2, total=total).double()
    torch.nn.init.normal_(encoder.table.weight)
    values = []
    for number, (anything, small, other) in enumerate(rows):
        seen = far[number % len(far)] if far else other
        values.append([small, seen, anything, ABSENT, small, near[0] if near else small])
        values.append([anything, other, small, ABSENT, ABSENT, ABSENT])
    got = encoder(torch.tensor(values).unsqueeze(1)).squeeze(1)
    expected = torch.stack([slow(encoder, columns, row) for row in values])
    torch.testing.assert_close(got, expected)
    assert got.shape == (len(values), encoder.out_dim)


def test_unknown_starts_at_zero_and_is_trained_by_what_reads_it() -> None:
    encoder = CategoricalEncoder(columns=[Vocabulary(torch.tensor([0, 5]))], dim=3)
    assert not encoder(torch.tensor([[1], [-7]])).any()
    assert encoder(torch.tensor([[0]])).any()  # zero is a value like others
    encoder(torch.tensor([[1]])).sum().backward()
    gradient = encoder.table.weight.grad
    assert gradient is not None
    assert gradient[0].tolist() == [1.0, 1.0, 1.0]
    assert not gradient[1:].any()


def test_known_values_travel_with_the_weights() -> None:
    first = CategoricalEncoder(columns=[Vocabulary(torch.tensor([3, 2**60]))], dim=2)
    again = CategoricalEncoder(columns=[Vocabulary(torch.arange(2))], dim=2)
    again.load_state_dict(first.state_dict())
    values = torch.tensor([[3], [2**60], [0], [1]])
    assert torch.equal(first(values), again(values))


def test_hashes_are_those_of_the_library_and_even() -> None:
    values = torch.tensor([0, 1, -1, 2**62, -(2**63), 123456789])
    expected = [mix64(value % 2**64) & (2**63 - 1) for value in values.tolist()]
    assert mixed(values).tolist() == expected
    counts = torch.bincount(mixed(torch.arange(100_000)) % 100, minlength=100)
    assert ((counts - 1000).abs() < 5 * 1000**0.5).all()


def test_mistakes_are_one_sentence() -> None:
    assert ABSENT == IN_THE_BATCH
    with pytest.raises(InputError, match="needs a column, got none"):
        CategoricalEncoder(columns=[], dim=2)
    encoder = CategoricalEncoder(columns=[Vocabulary(torch.arange(2))], dim=2)
    with pytest.raises(InputError, match="must hold 1 places, got 2"):
        encoder(torch.zeros(3, 2, dtype=torch.int64))


def test_the_largest_integers_are_unknown_values_too() -> None:
    """Their distance from a negative value is no integer of 64 bits."""
    encoder = CategoricalEncoder(columns=[Vocabulary(torch.tensor([-7, 3]))], dim=2)
    values = torch.tensor([[2**63 - 1], [-(2**63)], [3]])
    assert encoder.rows(values).tolist() == [[0], [0], [2]]

"""MLP, users, interaction and losses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mmrec.errors import InputError
from mmrec.models import Wide
from mmrec.nn import (
    MLP,
    CrossAndDeep,
    CrossNetV2,
    UserEncoder,
    UserIndex,
    alignment,
    info_nce,
)


def test_mlp_layers_in_order() -> None:
    mlp = MLP(in_dim=5, hidden=(7, 3), dropout=0.2, activation=nn.GELU, out_dim=2)
    once = [nn.Linear, nn.GELU, nn.Dropout]
    assert [type(layer) for layer in mlp.layers] == [*once, *once, nn.Linear]
    assert (mlp.in_dim, mlp.out_dim) == (5, 2)
    assert MLP(in_dim=5, hidden=()).out_dim == 5
    with pytest.raises(InputError, match=r"hidden\[1\] must be .* got 0"):
        MLP(in_dim=5, hidden=(7, 0))
    with pytest.raises(InputError, match=r"dropout must lie in \[0, 1\), got 1.0"):
        MLP(in_dim=5, hidden=(7,), dropout=1.0)


def test_users_of_any_size_and_order() -> None:
    index = UserIndex(known=torch.tensor([2**40, 3, 17, 3]))
    assert index(torch.tensor([3, 17, 2**40, 0, 18, 2**62])).tolist() == [1, 2, 3, 0, 0, 0]
    assert len(index) == 3
    with pytest.raises(InputError, match="at least one id"):
        UserIndex(known=torch.tensor([], dtype=torch.int64))


def test_user_dropout_teaches_the_shared_vector() -> None:
    users = UserEncoder(num_users=5, dim=3, dropout=0.25)
    drawn = users(torch.full((4000,), 3))
    shared = (drawn == users.table.weight[0]).all(1).float().mean()
    assert abs(shared - 0.25) < 0.03
    assert torch.equal(users.eval()(torch.tensor([3, 0])), users.table.weight[[3, 0]])


def test_wide_adds_the_biases() -> None:
    index, wide = UserIndex(known=torch.tensor([70, 7])), Wide(num_items=4, num_users=2)
    with torch.no_grad():
        wide.item.weight.copy_(torch.tensor([[0.0], [1], [2], [3]]))
        wide.user.weight.copy_(torch.tensor([[10.0], [20], [30]]))
    place = index(torch.tensor([7, 70, 8]))
    assert wide(torch.tensor([3, 1, 2]), place).tolist() == [[23.0], [31.0], [12.0]]
    assert Wide(num_items=4)(torch.tensor([3])).tolist() == [[0.0]]
    assert Wide(num_items=4, tasks=2)(torch.tensor([3])).tolist() == [[0.0, 0.0]]


def test_interaction_checks_its_parts() -> None:
    with pytest.raises(InputError, match="CrossNetV2 must take what comes in, 9 wide, got 4"):
        CrossAndDeep(in_dim=9, cross=CrossNetV2(dim=4, depth=1), deep=None)
    with pytest.raises(InputError, match="got neither"):
        CrossAndDeep(in_dim=9, cross=None, deep=None)


def info_nce_loops(
    a: list[list[float]], b: list[list[float]], temperature: float, ids: list[set[int]]
) -> float:
    def cosine(x: list[float], y: list[float]) -> float:
        dot = sum(p * q for p, q in zip(x, y, strict=True))
        return dot / math.sqrt(sum(p * p for p in x) * sum(q * q for q in y))

    def one_way(x: list[list[float]], y: list[list[float]]) -> float:
        total = 0.0
        for i in range(len(x)):
            others = [j for j in range(len(y)) if j == i or not ids[i] & ids[j]]
            scores = [math.exp(cosine(x[i], y[j]) / temperature) for j in others]
            total -= math.log(math.exp(cosine(x[i], y[i]) / temperature) / sum(scores))
        return total / len(x)

    return (one_way(a, b) + one_way(b, a)) / 2


def test_info_nce_is_the_plain_loop() -> None:
    a, b = torch.randn(7, 3, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)
    none = [{i} for i in range(7)]
    expected = info_nce_loops(a.tolist(), b.tolist(), 0.3, none)
    assert abs(info_nce(a, b, temperature=0.3).item() - expected) < 1e-12
    pairs = torch.tensor([[1, 2], [3, 1], [4, 5], [6, 7], [5, 8], [9, 10], [1, 2]])
    shared = info_nce_loops(a.tolist(), b.tolist(), 0.3, [set(p) for p in pairs.tolist()])
    assert abs(info_nce(a, b, temperature=0.3, ids=pairs).item() - shared) < 1e-12
    assert abs(shared - expected) > 1e-3
    assert info_nce(a[:1], b[:1]).item() == 0.0
    half = info_nce(a.bfloat16(), b.bfloat16(), temperature=0.3)
    assert half.dtype == torch.float32


def test_alignment_is_the_plain_loop() -> None:
    a, b = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    slow = sum(
        sum((p / x.norm() - q / y.norm()) ** 2 for p, q in zip(x, y, strict=True))
        for x, y in zip(a, b, strict=True)
    )
    torch.testing.assert_close(alignment(a, b), slow / 5)
    torch.testing.assert_close(alignment(a, 3 * a), torch.tensor(0.0, dtype=torch.float64))

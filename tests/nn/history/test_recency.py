"""Shares of signs of late: equal to loops, padding inert, the newest first in weight."""

from __future__ import annotations

import math

import pytest
import torch

from mmrec import InputError
from mmrec.nn import Recency

ROWS, LENGTH, SIGNS, HEADS = 5, 7, 2, 3


def test_it_is_its_equation() -> None:
    torch.manual_seed(0)
    recency = Recency(signs=SIGNS, heads=HEADS).double()
    with torch.no_grad():
        for parameter in recency.parameters():
            parameter.add_(torch.randn_like(parameter))
    lengths = torch.tensor([0, 1, 3, 7, 5])
    valid = torch.arange(LENGTH) >= LENGTH - lengths.unsqueeze(1)
    signs = torch.randint(0, 2, (ROWS, LENGTH, SIGNS)).double()
    out = recency(valid, signs).view(ROWS, SIGNS, HEADS)
    for row in range(ROWS):
        for sign in range(SIGNS):
            for head in range(HEADS):
                horizon = math.exp(-recency.log_rate[head].item())
                prior = math.exp(recency.log_prior[head].item())
                mass = signed = 0.0
                for age in range(int(lengths[row])):
                    weight = math.exp(-age / horizon)
                    mass += weight
                    signed += weight * signs[row, LENGTH - 1 - age, sign].item()
                wanted = 4 * ((signed + prior / 2) / (mass + prior) - 0.5)
                assert out[row, sign, head].item() == pytest.approx(wanted, abs=1e-12)


def test_padding_is_inert_and_a_row_of_it_alone_says_nothing() -> None:
    recency = Recency(signs=1, heads=HEADS)
    valid = torch.tensor([[False, True, True], [False, False, False]])
    signs = torch.tensor([[[1.0], [1.0], [0.0]], [[1.0], [0.0], [1.0]]])
    spoiled = signs.masked_fill(~valid.unsqueeze(-1), torch.nan)
    out = recency(valid, spoiled)
    assert torch.equal(out, recency(valid, signs))
    assert torch.equal(out[1], torch.zeros(HEADS))
    longer = (
        torch.cat([valid.new_zeros(2, 4), valid], 1),
        torch.cat([signs.new_ones(2, 4, 1), signs], 1),
    )
    torch.testing.assert_close(recency(*longer), out)
    out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in recency.parameters())


def test_the_newest_weighs_most_and_most_in_the_shortest_horizon() -> None:
    recency = Recency(signs=1, heads=HEADS)
    valid = torch.ones(2, 6, dtype=torch.bool)
    new, old = torch.zeros(6, 1), torch.zeros(6, 1)
    new[-1], old[0] = 1, 1
    of_new, of_old = recency(valid, torch.stack([new, old]))
    assert (of_new > of_old).all()
    assert (of_new.diff() < 0).all()


def test_other_shapes_are_refused() -> None:
    with pytest.raises(InputError, match=r"signs must be \(B, L, 1\) beside valid \(2, 3\)"):
        Recency(signs=1)(torch.ones(2, 3, dtype=torch.bool), torch.ones(2, 4, 1))

"""Signed target attention against loops, and the frozen spaces that it reads."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmrec.errors import InputError
from mmrec.nn import Affinity, FrozenFeatures, Signs, TagSets

ROWS, SPACES, LENGTH, SIGNS, HEADS = 5, 2, 7, 3, 4
ITEMS, WIDTH = 19, 11


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    cosine = torch.rand(ROWS, SPACES, LENGTH, dtype=torch.float64) * 2 - 1
    there = torch.rand(ROWS, SPACES, LENGTH) < 0.6
    there[0] = False
    signs = (torch.rand(ROWS, LENGTH, SIGNS) < 0.5).double()
    return cosine, there, signs


def test_masses_and_shares_are_the_equation() -> None:
    affinity = Affinity(spaces=SPACES, signs=SIGNS, heads=HEADS).double()
    with torch.no_grad():
        for parameter in affinity.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    cosine, there, signs = inputs()
    out = affinity(cosine, there, signs).view(ROWS, SPACES, HEADS, 1 + SIGNS)
    for row in range(ROWS):
        for space in range(SPACES):
            for head in range(HEADS):
                tau = math.exp(affinity.log_temperature[space, head].item())
                prior = math.exp(affinity.log_prior[space, head].item())
                places = [p for p in range(LENGTH) if there[row, space, p]]
                weights = [math.exp((cosine[row, space, p].item() - 1) / tau) for p in places]
                mass = sum(weights)
                expected = [(math.log(mass + 1e-3) + 2) / 2]
                for sign in range(SIGNS):
                    signed = sum(
                        w * signs[row, p, sign].item() for w, p in zip(weights, places, strict=True)
                    )
                    expected.append(4 * ((signed + prior / 2) / (mass + prior) - 0.5))
                torch.testing.assert_close(
                    out[row, space, head], torch.tensor(expected, dtype=torch.float64)
                )


def test_what_is_not_there_is_inert_even_if_not_a_number() -> None:
    affinity = Affinity(spaces=SPACES, signs=SIGNS, heads=HEADS).double()
    cosine, there, signs = inputs()
    spoiled = torch.where(there, cosine, float("nan"))
    out = affinity(spoiled, there, signs)
    assert torch.equal(out, affinity(cosine.masked_fill(~there, 0), there, signs))
    out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in affinity.parameters())


def test_without_signs_there_are_masses_alone() -> None:
    affinity = Affinity(spaces=SPACES, signs=0, heads=1).double()
    cosine, there, signs = inputs()
    assert affinity(cosine, there, signs[..., :0]).shape == (ROWS, SPACES)
    with pytest.raises(InputError, match=r"signs must be .*\(B, L, 0\), got .*\(5, 7, 3\)"):
        affinity(cosine, there, signs)


def test_signs_are_values_of_categories() -> None:
    categories = torch.tensor([[[0, 2], [1, 1]]])
    signs = Signs(pairs=[(0, 1), (1, 1), (1, 2)])
    assert signs(categories).tolist() == [[[0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]]
    assert Signs(pairs=[])(categories).shape == (1, 2, 0)


def features(components: int, shown: Tensor | None = None) -> FrozenFeatures:
    torch.manual_seed(1)
    vectors, present = torch.randn(ITEMS, WIDTH) * 3, torch.arange(ITEMS) % 3 > 0
    return FrozenFeatures(
        vectors=vectors, present=present, shown=shown, standardize=True, components=components
    )


def test_all_components_bend_no_space() -> None:
    """As many as there are dimensions: the standardised vectors' own angles, about their mean."""
    plain, compressed = features(0), features(99)
    ids = torch.arange(ITEMS)
    vectors, present = plain(ids)
    centred = vectors - vectors[present].mean(0)
    history = ids.repeat(ITEMS, 1)
    cosine, there = compressed.cosine(history, ids)
    expected = torch.nn.functional.cosine_similarity(centred[None], centred[:, None], dim=-1)
    assert torch.equal(there, present[None] & present[:, None])
    torch.testing.assert_close(cosine[there], expected[there], atol=1e-4, rtol=0)
    assert compressed.out_dim == WIDTH


def test_a_checkpoint_brings_the_components_of_other_items() -> None:
    """They are of the items shown in training; loaded, all tables follow."""
    first = features(4, torch.arange(ITEMS) < 12)
    second = features(4, torch.arange(ITEMS) >= 7)
    ids = torch.arange(ITEMS)
    assert not torch.allclose(first(ids)[0], second(ids)[0], atol=1e-3)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(ids)[0], second(ids)[0])
    blank = FrozenFeatures(
        vectors=torch.randn(3, WIDTH), present=torch.ones(3).bool(), components=2, estimate=False
    )
    with pytest.raises(InputError, match="similarities need components"):
        blank(torch.tensor([1]))


def test_what_no_item_has_is_zero() -> None:
    none = FrozenFeatures(
        vectors=torch.zeros(ITEMS, WIDTH), present=torch.zeros(ITEMS).bool(), components=4
    )
    vectors, present = none(torch.arange(ITEMS))
    assert not vectors.any()
    assert not present.any()


@pytest.mark.parametrize("width", [64, 7])
def test_tags_are_alike_as_sets(width: int) -> None:
    tags = torch.tensor([[0, 0, 0], [0, 1, 2], [2, 1, 0], [0, 0, 2], [3, 4, 5], [90, 91, 0]])
    sets = TagSets(tags=tags, width=width)
    cosine, there = sets.cosine(torch.arange(6).repeat(6, 1), torch.arange(6))
    assert there.sum() == 25
    assert not there[0].any()
    assert cosine[1, 2] == pytest.approx(1)
    assert cosine[1, 3] == pytest.approx(1 / math.sqrt(2))
    assert cosine[1, 4] == 0


def test_hashed_tags_keep_the_cosine_on_average() -> None:
    torch.manual_seed(0)
    tags = torch.randint(64, 20_000, (2000, 6))
    tags[1::2, :3] = tags[::2, :3]  # half of them shared
    sets = TagSets(tags=tags, width=64)
    cosine, _ = sets.cosine(torch.arange(0, 2000, 2)[:, None], torch.arange(1, 2000, 2))
    assert cosine.mean() == pytest.approx(0.5, abs=0.02)
    apart, _ = sets.cosine(torch.arange(0, 1998, 2)[:, None], torch.arange(3, 2000, 2))
    assert apart.mean() == pytest.approx(0.0, abs=0.02)

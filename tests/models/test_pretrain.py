"""Pretraining the fusion: which pairs it draws, what it learns, and that it repeats itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmrec.errors import InputError
from mmrec.models.pretrain import neighbours, pretrain_fusion
from mmrec.nn import ItemEncoder
from mmrec.nn.fusion import AttentionFusion, PrecomputedFusion

ITEMS, GROUPS, IMAGE, TEXT, OUT = 61, 3, 7, 5, 4


def encoder(seed: int = 0) -> ItemEncoder:
    """Three groups of items; a group shows in two dimensions of each modality, amid noise."""
    generator = torch.Generator().manual_seed(seed)
    group = torch.arange(ITEMS) % GROUPS
    image = 2 * torch.randn(ITEMS, IMAGE, generator=generator)
    text = 2 * torch.randn(ITEMS, TEXT, generator=generator)
    centre = torch.tensor([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]])[group]
    image[:, 3:5], text[:, 1:3] = centre, centre
    there = torch.ones(ITEMS, dtype=torch.bool)
    there[0] = False
    torch.manual_seed(seed)
    return ItemEncoder(
        tags=torch.zeros(ITEMS, 1, dtype=torch.int64),
        vectors={"image": image, "text": text},
        present={"image": there, "text": there & (torch.arange(ITEMS) % 5 != 0)},
        id_dim=2,
        fusion=AttentionFusion(dims={"image": IMAGE, "text": TEXT}, out_dim=OUT, dropout=0.1),
    )


def histories() -> list[Tensor]:
    """Each row of one group alone, left-padded, with 0 to 8 items."""
    generator = torch.Generator().manual_seed(5)
    batches = []
    for _ in range(20):
        group = torch.randint(0, GROUPS, (32, 1), generator=generator)
        place = torch.randint(0, ITEMS // GROUPS - 1, (32, 8), generator=generator)
        rows = 3 + group + GROUPS * place
        length = torch.randint(0, 9, (32, 1), generator=generator)
        batches.append(rows.masked_fill(torch.arange(8) < 8 - length, 0))
    return batches


def test_pairs_are_near_neighbours_of_one_row() -> None:
    history = torch.arange(1, 9).repeat(500, 1) + 8 * torch.arange(500).unsqueeze(1)
    length = torch.arange(500) % 9
    history = history.masked_fill(torch.arange(8) < 8 - length[:, None], 0)
    pairs = neighbours(history, window=3, generator=torch.Generator().manual_seed(0))
    assert len(pairs) == int((length >= 2).sum())
    gap = pairs[:, 1] - pairs[:, 0]
    assert sorted(gap.unique().tolist()) == [1, 2, 3]
    assert torch.equal((pairs[:, 0] - 1) // 8, (pairs[:, 1] - 1) // 8)
    assert torch.isin(pairs, history[history != 0]).all()
    places = ((pairs[length[length >= 2] == 8] - 1) % 8).unique()
    assert len(places) == 8  # every place of a full row is drawn
    repeated = torch.tensor([[0, 4, 4]])
    assert len(neighbours(repeated, window=1, generator=torch.Generator())) == 0


def test_it_learns_what_goes_together_and_touches_nothing_else() -> None:
    items = encoder()
    ids = items.ids.weight.clone()
    before = purity(items)
    result = pretrain_fusion(items, histories(), epochs=6, learning_rate=5e-3, window=2)
    assert purity(items) > 0.9 > before
    assert result.together[-1] < 0.9 * result.together[0]
    assert result.modalities[-1] < 0.9 * result.modalities[0]
    assert len(result.pairs) == 6
    assert torch.equal(items.ids.weight, ids)


def purity(items: ItemEncoder) -> float:
    """How often an item's nearest neighbour in the fused space is of its own group."""
    table = torch.nn.functional.normalize(items.content_table()[1:], dim=-1)
    score = (table @ table.T).fill_diagonal_(-2)
    group = torch.arange(1, ITEMS) % GROUPS
    return float((group[score.argmax(1)] == group).float().mean())


def test_same_seed_same_weights_whatever_was_drawn_before() -> None:
    results = []
    for noise in (1, 2, 3):
        items = encoder()
        torch.manual_seed(noise)
        after = torch.get_rng_state()
        pretrain_fusion(items, histories()[:3], seed=9 + (noise == 3))
        assert torch.equal(torch.get_rng_state(), after)
        results.append(items.content_table())
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_what_cannot_be_trained_is_named() -> None:
    items = encoder()
    with pytest.raises(InputError, match="histories of two items or more, got none"):
        pretrain_fusion(items, [torch.tensor([[0, 3], [0, 0]])])
    items.fusion = PrecomputedFusion(dims={"image": IMAGE}, out_dim=IMAGE, learn_absent=False)
    with pytest.raises(InputError, match="a fusion with parameters"):
        pretrain_fusion(items, histories())
    items.fusion = None
    with pytest.raises(InputError, match="with a fusion, this one has none"):
        pretrain_fusion(items, histories())

"""Heads of an interaction of parts that candidates have in common, against the plain thing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmrec.nn.cross import CrossNetLowRank, CrossNetV2
from mmrec.nn.interaction import CrossAndDeep
from mmrec.nn.mlp import MLP
from mmrec.serve.crossing import Crossing

WIDTHS = (3, 2, 5, 7)  # of the parts; the third is the item's
ITEM, X = 2, sum(WIDTHS)
BEGIN = sum(WIDTHS[:ITEM])

INTERACTIONS: dict[str, Any] = {
    "cross and deep": lambda: CrossAndDeep(
        in_dim=X, cross=CrossNetV2(dim=X), deep=MLP(in_dim=X, hidden=(11, 4))
    ),
    "three layers": lambda: CrossAndDeep(in_dim=X, cross=CrossNetV2(dim=X, depth=3), deep=None),
    "one layer": lambda: CrossAndDeep(
        in_dim=X, cross=CrossNetV2(dim=X, depth=1), deep=MLP(in_dim=X, hidden=(11,))
    ),
    "deep": lambda: CrossAndDeep(in_dim=X, cross=None, deep=MLP(in_dim=X, hidden=(11,))),
    "bottleneck": lambda: CrossAndDeep(
        in_dim=X, cross=CrossNetV2(dim=6), deep=MLP(in_dim=6, hidden=(4,)), bottleneck=6
    ),
    "low rank": lambda: CrossAndDeep(in_dim=X, cross=CrossNetLowRank(dim=X), deep=None),
    "another": lambda: MLP(in_dim=X, hidden=(4,)),
}
ALIKE = ((True, True, False, False), (True, False, False, False), (False, True, False, False))


class Bent(CrossNetV2):
    """A subclass that means something else, and says so in `forward` alone."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).tanh()


class BentWithin(CrossNetV2):
    def entered(self, x: Tensor, first: Tensor) -> Tensor:
        return super().entered(x, first).tanh()


class BentWhole(CrossAndDeep):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).tanh()


class Louder(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 1.1


class BentHead(MLP):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).tanh()


def bent_layer() -> CrossAndDeep:
    crosses = CrossNetV2(dim=X)
    crosses.layers[-1] = Louder(X, X)
    return CrossAndDeep(in_dim=X, cross=crosses, deep=None)


BENT: dict[str, Any] = {
    "forward": lambda: CrossAndDeep(in_dim=X, cross=Bent(dim=X), deep=None),
    "entered": lambda: CrossAndDeep(in_dim=X, cross=BentWithin(dim=X), deep=None),
    "whole": lambda: BentWhole(in_dim=X, cross=CrossNetV2(dim=X), deep=None),
    "layer": bent_layer,
}


def of_parts(crossing: Crossing, parts: list[Tensor], entries: Tensor | None) -> Tensor:
    found: Tensor = crossing(parts, ITEM, entries)
    return found


@pytest.mark.parametrize("count", [0, 1, 6])
@pytest.mark.parametrize("alike", [*ALIKE, (False,) * 4])
@pytest.mark.parametrize("hidden", [(), (5,)])
@pytest.mark.parametrize("users", [1, 2])
@pytest.mark.parametrize("name", INTERACTIONS)
def test_it_is_the_heads_of_the_interaction(
    name: str, users: int, hidden: tuple[int, ...], alike: tuple[bool, ...], count: int
) -> None:
    torch.manual_seed(0)
    interaction: nn.Module = INTERACTIONS[name]().double()
    width: Any = interaction.out_dim
    heads = nn.ModuleList(MLP(in_dim=width, hidden=hidden, out_dim=1) for _ in range(2)).double()
    ranker: Any = SimpleNamespace(interaction=interaction, heads=heads)
    check(ranker, alike, count, users=users)


@pytest.mark.parametrize("kind", [MLP, BentHead])
@pytest.mark.parametrize("name", BENT)
def test_a_users_subclass_is_called_as_it_is(name: str, kind: type[MLP]) -> None:
    torch.manual_seed(0)
    interaction = BENT[name]().double()
    head = kind(in_dim=X, hidden=(), out_dim=1).double()
    ranker: Any = SimpleNamespace(interaction=interaction, heads=nn.ModuleList([head]))
    check(ranker, ALIKE[0], 6, users=1)


def test_a_head_may_be_any_module() -> None:
    interaction = INTERACTIONS["cross and deep"]().double()
    for head in (BentHead(in_dim=X + 4, hidden=(), out_dim=1), nn.Linear(X + 4, 1, bias=False)):
        ranker: Any = SimpleNamespace(interaction=interaction, heads=nn.ModuleList([head.double()]))
        check(ranker, ALIKE[0], 6, users=1)


def check(ranker: Any, alike: tuple[bool, ...], count: int, *, users: int) -> None:
    """Against the heads of the interaction of all parts, with what is known of the item, too."""
    crossing, interaction, heads = Crossing(ranker, begin=BEGIN), ranker.interaction, ranker.heads
    shapes = [(users, 1 if one else count, width) for one, width in zip(alike, WIDTHS, strict=True)]
    parts = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    x = torch.cat([part.expand(users, count, -1) for part in parts], dim=-1)
    wanted = torch.cat([head(interaction(x)) for head in heads], dim=-1)
    torch.testing.assert_close(of_parts(crossing, parts, None), wanted, rtol=0, atol=1e-12)
    entry = crossing.entry_of(WIDTHS[ITEM])
    if entry is not None:
        entries = parts[ITEM] @ entry.T
        torch.testing.assert_close(of_parts(crossing, parts, entries), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", INTERACTIONS)
def test_the_last_layer_is_folded_where_linear_heads_read_it(name: str) -> None:
    interaction = INTERACTIONS[name]()
    for hidden in ((), (5,)):
        head = MLP(in_dim=interaction.out_dim, hidden=hidden, out_dim=1)
        ranker: Any = SimpleNamespace(interaction=interaction, heads=nn.ModuleList([head]))
        folds = name in ("cross and deep", "three layers") and not hidden
        assert (Crossing(ranker, begin=BEGIN).last is not None) == folds

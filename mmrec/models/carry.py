"""Weights of a former catalogue in the places of this one: rows of tables move, the rest stays.

Which tables hold a row an item, a tag or a user is said by the modules themselves.

N items, K users, V rows of a table of categories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from mmrec.nn.categorical import CategoricalEncoder

Table = nn.Embedding | nn.EmbeddingBag


@runtime_checkable
class HasItemRows(Protocol):
    """A module with tables of N rows, one an item."""

    def item_tables(self) -> Sequence[nn.Embedding]: ...


@runtime_checkable
class HasItemStarts(HasItemRows, Protocol):
    """One that has, for each of them, a vector that stands for items without a row; None = 0."""

    def item_starts(self) -> Sequence[nn.Parameter | None]: ...


@runtime_checkable
class HasTagTables(Protocol):
    """A module with tables of a row a tag."""

    def tag_tables(self) -> Sequence[Table]: ...


@runtime_checkable
class HasUserTables(Protocol):
    """A module with tables of K + 1 rows, the first for users that are not known."""

    def user_tables(self) -> Sequence[nn.Embedding]: ...


@dataclass(frozen=True)
class Move:
    """Row i of a table becomes row places[i] of the former one, or `start` where that is -1.

    Attributes:
        places: (R,) int64.
        start: (D,) or (R, D); None = 0.

    >>> Move(torch.tensor([1, -1]))(torch.tensor([[5.0], [7.0]])).tolist()
    [[7.0], [0.0]]
    """

    places: Tensor
    start: Tensor | None = None

    def __call__(self, former: Tensor) -> Tensor:
        start = former.new_zeros(former.shape[1:]) if self.start is None else self.start
        there = (self.places >= 0).unsqueeze(1)
        return torch.where(there, former[self.places.clamp(min=0)], start)


def moved(state: Mapping[str, Tensor], moves: Mapping[str, Move]) -> dict[str, Tensor]:
    """The state with some tables' rows moved."""
    return {name: moves[name](value) if name in moves else value for name, value in state.items()}


def move_items(
    model: nn.Module, state: Mapping[str, Tensor], places: Tensor, trained: Tensor
) -> dict[str, Move]:
    """Moves of everything that has a row an item.

    Args:
        places: (N,) former row of each item, -1 = none.
        trained: (M,) bool. Rows of items that training never showed hold nothing; they start like
            those of new items.
    """
    shown = torch.where(trained[places.clamp(min=0)] | (places == 0), places, -1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {}
    for module in model.modules():
        if not isinstance(module, HasItemRows):
            continue
        tables = module.item_tables()
        starts = module.item_starts() if isinstance(module, HasItemStarts) else [None] * len(tables)
        for table, start in zip(tables, starts, strict=True):
            vector = None if start is None else state[names[id(start)]]
            found[names[id(table.weight)]] = Move(shown, vector)
    return found


def known_names(model: nn.Module) -> list[str]:
    """Where in a model's state it is said which items are known."""
    own = ((n, m) for n, m in model.named_modules() if isinstance(m, HasItemRows))
    return [f"{name}.known" for name, m in own if getattr(m, "known", None) is not None]


def move_tags(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Move]:
    """Moves of everything that has a row a tag: ids of tags are their keys."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {}
    for module in model.modules():
        for table in module.tag_tables() if isinstance(module, HasTagTables) else ():
            name, rows = names[id(table.weight)], torch.arange(table.num_embeddings)
            found[name] = Move(torch.where(rows < len(state[name]), rows, -1))
    return found


def move_users(
    model: nn.Module, state: Mapping[str, Tensor], *, former: Tensor, known: Tensor
) -> dict[str, Move]:
    """Moves of everything that has a row a user, from (K',) ids, ascending, to (K,) ids."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    first = torch.zeros(1, dtype=torch.int64)
    # New ones start as those that are not known.
    places = torch.cat([first, _places(known, former) + 1])
    found = {}
    for module in model.modules():
        for table in module.user_tables() if isinstance(module, HasUserTables) else ():
            found[names[id(table.weight)]] = Move(places)
    return found


def move_values(
    encoder: CategoricalEncoder, former: Tensor, sizes: Sequence[int], hashes: Sequence[int | None]
) -> Move:
    """The move of an encoder's table: values keep their rows, new ones start as unknown.

    Args:
        former: its known values of then, column after column.
        sizes, hashes: how many each column had, and its `hash_size`.
    """
    places, begin = [], 0
    for was, now, size in zip(
        torch.split(former, list(sizes)),
        torch.split(encoder.known.cpu(), encoder.sizes),
        hashes,
        strict=True,
    ):
        rows = torch.arange(1, 1 + size) if size is not None else _places(now, was) + 1
        places += [torch.tensor([begin]), begin + rows]
        begin += 1 + (len(was) if size is None else size)
    return Move(torch.cat(places))


def _places(values: Tensor, known: Tensor) -> Tensor:
    """Where each value stands among ascending known ones, -1 = nowhere."""
    if not len(known):
        return torch.full_like(values, -1)
    found = torch.searchsorted(known, values).clamp(max=len(known) - 1)
    return torch.where(known[found] == values, found, -1)

"""A trained ranker over the catalogue at hand, from what a checkpoint holds of it.

What comes in is a description (`describe`), a state and an item table; what goes out a ranker and
the state to load into it. To score: `restored`. To train on: `continued`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mmrec.errors import InputError, positive
from mmrec.io.identity import require_same
from mmrec.io.plain import from_plain
from mmrec.models.build import build_ranker, rebuild
from mmrec.models.carry import Move, known_names, move_items, move_tags, move_users, move_values
from mmrec.models.carry import moved as with_moved_rows
from mmrec.models.catalogue import PREFIX, Catalogue
from mmrec.models.inputs import Inputs, OriginalItems
from mmrec.models.ranker import Ranker
from mmrec.models.recipe import Recipe
from mmrec.nn.categorical import Vocabulary

FORGET_AFTER = 30  # trainings: a month of daily ones
VOCABULARIES = ("categorical", "history_categorical", "item_categorical")


@dataclass(frozen=True)
class Former:
    """What a checkpoint holds of a ranker.

    Attributes:
        described: see `describe`.
        state: its weights and buffers.
    """

    described: Mapping[str, Any]
    state: Mapping[str, Tensor]

    @property
    def recipe(self) -> Recipe:
        """The ranker's; its training's settings are the defaults."""
        return from_plain(Recipe, self.described["recipe"])

    @property
    def catalogue(self) -> Catalogue | None:
        """That of the former training; None = it had none."""
        return Catalogue.of_state(self.state)

    @property
    def known_users(self) -> Tensor | None:
        """(K,) ids, ascending."""
        return self.state.get(Ranker.KNOWN_USERS)


@dataclass(frozen=True)
class Placed:
    """The catalogue at hand, and the row that each of its items had in the former one."""

    catalogue: Catalogue
    places: Tensor
    trained: Tensor  # of the former one


def restored(
    former: Former, items: OriginalItems, *, widths: Mapping[str, int] | None = None
) -> tuple[Ranker, dict[str, Tensor]]:
    """A ranker that scores the items at hand, and its state.

    Items that were there keep their vectors, wherever they stand now; new ones have the learned
    unknown and their content.

    Args:
        widths: see `rebuild`.

    Raises:
        InputError: no description of a ranker, another catalogue or other features.
    """
    placed = place(former, items)
    ranker = rebuild(
        former.described,
        items,
        known_users=former.known_users,
        widths=widths,
        catalogue=None if placed is None else placed.catalogue,
    )
    return ranker, dict(former.state) if placed is None else _carried(former, ranker, placed)


def continued(
    former: Former,
    items: OriginalItems,
    inputs: Inputs,
    *,
    recipe: Recipe | None = None,
    forget_after: int = FORGET_AFTER,
) -> tuple[Ranker, dict[str, Tensor], Inputs]:
    """A ranker to be trained on, its state, and what it is told of the data.

    Users, values and items of the new rows are added to those of before: users and values start as
    unknown ones, items at the learned unknown. Items and their values that are no longer in the
    catalogue are dropped, and users and values that no training shows any more. Moments,
    scales and estimates stay those of the first training.

    Args:
        inputs: of the new rows.
        recipe: its training's settings may be others; None = that of before.
        forget_after: trainings without a row of a user or value after which it is dropped.

    Raises:
        InputError: see `restored`; a recipe of another ranker, or other columns.
    """
    positive(forget_after=forget_after)
    recipe = recipe or former.recipe
    remedy = "continue with the same recipe and columns, or train from scratch"
    was = from_plain(Recipe, former.described["recipe"]).binding()
    require_same(was, recipe.binding(), where="a ranker", remedy=remedy)
    placed = place(former, items)
    if placed is None:
        raise InputError("training goes on from a checkpoint that holds its catalogue, got none")
    inputs = _joined(former, items, inputs, placed, forget_after)
    ranker = build_ranker(recipe, items, inputs, estimate=False)
    state = _carried(former, ranker, placed)
    moves: dict[str, Move] = {}
    if ranker.user_index is not None and former.known_users is not None:
        known = ranker.user_index.known
        moves |= move_users(ranker, state, former=former.known_users, known=known)
    state = with_moved_rows(state, moves | _value_moves(former, ranker))
    own = ranker.state_dict()
    kept = {name for name in own if name.endswith(".known") or name.startswith(PREFIX)}
    return ranker, {**state, **{name: own[name] for name in kept}}, inputs


def place(former: Former, items: OriginalItems) -> Placed | None:
    """Match a catalogue by its keys, and require its features to be those of the training."""
    known = former.catalogue
    if known is None:
        return None
    here = Catalogue.of(items)
    places = here.places_in(known)
    recipe = former.recipe
    if recipe.items.fusion is not None or recipe.history.tiers:
        made, now = former.described["inputs"].get("features"), items.origin
        if made is not None and now is not None:
            remedy = "give features of the same encoder and captions"
            require_same(made, now, where="the ranker", remedy=remedy)
        here.check_vectors(known, places, same_encoder=made is not None and now is not None)
    trained = known.trained[places.clamp(min=0)] & (places >= 0)
    here.trained = trained
    return Placed(here, places, known.trained)


def _carried(former: Former, ranker: Ranker, placed: Placed) -> dict[str, Tensor]:
    """The state with rows of items and tags moved."""
    moves = move_items(ranker, former.state, placed.places, placed.trained)
    state = with_moved_rows(former.state, moves | move_tags(ranker, former.state))
    for name in known_names(ranker):
        state[name] = former.state[name][placed.places.clamp(min=0)] & (placed.places >= 0)
    state = {name: value for name, value in state.items() if not name.startswith(PREFIX)}
    own = placed.catalogue.named_buffers(prefix=PREFIX.removesuffix("."))
    return state | {name: value.clone() for name, value in own}


def _joined(
    former: Former, items: OriginalItems, inputs: Inputs, placed: Placed, forget_after: int
) -> Inputs:
    """What the new rows show, added to what was known before and was shown not long ago."""
    sizes, before, idle = former.described["inputs"], _encoders_state(former), {}
    told: dict[str, Tensor] = {} if former.catalogue is None else former.catalogue.idle
    changes: dict[str, Any] = {}
    for role in VOCABULARIES:
        was, columns = before[role], list(getattr(inputs, role))
        if was is not None:
            counts = [known for known, _, _ in sizes[role]]
            ages = torch.split(told.get(role, torch.zeros_like(was)), counts)
            parts = torch.split(was, counts)
            found = [
                _remembered(old, age, column.known, forget_after)
                for column, old, age in zip(columns, parts, ages, strict=True)
            ]
            columns = [replace(c, known=f[0]) for c, f in zip(columns, found, strict=True)]
            idle[role] = torch.cat([age for _, age in found])
        changes[role] = tuple(columns)
    idle.pop("item_categorical", None)  # of these the item table tells which live
    changes["item_categorical"] = _living(changes["item_categorical"], items)
    users = former.known_users
    if users is not None and inputs.known_users is not None:
        age = told.get("users", torch.zeros_like(users))
        users, idle["users"] = _remembered(users, age, inputs.known_users, forget_after)
    shown = placed.catalogue.trained
    if inputs.known_items is not None:
        shown = shown | inputs.known_items
    catalogue = Catalogue.of(items, shown, idle)
    return replace(inputs, **changes, known_users=users, known_items=shown, catalogue=catalogue)


def _remembered(
    former: Tensor, idle: Tensor, shown: Tensor, forget_after: int
) -> tuple[Tensor, Tensor]:
    """Ids shown now or at most so many trainings ago, ascending, and how many ago each was.

    >>> _remembered(torch.tensor([3, 5, 8]), torch.tensor([0, 1, 1]), torch.tensor([8, 9]), 1)
    (tensor([3, 8, 9]), tensor([1, 0, 0]))
    """
    kept = former[(idle < forget_after) & ~torch.isin(former, shown)]
    ages = idle[torch.isin(former, kept)] + 1
    ids, order = torch.cat([kept, torch.unique(shown)]).sort()
    return ids, torch.cat([ages, ages.new_zeros(len(ids) - len(kept))])[order]


def _living(columns: tuple[Vocabulary, ...], items: OriginalItems) -> tuple[Vocabulary, ...]:
    """Without the values that no item has any more."""
    parts = torch.split(items.categorical.cpu(), list(items.widths), dim=1) if columns else ()
    return tuple(
        replace(column, known=column.known[torch.isin(column.known, part)])
        for column, part in zip(columns, parts, strict=True)
    )


def _encoders_state(former: Former) -> dict[str, Tensor | None]:
    """Role -> the known values of all its columns, end to end; None = it is not read."""
    return {role: former.state.get(f"{name}.known") for role, name in Ranker.ENCODERS.items()}


def _value_moves(former: Former, ranker: Ranker) -> dict[str, Move]:
    sizes, known, moves = former.described["inputs"], _encoders_state(former), {}
    for role, name in Ranker.ENCODERS.items():
        was = known[role]
        if was is not None:
            moves[f"{name}.table.weight"] = move_values(
                ranker.get_submodule(name),  # type: ignore[arg-type]  # named by the ranker itself
                was,
                [count for count, _, _ in sizes[role]],
                [hashes for _, hashes, _ in sizes[role]],
            )
    return moves

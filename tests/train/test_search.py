"""Random search: what is drawn, what is kept, what is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmrec.errors import InputError
from mmrec.models import Recipe, check_parts, get_recipe, search_space
from mmrec.train import Scores
from mmrec.train.search import draw, search

SPACE = {"rate": (0.1, 0.2, 0.3), "width": (8, 16)}


@dataclass(frozen=True)
class Toy:
    rate: float = 0.5
    width: int = 4

    def changed(self, settings: Any) -> Toy:
        return replace(self, **settings)


def scores(toy: Toy, _: Path) -> tuple[None, Scores]:
    """The nearer to 0.2 and 16, the more of 100 rows are in order."""
    wrong = int(50 * abs(toy.rate - 0.2) + abs(toy.width - 16) / 4)
    label = np.arange(100) >= 50
    logit = np.arange(100, dtype=np.float32)
    logit[:wrong] += 1000
    row = np.arange(100)
    return None, Scores(row, row, label.astype(np.float32), logit)


def test_the_best_of_all_is_found_and_nothing_is_trained_twice(tmp_path: Path) -> None:
    trained: list[Path] = []

    def train(toy: Toy, place: Path) -> tuple[None, Scores]:
        trained.append(place)
        place.mkdir()
        return scores(toy, place)

    two = [Toy(**setting) for setting in draw(SPACE, 2)]
    assert search(Toy(), train, tmp_path, SPACE, 2) in two
    assert search(Toy(), train, tmp_path, SPACE, 7) == Toy(0.2, 16)
    assert len(trained) == len(set(trained)) == 7
    assert not any(place.exists() for place in trained)


def test_a_stopped_trial_goes_on_in_its_folder(tmp_path: Path) -> None:
    def stops(toy: Toy, place: Path) -> tuple[None, Scores]:
        place.mkdir()
        (place / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(Toy(), stops, tmp_path, SPACE, 1)

    def goes_on(toy: Toy, place: Path) -> tuple[None, Scores]:
        assert (place / "half").exists()
        return scores(toy, place)

    assert search(Toy(), goes_on, tmp_path, SPACE, 1) == Toy()


def test_the_recipe_itself_wins_where_nothing_is_better(tmp_path: Path) -> None:
    best = Toy(0.2, 16)
    assert search(best, scores, tmp_path, SPACE, 5) == best
    assert search(Toy(), scores, tmp_path / "none", SPACE, 0) == Toy()
    assert not (tmp_path / "none").exists()


def test_draws_differ_and_more_begin_with_the_same() -> None:
    some = draw(SPACE, 7, seed=3)
    assert some[0] == {}
    assert len({json.dumps(setting, sort_keys=True) for setting in some}) == 7
    assert draw(SPACE, 4, seed=3) == some[:4]
    assert draw(SPACE, 4, seed=4) != some[:4]


def test_bad_input_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the space holds 6 settings, got 8 trials"):
        draw(SPACE, 8)
    with pytest.raises(InputError, match="trials must be"):
        search(Toy(), scores, tmp_path / "a", SPACE, -1)
    search(Toy(), scores, tmp_path / "b", SPACE, 2)
    with pytest.raises(InputError, match="made with another recipe"):
        search(Toy(0.9), scores, tmp_path / "b", SPACE, 2)
    (tmp_path / "b" / "00.json").write_text("{")
    with pytest.raises(InputError, match=r"00.json cannot be read .*: remove it"):
        search(Toy(), scores, tmp_path / "b", SPACE, 2)


def test_what_was_trained_by_an_earlier_choice_goes(tmp_path: Path) -> None:
    """More trials may lead to another one: its ranker is not that of the first."""
    ranker, other = tmp_path / "ranker", tmp_path / "other"

    def chosen(trials: int) -> tuple[Toy, bool]:
        ranker.mkdir(exist_ok=True)
        other.mkdir(exist_ok=True)
        best = search(Toy(), scores, tmp_path / "search", SPACE, trials, chosen=[ranker])
        assert other.exists()
        return best, ranker.exists()

    first, there = chosen(1)
    assert there
    assert chosen(1) == (first, True)
    best, there = chosen(7)
    assert best != first
    assert not there
    assert chosen(7) == (best, True)


RECIPES: dict[str, Recipe] = {
    "small": get_recipe("small"),
    "light": get_recipe("light"),
    "of the example": get_recipe("small").with_fused_width(128),
    "second stage": get_recipe("reference").with_ready_vectors(),
    "no content": get_recipe("small").without_content(),
    "no crosses, no ids": get_recipe("small").changed(
        {"interaction.cross": None, "items.id_dim": 0}
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_every_setting_of_the_space_is_one_of_the_recipe(name: str) -> None:
    """And leaves what goes out as wide as it is, and out what it leaves out."""
    recipe = RECIPES[name]
    for setting in draw(search_space(recipe), 12):
        changed = check_parts(recipe.changed(setting))
        if recipe.items.content_width is not None or recipe.ready_vectors:
            assert changed.items.content_dim == recipe.items.content_dim
        assert (changed.items.fusion is None) == (recipe.items.fusion is None)
        if recipe.items.fusion is None:
            assert changed.items.components == recipe.items.components
        assert bool(changed.items.id_dim) == bool(recipe.items.id_dim)
    if name == "of the example":
        assert "items.content_width" in search_space(recipe)

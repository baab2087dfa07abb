"""A ranker over another catalogue than that of its training: everything by what it predicts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from mmrec import Batch, InputError, Inputs, Recipe, build_ranker, describe
from mmrec.data.items import ItemTable
from mmrec.models import Ranker
from mmrec.models.catalogue import Catalogue
from mmrec.models.inputs import Numbers
from mmrec.models.restore import Former, continued, restored
from mmrec.nn.categorical import Vocabulary

SHOP, WIDTH, LENGTH, TAGS = 60, 7, 5, 11  # items that ever are in the shop
RECIPE = Recipe().changed(
    {
        "items.id_dim": 3,
        "items.tag_dim": 2,
        "items.categorical_dim": 2,
        "items.content_dim": 5,
        "history.tiers": 3,
        "interaction.mlp": (6,),
        "interaction.head": (4,),
        "context.user_dim": 3,
        "context.dim": 2,
    }
)


@dataclass(frozen=True)
class Shop:
    """All items that ever are, by number; a catalogue is some of them in some order."""

    tags: Tensor
    brand: Tensor
    price: Tensor
    image: Tensor
    text: Tensor
    has_image: Tensor

    @classmethod
    def drawn(cls) -> Shop:
        draw = torch.Generator().manual_seed(3)
        tags = torch.randint(0, TAGS, (SHOP, 3), generator=draw).sort(1).values
        vectors = torch.randn(2, SHOP, WIDTH, generator=draw).half()
        return cls(
            tags=tags,
            brand=torch.randint(0, 9, (SHOP, 1), generator=draw),
            price=torch.rand(SHOP, 1, generator=draw),
            image=vectors[0],
            text=vectors[1],
            has_image=torch.rand(SHOP, generator=draw) < 0.8,
        )

    def catalogue(self, numbers: Sequence[int], *, keys: str | None = "text") -> ItemTable:
        """The items of these numbers as items 1, 2, …"""
        own = torch.tensor([0, *numbers])
        real = torch.arange(len(own)) > 0
        there = self.has_image[own] & real
        names: dict[str | None, Any] = {
            None: None,
            "text": pa.array(["", *(f"sku-{number}é" for number in numbers)], pa.large_string()),
            "number": pa.array([0, *(10**12 + number for number in numbers)]),
        }
        return ItemTable(
            tags=self.tags[own] * real[:, None],
            categorical=self.brand[own],
            numeric=self.price[own],
            vectors={
                "image": self.image[own] * there[:, None],
                "text": self.text[own] * real[:, None],
            },
            present={"image": there, "text": real},
            widths=(1,),
            keys=names[keys],
        )


SHOPS = Shop.drawn()
BEFORE = list(range(40))
SHOWN = [number for number in BEFORE if number % 7]  # the others never stood in a row of train
AFTER = [*range(39, 3, -1), *range(50, 54)]  # reordered, a tenth gone, a tenth new


def inputs(items: ItemTable, numbers: Sequence[int], **changes: Any) -> Inputs:
    known = torch.tensor([False, *(number in SHOWN for number in numbers)])
    how: dict[str, Any] = {
        "categorical": (Vocabulary(torch.tensor([0, 2, 5])), Vocabulary(torch.arange(0), 16)),
        "item_categorical": (Vocabulary(torch.arange(6)),),
        "item_numeric": Numbers((0.5,), (0.3,)),
        "known_users": torch.tensor([3, 8, 90]),
        "known_items": known,
        "catalogue": Catalogue.of(items, known),
    }
    return Inputs(**how | changes)


def trained(recipe: Recipe = RECIPE, *, keys: str | None = "text") -> tuple[Ranker, Former]:
    """A ranker over `BEFORE` with weights that are all drawn, as after a training."""
    torch.manual_seed(5)
    items = SHOPS.catalogue(BEFORE, keys=keys)
    told = inputs(items, BEFORE)
    ranker = build_ranker(recipe, items, told).double().eval()
    with torch.no_grad():
        for parameter in ranker.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.3)
        for table in (ranker.items.ids, ranker.items.tag):
            if table is not None:
                table.weight[0] = 0
        assert ranker.wide is not None
        ranker.wide.item.weight *= told.known_items[:, None]  # type: ignore[index]
    described = json.loads(json.dumps(describe(recipe, told)))
    return ranker, Former(described, {k: v.clone() for k, v in ranker.state_dict().items()})


def rows_of(numbers: Sequence[int], among: Sequence[int], rows: int = 200) -> Batch:
    """Rows over items `among`, with the ids that the catalogue `numbers` gives them."""
    rng = np.random.default_rng(1)
    ids = {number: place for place, number in enumerate(numbers, 1)}
    history = np.vectorize(ids.__getitem__)(rng.choice(among, (rows, LENGTH)))
    history[np.arange(LENGTH) < rng.integers(0, LENGTH, rows)[:, None]] = 0
    return Batch.of(
        history=torch.from_numpy(history),
        target=torch.from_numpy(np.vectorize(ids.__getitem__)(rng.choice(among, rows))),
        user=torch.from_numpy(rng.integers(0, 100, rows)),
        categorical=torch.from_numpy(rng.integers(0, 7, (rows, 2))),
        labels=torch.zeros(rows, 1),
        row=torch.arange(rows),
        numeric=torch.zeros(rows, 0),
        history_categorical=torch.zeros(rows, LENGTH, 0, dtype=torch.int64),
        history_numeric=torch.zeros(rows, LENGTH, 0),
    )


def over(former: Former, items: ItemTable) -> Ranker:
    ranker, state = restored(former, items)
    ranker.double().eval().load_state_dict(state)
    return ranker


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


FUSIONS = ["attention", "gmu", "pca", "semantic_ids"]


@pytest.mark.parametrize("keys", ["text", "number"])
@pytest.mark.parametrize("unknown", [True, False])
def test_known_items_score_as_before_in_a_catalogue_reordered_grown_and_shrunk(
    keys: str, unknown: bool
) -> None:
    off = {"items.unknown_id": unknown, "items.id_dropout": 0.1 * unknown}
    ranker, former = trained(RECIPE.changed(off), keys=keys)
    there = [number for number in AFTER if number in BEFORE]
    again = over(former, SHOPS.catalogue(AFTER, keys=keys))
    known = there if unknown else [number for number in there if number in SHOWN]
    same(again(rows_of(AFTER, known)), ranker(rows_of(BEFORE, known)))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_new_items_score_as_ones_that_were_there_and_never_clicked(fusion: str) -> None:
    """The other ranker is built with them, and its rows are filled one by one, by their names."""
    recipe = RECIPE.changed({"items.fusion": fusion, "items.content_dim": 6})
    _, former = trained(recipe)
    items = SHOPS.catalogue(AFTER)
    reference = build_ranker(recipe, items, inputs(items, AFTER)).double().eval()
    own, was = reference.state_dict(), former.state
    for name in own:
        if name.startswith("catalogue.") or name.endswith("items.known"):
            continue
        if name not in ("items.ids.weight", "wide.item.weight"):
            own[name] = was[name]
            continue
        for place, number in enumerate(AFTER, 1):
            shown = number in BEFORE and number in SHOWN
            own[name][place] = was[name][BEFORE.index(number) + 1] if shown else 0
    reference.load_state_dict(own)
    batch = rows_of(AFTER, AFTER)
    logits = reference(batch)
    same(over(former, items)(batch), logits)
    new = torch.isin(batch.target, torch.tensor([37, 38, 39, 40]))
    assert new.sum() > 5
    assert logits[new].std() > 1e-4  # content counts


@pytest.mark.parametrize("fusion", FUSIONS)
def test_moments_and_estimates_are_those_of_the_items_of_train(fusion: str) -> None:
    """More items that train never shows change nothing that is estimated."""
    recipe = RECIPE.changed({"items.fusion": fusion, "items.content_dim": 6})
    found = []
    for numbers in (SHOWN, [*SHOWN, *range(50, 60)]):
        items = SHOPS.catalogue(numbers)
        torch.manual_seed(0)
        ranker = build_ranker(recipe, items, inputs(items, numbers))
        state = dict(ranker.named_buffers())
        kept = [k for k in ranker.state_dict() if k in state and k.startswith("items.")]
        found.append({k: state[k] for k in kept if not k.endswith("known")})
    assert found[0]
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=0, atol=1e-6)


def test_without_keys_ids_are_the_keys_and_a_catalogue_may_only_grow() -> None:
    ranker, former = trained(keys=None)
    grown = [*BEFORE, 50, 51]
    again = over(former, SHOPS.catalogue(grown, keys=None))
    same(again(rows_of(grown, BEFORE)), ranker(rows_of(BEFORE, BEFORE)))
    assert again(rows_of(grown, grown)).isfinite().all()
    for other in (BEFORE[:-1], BEFORE[::-1], [*BEFORE[1:], 50], [*BEFORE[:9], 50, *BEFORE[9:]]):
        with pytest.raises(InputError, match="without keys a catalogue may only grow at its end"):
            restored(former, SHOPS.catalogue(other, keys=None))


def test_keys_of_another_kind_are_refused() -> None:
    _, former = trained(keys="text")
    for keys in ("number", None):
        with pytest.raises(InputError, match=r"keys that the ranker was trained with, strings"):
            restored(former, SHOPS.catalogue(BEFORE, keys=keys))


def flipped(items: ItemTable, places: Tensor) -> ItemTable:
    """The vectors of these items change hands, last to first."""
    vectors = {name: table.clone() for name, table in items.vectors.items()}
    present = {name: table.clone() for name, table in items.present.items()}
    for table in (*vectors.values(), *present.values()):
        table[places] = table[places.flip(0)]
    return replace(items, vectors=vectors, present=present)


def with_vectors(items: ItemTable, **vectors: Tensor) -> ItemTable:
    """Other vectors for some modalities."""
    return replace(items, vectors={**items.vectors, **vectors})


def test_vectors_that_are_not_those_of_training_are_refused() -> None:
    ranker, former = trained()
    items = SHOPS.catalogue(BEFORE)
    noise = torch.randn(len(items.tags), WIDTH, generator=torch.Generator().manual_seed(0))
    image, text = items.vectors["image"], items.vectors["text"]
    others = {
        "permuted": flipped(items, torch.arange(1, 41)),
        "two change hands": flipped(items, torch.tensor([3, 7])),
        "of another encoder": with_vectors(items, text=noise.half()),
        "of another modality": with_vectors(items, image=text, text=image),
        "negated": with_vectors(items, image=-image),
    }
    for other in others.values():
        with pytest.raises(InputError, match="vectors are not those that the ranker was trained"):
            restored(former, other)
    with pytest.raises(InputError, match=r"no features were given; the .* on those of image, text"):
        restored(former, replace(items, vectors={}, present={}))
    nearly = with_vectors(items, text=(text * (1 + 2e-3 * torch.sin(9 * text))).half())
    batch = rows_of(BEFORE, BEFORE)
    torch.testing.assert_close(over(former, nearly)(batch), ranker(batch), rtol=0, atol=0.01)
    plain, former = trained(RECIPE.without_content())
    assert torch.equal(over(former, others["permuted"])(batch), plain(batch))


def made(name: str, caption: str = "{title}") -> dict[str, Any]:
    return {"encoder": {"weights": name}, "captions": {"template": caption}}


def test_what_made_the_features_is_part_of_what_they_are() -> None:
    _, former = trained()
    former.described["inputs"]["features"] = made("a")  # type: ignore[index]
    items = SHOPS.catalogue(AFTER)
    for origin, what in ((made("b"), "encoder"), (made("a", "{title} {tags}"), "captions")):
        with pytest.raises(InputError, match=f"made with another {what}"):
            restored(former, replace(items, origin=origin))
    assert restored(former, replace(items, origin=made("a")))
    # A shop takes other pictures of some of its items; only an encoder that is known may say so.
    some = flipped(items, torch.tensor([5, 6]))
    with pytest.raises(InputError, match="vectors are not those"):
        restored(former, some)
    assert restored(former, replace(some, origin=made("a")))
    most = flipped(items, torch.arange(1, 37))
    with pytest.raises(InputError, match="vectors are not those"):
        restored(former, replace(most, origin=made("a")))


def test_a_ranker_to_be_trained_on_starts_as_one_that_only_scores() -> None:
    """Whatever is new, users and values too, starts where the unknown is."""
    _, former = trained()
    items = SHOPS.catalogue(AFTER)
    shown = torch.ones(len(AFTER) + 1, dtype=torch.bool)
    told = inputs(
        items,
        AFTER,
        categorical=(Vocabulary(torch.tensor([1, 2, 6])), Vocabulary(torch.arange(0), 16)),
        item_categorical=(Vocabulary(torch.arange(4, 9)),),
        item_numeric=Numbers((7.0,), (9.0,)),
        known_users=torch.tensor([5, 8, 77]),
        known_items=shown,
    )
    ranker, state, joined = continued(former, items, told)
    ranker.double().eval().load_state_dict(state)
    batch = rows_of(AFTER, AFTER)
    same(ranker(batch), over(former, items)(batch))
    assert ranker.user_index is not None
    assert ranker.user_index.known.tolist() == [3, 5, 8, 77, 90]
    assert joined.categorical[0].known.tolist() == [0, 1, 2, 5, 6]
    living = set(items.categorical[:, 0].tolist())
    assert set(joined.item_categorical[0].known.tolist()) == living & set(range(9))
    assert joined.known_items is not None
    assert bool(joined.known_items.all())
    new = slice(37, 41)
    assert torch.equal(ranker.items.ids.weight[new], ranker.items.unknown.expand(4, -1))  # type: ignore
    # And what is described can be built again, with its vectors in their places.
    described = json.loads(json.dumps(describe(former.recipe, joined)))
    again = over(Former(described, ranker.state_dict()), items)
    assert torch.equal(again(batch), ranker(batch))


def test_a_ranker_of_another_recipe_does_not_go_on() -> None:
    _, former = trained()
    items = SHOPS.catalogue(AFTER)
    other = RECIPE.changed({"interaction.mlp": (5,)})
    with pytest.raises(InputError, match="continue with the same recipe"):
        continued(former, items, inputs(items, AFTER), recipe=other)


def test_sixty_daily_catalogues() -> None:
    """Every day's training writes an item's own mark into its vector; nobody ever has another's."""
    recipe, rng = RECIPE.without_content(), np.random.default_rng(0)
    _, former = trained(recipe)
    living, sizes = list(BEFORE), []
    ids, bias = (former.state[f"{name}.weight"] for name in ("items.ids", "wide.item"))
    for number in SHOWN:
        ids[number + 1] = bias[number + 1] = number + 0.5
    lives = {3, 8, 90}  # known users with a mark of their own
    former.state["users.table.weight"][1:] = torch.tensor([[3.25], [8.25], [90.25]])
    marked = set(SHOWN)  # items that live and have been in a row of some training since they came
    for day in range(60):
        gone = set(rng.choice(living, 6, replace=False).tolist())
        new = rng.choice([n for n in range(SHOP) if n not in living], 6, replace=False).tolist()
        living = [int(n) for n in rng.permutation([n for n in living if n not in gone] + new)]
        marked -= gone
        shown = {int(n) for n in rng.choice(living, 25, replace=False)}
        items = SHOPS.catalogue(living)
        known = torch.tensor([False, *(n in shown for n in living)])
        # Users and values come and go for good: the day's are 20 · day … 20 · day + 29.
        today = torch.arange(20 * day, 20 * day + 30)
        values = (Vocabulary(today + 7), Vocabulary(torch.arange(0), 16))
        told = inputs(items, living, known_items=known, known_users=today, categorical=values)
        ranker, state, joined = continued(former, items, told, forget_after=3)
        ranker.double().load_state_dict(state)
        own = ranker.state_dict()
        users, lately = own[Ranker.KNOWN_USERS].tolist(), max(0, day - 3)
        assert set(users) - {3, 8, 90} == set(range(20 * lately, 20 * day + 30)) - {3, 8, 90}
        if day > 5:
            assert joined.categorical[0].known.tolist() == [user + 7 for user in users]
        for place, user in enumerate(users, 1):
            there = user in lives
            vector = own["users.table.weight"][place]
            assert torch.equal(vector, own["users.table.weight"][0]) != there
            if there:
                assert (vector == user + 0.25).all()
            else:
                assert user in today
                own["users.table.weight"][place] = user + 0.25
        lives = set(users)
        ids, bias = own["items.ids.weight"], own["wide.item.weight"]
        for place, number in enumerate(living, 1):
            if number in marked:
                assert (ids[place] == number + 0.5).all()
                assert float(bias[place]) == number + 0.5
            else:
                assert torch.equal(ids[place], own["items.unknown"])
                assert float(bias[place]) == 0
            assert bool(own["items.known"][place]) == (number in marked | shown)
            if number in shown:
                ids[place] = bias[place] = number + 0.5
        marked |= shown
        described = json.loads(json.dumps(describe(recipe, joined)))
        former = Former(described, {k: v.clone() for k, v in ranker.state_dict().items()})
        sizes.append(sum(v.numel() * v.element_size() for v in former.state.values()))
    assert max(sizes[5:]) <= 1.05 * sizes[4]

"""A scorer gives what the ranker gives, for requests in the columns of the schema."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from slow_variants import thorough

from mmrec import Batch, InputError, Part, build_ranker, get_recipe
from mmrec.models import Ranker
from mmrec.serve import Request, Scorer, ScorerOptions

WIDE = {"items.content_dim": 8}
QUICK = ScorerOptions(chunk=64)  # not measured
BIG = {
    **WIDE,
    "items.id_dim": 4,
    "items.tag_dim": 2,
    "interaction.mlp": (16, 8),
    "interaction.bottleneck": None,
    "context.dim": 3,
}
PARALLEL = {"encoders": ["mean", {"name": "transformer", "last": 2, "width": 8}]}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "default": ("small", {"items.components": 2, "context.wide": True, **WIDE}),
    "default without signs or features": (
        "small",
        {
            "items.components": 2,
            "history.affinity": 0,
            "history.recency": 0,
            "history.features": False,
            **WIDE,
        },
    ),
    "din": ("small", {"items.components": 2, "history.encoder": "din", **WIDE}),
    "din, softmax": ("small", {"history.encoder": Part("din", {"softmax": True}), **WIDE}),
    "relu": ("small", {"history.encoder": Part("relu", {"heads": 4}), "history.tiers": 7, **WIDE}),
    "parallel": ("small", {"history.encoder": Part("parallel", PARALLEL), **WIDE}),
    "no history": (
        "small",
        {"history.encoder": "none", "history.affinity": 0, "history.recency": 0, **WIDE},
    ),
    "light": ("light", {**WIDE, "history.encoder.width": 8, "interaction.bottleneck": 11}),
    "reference": ("reference-fused", BIG),
    "low-rank crosses": ("small", {"interaction.cross": Part("low_rank", {"rank": 3}), **WIDE}),
    "film": ("small", {"items.fusion": "film", "items.content_width": None, **WIDE}),
}


def made(shop: Any, name: str) -> Ranker:
    recipe, changes = VARIANTS[name]
    return shop.ranker(get_recipe(recipe), **changes)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_row_scores_as_by_the_ranker(name: str, shop: Any) -> None:
    ranker = made(shop, name)
    with torch.no_grad():
        want = ranker(shop.batch).numpy()
    scorer = Scorer(ranker, schema=shop.data.schema, options=QUICK)
    requests = [Request.from_plain(shop.request(row)) for row in shop.rows]
    got = np.concatenate(scorer.score_many(requests))
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    one = scorer.score_request(requests[7])
    np.testing.assert_allclose(one, want[7:8], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["default", "relu", "light"])
def test_many_candidates_score_as_rows_repeated(name: str, shop: Any) -> None:
    """In chunks, in one piece, several users at once; float32 too."""
    ranker = made(shop, name)
    row, candidates = shop.rows[11], [5, 9, 5, *range(1, 30)]
    place, count = torch.full((len(candidates),), 11), len(candidates)
    repeated = shop.batch.map(lambda tensor: tensor[place])
    repeated = replace(repeated, target=torch.tensor(candidates))
    with torch.no_grad():
        want, alike = ranker(repeated).numpy(), ranker.float()(repeated).numpy()
    request = Request.from_plain(shop.request(row, candidates=candidates))
    single = Scorer(ranker, schema=shop.data.schema, options=QUICK).score_request(request)
    np.testing.assert_allclose(single, alike, rtol=1e-5, atol=1e-5)
    ranker = made(shop, name)
    for chunk in (1, 7, None):
        scorer = Scorer(ranker, schema=shop.data.schema, options=ScorerOptions(chunk=chunk))
        np.testing.assert_allclose(scorer.score_request(request), want, rtol=1e-6, atol=1e-6)
        others = [Request.from_plain(shop.request(row, candidates=[1, 2])) for row in shop.rows]
        first, *_, last = scorer.score_many([request, *others, request])
        np.testing.assert_allclose(first, want, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(last, want, rtol=1e-6, atol=1e-6)
        assert first.shape == (count, 2)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(want[:3], want[3:6], rtol=1e-6, atol=1e-6)


def test_columns_may_differ_by_candidate(shop: Any) -> None:
    ranker = made(shop, "default")
    batch = shop.batch.map(lambda tensor: tensor[4:7])
    of_first = {"history", "user", "history_categorical", "history_numeric"}
    first = {name: getattr(batch, name)[[0, 0, 0]] for name in of_first}
    with torch.no_grad():
        want = ranker(replace(batch, **first)).numpy()
    rows = shop.rows[4:7]
    request = shop.request(rows[0], candidates=[row["sku"] for row in rows])
    differs = {"price", "coupons", "seller", "device", "hour", "country", "position", "discount"}
    each = {name: [row[name] for row in rows] for name in differs}
    columns = {n: v for n, v in request["columns"].items() if n not in differs}
    scorer = Scorer(ranker, schema=shop.data.schema, options=ScorerOptions(chunk=2))
    got = scorer.score_request(Request.from_plain({**request, "columns": columns, "each": each}))
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


def test_the_best_come_first_and_equal_ones_in_their_order(shop: Any) -> None:
    scorer = Scorer(made(shop, "default"), schema=shop.data.schema, options=QUICK)
    request = Request.from_plain(shop.request(shop.rows[3], candidates=[4, 9, 4, 17, 30, 9]))
    logits = scorer.score_request(request)[:, 1]
    order = sorted(range(6), key=lambda i: (-logits[i], i))
    for k in (1, 2, 3, 4, 5, 6, 50):
        top = scorer.top_of(request, k=k, task="buy")
        assert top.items == [[4, 9, 4, 17, 30, 9][i] for i in order[:k]]
        np.testing.assert_array_equal(top.logits, logits[order[:k]])
    every = scorer.top_of(replace(request, candidates=None), k=40, task="buy")
    assert sorted(every.items) == list(range(1, 41))
    assert (np.diff(every.probabilities) <= 0).all()
    assert scorer.top_of(replace(request, candidates=[])).items == []
    with pytest.raises(InputError, match="task must be one of click, buy"):
        scorer.top_of(request, task="view")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_rows_stay_near(dtype: str, shop: Any) -> None:
    ranker = made(shop, "default").float()
    request = Request.from_plain(shop.request(shop.rows[3], candidates=list(range(1, 41))))
    want = Scorer(ranker, schema=shop.data.schema, options=QUICK).score_request(request)
    options = ScorerOptions(dtype=dtype)
    got = Scorer(ranker, schema=shop.data.schema, options=options).score_request(request)
    assert 0 < np.abs(got - want).max() < 0.05 * want.std()


def keyed(shop: Any) -> tuple[Ranker, list[str]]:
    """A ranker whose items have names of the shop's own."""
    names = ["", *(f"sku-{number * 7 % 41}" for number in range(1, 41))]
    items = replace(shop.items, keys=pa.array(names, pa.large_string()))
    catalogue = type(shop.inputs.catalogue).of(items)
    inputs = replace(shop.inputs, catalogue=catalogue)
    torch.manual_seed(1)
    recipe = get_recipe("small").changed({"items.components": 2, **WIDE})
    return build_ranker(recipe, items, inputs).double().eval(), names


def test_items_go_by_the_persons_own_names(shop: Any) -> None:
    ranker, names = keyed(shop)
    with torch.no_grad():
        want = ranker(shop.batch).numpy()
    scorer = Scorer(ranker, schema=shop.data.schema, options=QUICK)
    for number in (0, 1, 2):
        asked = shop.request(shop.rows[number])
        asked |= {name: [names[i] for i in asked[name]] for name in ("history", "candidates")}
        got = scorer.score_request(Request.from_plain(asked))
        np.testing.assert_allclose(got, want[number : number + 1], rtol=1e-6, atol=1e-6)
    assert scorer.top_of(Request.from_plain({**asked, "candidates": None}), k=1).items[0] in names
    with pytest.raises(InputError, match="history items must be a list of strings, got"):
        scorer.score_request(Request.from_plain({**asked, "history": [3]}))
    with pytest.raises(InputError, match="candidates are items of the catalogue, 'sofa' is none"):
        scorer.score_request(Request.from_plain({**asked, "candidates": ["sku-1", "sofa"]}))


def test_unknown_history_items_may_be_left_out_with_what_stands_beside_them(shop: Any) -> None:
    ranker = made(shop, "default")
    scorer = Scorer(ranker, schema=shop.data.schema, options=ScorerOptions(skip_unknown=True))
    row = next(row for row in shop.rows if len(row["seen"]) == 4)
    asked = shop.request(row, candidates=[1, 2, 3])
    want = scorer.score_request(Request.from_plain(asked))
    columns = dict(asked["columns"])
    for name, strange in (("liked", 1), ("days_ago", 3.5)):
        columns[name] = [*row[name][:2], strange, *row[name][2:]]
    history = [*row["seen"][:2], 999, *row["seen"][2:]]
    longer = {**asked, "history": history, "columns": columns}
    np.testing.assert_array_equal(scorer.score_request(Request.from_plain(longer)), want)
    with pytest.raises(InputError, match="history items are items of the catalogue, 999 is none"):
        Scorer(ranker, schema=shop.data.schema, options=QUICK).score_request(
            Request.from_plain(longer)
        )


@pytest.mark.parametrize("tags", [None, [[2, 5], [], [1]]], ids=["vectors alone", "with tags"])
@pytest.mark.parametrize("name", ["default", "relu", "film", thorough("light")])
def test_new_items_score_by_their_vectors_and_tags(name: str, tags: Any, shop: Any) -> None:
    """As a ranker does over a catalogue in which they have no categories and numbers."""
    if tags is not None:  # the shop's files have none
        table = torch.arange(2 * len(shop.items.tags)).view(-1, 2) % 7
        table[0] = 0
        shop = replace(shop, items=replace(shop.items, tags=table))
    scorer = Scorer(made(shop, name), schema=shop.data.schema, options=QUICK)
    vectors = {"image": np.random.default_rng(0).normal(size=(3, 3)).astype(np.float16)}
    vectors["text"] = vectors["image"][::-1].copy()
    vectors["text"][1] = np.nan
    with pytest.raises(InputError, match="41 is none of them"):
        scorer.score([41], [1], columns=shop.request(shop.rows[0])["columns"])
    for bad, words in (([[99], [], []], "tags lie in 1"), ([[1]], "a list of each of the 3")):
        with pytest.raises(InputError, match=words):
            scorer.add(vectors, tags=bad)
    assert scorer.add(vectors, tags=tags) == [41, 42, 43]
    grown = over_grown(shop, name, vectors, tags or [[], [], []])
    batch: Batch = shop.batch.map(lambda tensor: tensor[:3].clone())
    batch.history[:, -1] = torch.tensor([43, 42, 41])
    batch = replace(batch, target=torch.tensor([41, 42, 43]))
    with torch.no_grad():
        want = grown(batch).numpy()
    got = []
    for row, history, target in zip(shop.rows, batch.history.tolist(), (41, 42, 43), strict=False):
        begin = 6 - max(1, len(row["seen"]))
        asked = shop.request(row, history=history[begin:], candidates=[target])
        for column, width in (("liked", 0), ("days_ago", 1)):
            roles = batch.history_numeric if width else batch.history_categorical
            asked["columns"][column] = roles[len(got), begin:, 0].tolist()
        got.append(scorer.score_request(Request.from_plain(asked))[0])
    np.testing.assert_allclose(np.stack(got), want, rtol=1e-6, atol=1e-6)


def over_grown(
    shop: Any, name: str, vectors: dict[str, np.ndarray], tags: list[list[int]]
) -> Ranker:
    """The same weights, every table written out with three more rows."""
    ranker = made(shop, name)
    items = ranker.items
    items.num_items += 3
    padded = torch.tensor([[*some, 0, 0][:2] for some in tags])
    width = max(2, items.tags.shape[1])
    items.tags = torch.cat(
        [torch.nn.functional.pad(x, (width - x.shape[1], 0)) for x in (items.tags, padded)]
    )
    absent = torch.full((3, items.categories.shape[1]), -(2**63))
    items.categories = torch.cat([items.categories, absent])
    nothing = torch.full((3, items.numbers.shape[1]), torch.nan, dtype=items.numbers.dtype)
    items.numbers = torch.cat([items.numbers, nothing])
    items.known = torch.cat([items.known, torch.zeros(3, dtype=torch.bool)])
    table = torch.cat([items.ids.weight.detach(), torch.randn(3, items.ids.embedding_dim)])
    items.ids = torch.nn.Embedding.from_pretrained(table.double())
    sets = items.tag_sets
    unit = sets.unit.new_zeros(3, sets.unit.shape[1])
    for row, some in enumerate(tags):
        unit[row, some] = 1 / max(1, len(some)) ** 0.5  # few tags: each has a place of its own
    sets.unit = torch.cat([sets.unit, unit])
    sets.present = torch.cat([sets.present, torch.tensor([bool(some) for some in tags])])
    for modality, features in items.modalities.items():
        given = torch.from_numpy(vectors[modality])
        there = ~given.isnan().all(1)
        raw = torch.where(there[:, None], given, 0)
        features.present = torch.cat([features.present, there])
        if features.pca is None:
            features.vectors = torch.cat([features.vectors, raw])
            continue
        scaled = (raw - features.moments[0]) * features.moments[1]
        found = (scaled - features.pca.mean) @ features.pca.components * there[:, None]
        length = torch.linalg.vector_norm(found, dim=1)
        features.unit = torch.cat([features.unit, found / length.clamp(min=1e-12)[:, None]])
        features.length = torch.cat([features.length, length])
    if ranker.wide is not None:
        bias = torch.cat([ranker.wide.item.weight.detach(), torch.zeros(3, 2)])
        ranker.wide.item = torch.nn.Embedding.from_pretrained(bias.double())
    return ranker


def test_a_scorer_is_a_copy_and_leaves_the_ranker_alone(shop: Any) -> None:
    ranker = made(shop, "default").train()
    state = {name: value.clone() for name, value in ranker.state_dict().items()}
    scorer, generator = (
        Scorer(ranker, schema=shop.data.schema, options=QUICK),
        torch.get_rng_state(),
    )
    request = Request.from_plain(shop.request(shop.rows[3]))
    want = scorer.score_request(request)
    scorer.add({"image": np.ones((2, 3))})
    assert ranker.training
    assert torch.equal(generator, torch.get_rng_state())
    assert all(torch.equal(state[n], value) for n, value in ranker.state_dict().items())
    with torch.no_grad():
        for parameter in ranker.parameters():
            parameter.zero_()
    np.testing.assert_array_equal(scorer.score_request(request), want)


def test_an_encoder_says_what_it_can_share(shop: Any) -> None:
    told = {name: Scorer(made(shop, name)).shares_history for name in VARIANTS}
    assert {name for name, shared in told.items() if not shared} == {
        "parallel",
        "light",
        "reference",
    }


def test_options_are_checked_before_any_work() -> None:
    with pytest.raises(InputError, match="dtype must be one of float64, float32"):
        ScorerOptions(dtype="int8")
    with pytest.raises(InputError, match="chunk must be a whole number of at least 1"):
        ScorerOptions(chunk=0)

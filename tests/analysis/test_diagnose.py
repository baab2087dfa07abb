"""What carries the AUC is told from what does not: a history behind an inverted mask is exposed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from slow_variants import thorough
from torch import Tensor, nn

from mmrec import Batch, InputError
from mmrec.analysis import Diagnosis, HasItemTables, diagnose
from mmrec.io.plain import to_plain
from mmrec.models import (
    ContextRecipe,
    HistoryRecipe,
    Inputs,
    InteractionRecipe,
    ItemsRecipe,
    Recipe,
    build_ranker,
)
from mmrec.models.ranker import Ranker
from mmrec.nn import Part
from mmrec.nn.categorical import Vocabulary

ITEMS, KINDS, LENGTH, USERS = 61, 4, 7, 300
LEVELS = Vocabulary(torch.arange(3))
HERE = (
    "history shuffled",
    "history removed",
    "content permuted",
    "image permuted",
    "text permuted",
    "categorical permuted",
    "ids removed",
    "user permuted",
)


@dataclass
class Table:
    """Items whose kind stands in the image, and nothing in the text."""

    tags: Tensor
    vectors: dict[str, Tensor]
    present: dict[str, Tensor]
    num_tags: int = 2
    categorical: Tensor = field(default_factory=lambda: torch.zeros(ITEMS, 0, dtype=torch.int64))
    numeric: Tensor = field(default_factory=lambda: torch.zeros(ITEMS, 0))
    widths: tuple[int, ...] = ()


@dataclass
class Rows:
    """Batches of fixed rows."""

    batch: Batch
    size: int = 97

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.batch), self.size):
            yield self.batch.map(lambda tensor, start=start: tensor[start : start + self.size])

    def __len__(self) -> int:
        return -(-len(self.batch) // self.size)

    def seek(self, *, epoch: int, batch: int) -> None:
        assert (epoch, batch) == (0, 0)

    def fingerprint(self) -> dict[str, Any]:
        return {}


def items(kind: Tensor) -> Table:
    image = nn.functional.one_hot(kind, KINDS).float()
    image[0] = 0
    return Table(
        tags=torch.zeros(ITEMS, 1, dtype=torch.int64),
        vectors={"image": image, "text": torch.randn(ITEMS, 3)},
        present=dict.fromkeys(("image", "text"), torch.arange(ITEMS) > 0),
    )


def rows(n: int, kind: Tensor, seed: int) -> Rows:
    """Users click what is of their kind; histories show the kind, the first category is a hint."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int, *shape: int) -> Tensor:
        return torch.randint(0, high, shape, generator=generator)

    user = draw(USERS, n)
    favourite = user % KINDS
    of_kind = torch.stack([torch.where(kind == k)[0][1:9] for k in range(KINDS)])  # (KINDS, 8)
    history = of_kind[favourite[:, None], draw(8, n, LENGTH)]
    length = 1 + draw(LENGTH, n)
    history[torch.arange(LENGTH) < (LENGTH - length)[:, None]] = 0
    target = 1 + draw(ITEMS - 1, n)
    categorical = draw(3, n, 2)
    logit = 2.0 * (kind[target] == favourite) - 1.2 + 0.8 * (categorical[:, 0] == 2)
    label = (torch.rand(n, generator=generator) < logit.sigmoid()).float()
    roles = {"user": user, "categorical": categorical, "labels": label.unsqueeze(1)}
    return Rows(Batch.of(history=history, target=target, **roles))


class Inverted(nn.Module):
    """The mistake: padding is attended to, and real items are masked."""

    def __init__(self, sequence: nn.Module) -> None:
        super().__init__()
        self.sequence, self.out_dim = sequence, sequence.out_dim

    def forward(self, history: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        out: Tensor = self.sequence(history, target, ~valid)
        return out


def train(model: Ranker, data: Rows, steps: int = 120) -> Ranker:
    optimizer = torch.optim.Adam(model.parameters(), lr=6e-3)
    batch = data.batch
    for _ in range(steps):
        some = torch.randint(0, len(batch), (256,))
        part = batch.map(lambda tensor, some=some: tensor[some])
        loss = nn.functional.binary_cross_entropy_with_logits(model(part), part.labels[:, 0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


TRANSFORMER = {"heads": 2, "ff_dim": 16, "last": 0, "width": 12, "layers": 1}
RECIPE = Recipe(
    items=ItemsRecipe(id_dim=6, tag_dim=0, content_dim=6, fusion=Part("concat"), id_dropout=0.0),
    history=HistoryRecipe(
        Part("parallel", {"encoders": [{"name": "transformer", **TRANSFORMER}, "mean"]})
    ),
    interaction=InteractionRecipe(mlp=(24,), dropout=0.0, head=()),
    context=ContextRecipe(dim=4),
)


@pytest.fixture(scope="module")
def kind() -> Tensor:
    return torch.arange(ITEMS) % KINDS


@pytest.fixture(scope="module")
def diagnoses(kind: Tensor) -> dict[str, Diagnosis]:
    """A sound ranker and one with its mask inverted, trained on the same rows."""
    torch.manual_seed(0)
    found = {}
    for name in ("sound", "inverted"):
        model = build_ranker(RECIPE, items(kind), Inputs(categorical=(LEVELS, LEVELS)))
        if name == "inverted":
            model.sequence = Inverted(model.sequence)
        train(model, rows(3000, kind, seed=1))
        before = {key: value.clone() for key, value in model.state_dict().items()}
        image = model.items.modalities["image"].vectors.clone()
        found[name] = diagnose(model, rows(2000, kind, seed=2), device="cpu", replicates=200)
        print(f"\n{name}\n{found[name].table()}")  # docs/guides/audit.md quotes it
        after = model.state_dict()
        assert all(torch.equal(before[key], after[key]) for key in before)
        assert torch.equal(image, model.items.modalities["image"].vectors)
    return found


@pytest.mark.parametrize("name", ["history shuffled", "history removed"])
def test_a_sound_ranker_needs_its_history(diagnoses: dict[str, Diagnosis], name: str) -> None:
    lost = diagnoses["sound"][name].lost
    assert lost.low > 0.02
    assert diagnoses["sound"][name].measurable


def test_an_inverted_mask_is_exposed(diagnoses: dict[str, Diagnosis]) -> None:
    """Other items in the history change nothing, as long as they are as many."""
    contribution = diagnoses["inverted"]["history shuffled"]
    assert contribution.lost.low <= 0 <= contribution.lost.high
    assert not contribution.measurable
    assert diagnoses["inverted"].auc.high < diagnoses["sound"].auc.low


def test_each_input_is_told_by_what_it_carries(diagnoses: dict[str, Diagnosis]) -> None:
    sound = diagnoses["sound"]
    assert sound["content permuted"].measurable
    assert sound["image permuted"].measurable
    assert sound["categorical permuted"].measurable
    assert sound["user permuted"].lost.value == 0  # the recipe has no user vectors
    assert sound["text permuted"].lost.value < 0.01  # text is noise here
    assert {c.name for c in sound.contributions} == set(HERE)


def test_the_report_reads_and_writes(diagnoses: dict[str, Diagnosis]) -> None:
    table = diagnoses["sound"].table()
    assert table.count("\n") == 3 + len(HERE)
    assert "| history shuffled |" in table
    assert json.loads(json.dumps(to_plain(diagnoses["sound"])))["rows"] == 2000
    with pytest.raises(InputError, match="history shuffled"):
        diagnoses["sound"]["weather"]


class Reads(nn.Module):
    """A ranker whose logit is what the test says."""

    def __init__(self, reads: Any) -> None:
        super().__init__()
        self.reads = reads

    def forward(self, batch: Batch) -> Tensor:
        out: Tensor = self.reads(batch).float()
        return out


def test_a_model_without_seams_is_diagnosed_by_its_batches(kind: Tensor) -> None:
    model = Reads(
        lambda b: (kind[b.history[:, -1]] == kind[b.target]) + 0.5 * (b.categorical[:, 0] == 2)
    )
    found = diagnose(model, rows(1500, kind, seed=3), device="cpu", replicates=100)
    assert [c.name for c in found.contributions] == [
        "history shuffled",
        "history removed",
        "categorical permuted",
        "user permuted",
    ]
    assert found["history shuffled"].measurable
    assert found["categorical permuted"].measurable
    assert found["user permuted"].lost.value == 0


class Popular(nn.Module):
    """A ranker of one's own: an appeal an item, beside a table that is no item's."""

    def __init__(self, kind: Tensor) -> None:
        super().__init__()
        self.appeal, self.other = nn.Embedding(ITEMS, 1), nn.Embedding(ITEMS, 1)
        with torch.no_grad():
            self.appeal.weight.copy_((kind == 1).float().unsqueeze(1))

    def forward(self, batch: Batch) -> Tensor:
        out: Tensor = self.appeal(batch.target) + self.other(batch.history[:, -1])
        return out.squeeze(1)


class Offering(Popular):
    """The same, that says which table holds the items."""

    def item_tables(self) -> list[nn.Embedding]:
        return [self.appeal]


def test_a_model_of_ones_own_offers_its_tables_of_items(kind: Tensor) -> None:
    """Whatever they are called; a table that is not offered is left alone."""
    data = rows(1500, kind, seed=6)
    clicked = (kind[data.batch.target] == 1).float()
    data = Rows(replace(data.batch, labels=clicked.unsqueeze(1)))
    hidden, model = Popular(kind), Offering(kind)
    assert not isinstance(hidden, HasItemTables)
    assert isinstance(model, HasItemTables)
    with torch.no_grad():
        model.other.weight.zero_()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    names = {c.name for c in diagnose(hidden, data, device="cpu", replicates=20).contributions}
    found = diagnose(model, data, device="cpu", replicates=100)
    assert {c.name for c in found.contributions} == names | {"ids removed"}
    assert found["ids removed"].auc == 0.5
    assert found["ids removed"].measurable
    assert "| history shuffled | 1.0000 | +0.0000 [+0.0000, +0.0000] | unclear |" in found.table()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_donors_are_rows_of_other_users(kind: Tensor) -> None:
    """A history that is the user's own number, so that a lender is known by what it lends."""
    data = rows(700, kind, seed=4)
    own = (data.batch.user % 5 + 1)[:, None].expand(-1, LENGTH)
    data = Rows(replace(data.batch, user=data.batch.user % 5, history=own))
    lent = []

    def reads(batch: Batch) -> Tensor:
        lent.append((batch.user + 1, batch.history[:, -1]))
        return batch.target

    diagnose(Reads(reads), data, device="cpu", inputs=("history shuffled",), replicates=10)
    half = len(lent) // 2
    assert all((user == last).all() for user, last in lent[:half])
    user, last = (torch.cat(parts) for parts in zip(*lent[half:], strict=True))
    assert not (user == last).any()
    for one in range(1, 6):  # lenders come evenly from the other four
        counts = torch.bincount(last[user == one], minlength=6)[1:]
        assert counts[one - 1] == 0
        even = counts.sum() / 4
        others = torch.arange(5) != one - 1
        assert ((counts[others] - even).abs() < 5 * even.sqrt()).all()


def test_a_ranker_without_content_is_diagnosed(kind: Tensor) -> None:
    recipe, bare = RECIPE.without_content(), replace(items(kind), vectors={}, present={})
    model = build_ranker(recipe, bare, Inputs(categorical=(LEVELS, LEVELS))).eval()
    found = diagnose(model, rows(200, kind, seed=2), device="cpu", replicates=20)
    names = {contribution.name for contribution in found.contributions}
    assert names == set(HERE) - {"content permuted", "image permuted", "text permuted"}


def test_wrong_use_is_one_sentence(kind: Tensor) -> None:
    data = rows(50, kind, seed=5)
    model = Reads(lambda b: b.target)
    with pytest.raises(InputError, match="inputs must be among"):
        diagnose(model, data, device="cpu", inputs=("weather",))
    with pytest.raises(InputError, match="labels"):
        diagnose(model, Rows(replace(data.batch, labels=data.batch.labels[:, :0])), device="cpu")
    alone = replace(data.batch, user=torch.zeros_like(data.batch.user))
    with pytest.raises(InputError, match="two users"):
        diagnose(model, Rows(alone), device="cpu")


# Of items: an id of its own would tell the kind of each as well as what is to be shown.
WITHOUT_IDS = RECIPE.changed({"items.id_dim": 0, "context.wide": False})


def three(kind: torch.Tensor) -> Table:
    """The kind sounds; image and text are noise."""
    former, there = items(kind), torch.arange(ITEMS) > 0
    vectors = {"image": torch.randn(ITEMS, KINDS), "text": former.vectors["text"]}
    return replace(
        former,
        vectors={**vectors, "audio": former.vectors["image"]},
        present=dict.fromkeys(("image", "text", "audio"), there),
    )


def _found(table: Table, kind: torch.Tensor, fusion: str) -> Diagnosis:
    torch.manual_seed(0)
    recipe = WITHOUT_IDS.changed({"items.fusion": fusion})
    model = build_ranker(recipe, table, Inputs(categorical=(LEVELS, LEVELS)))
    train(model, rows(3000, kind, seed=1))
    how: dict[str, Any] = {"device": "cpu", "replicates": 100}
    return diagnose(model, rows(2000, kind, seed=2), **how)


@pytest.mark.parametrize("fusion", ["attention", thorough("concat"), thorough("gmu")])
def test_a_third_modality_that_drives_the_clicks_is_shown(fusion: str) -> None:
    kind = torch.arange(ITEMS) % KINDS
    torch.manual_seed(3)
    table = three(kind)
    whole = _found(table, kind, fusion)
    assert whole["audio permuted"].measurable
    assert whole["audio permuted"].lost.value > 0.05
    for name in ("image permuted", "text permuted"):
        assert whole[name].lost.value < 0.02
    names = [c.name for c in whole.contributions]
    place = names.index("content permuted")
    assert names[place + 1 : place + 4] == ["audio permuted", "image permuted", "text permuted"]
    two = ("image", "text")
    without = replace(
        table,
        vectors={name: table.vectors[name] for name in two},
        present={name: table.present[name] for name in two},
    )
    assert _found(without, kind, fusion).auc.high < whole.auc.low - 0.05

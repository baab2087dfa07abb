"""Every role of a schema is audited: sound logs raise nothing, a fault in any role is named."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from findings import only_serious
from slow_variants import thorough
from store import ARTICLES, PLAIN, SCHEMA, Store, make_store

from mmrec.audit import Report, audit, explain
from mmrec.audit.__main__ import main
from mmrec.cli import EXIT_BAD_INPUT, run
from mmrec.errors import InputError
from mmrec.schema import Categorical, Items


def where(store: Store, label: str, value: int, split: str) -> list[int]:
    return [row for row, one in enumerate(store.clicks[split][label]) if one == value]


@pytest.mark.parametrize("seeds", [8, thorough(100)])
@pytest.mark.parametrize("user", [None, "customer"])
def test_a_sound_store_audits_clean(
    stored: Callable[..., Report], seeds: int, user: str | None
) -> None:
    for seed in range(seeds):
        report = stored(lambda store: store.with_clicks(user=user), seed=seed, customers=300)
        # Without users, rows of one count as independent, so that a shift may be one of few users.
        allowed = {"notice"} if user else {"notice", "warning"}
        assert {f.severity for f in report.findings} <= allowed, report.terminal()


def test_what_is_measured_of_a_store(stored: Callable[..., Report], tmp_path: Path) -> None:
    report = stored()
    report.write(tmp_path / "out")
    assert [*report.facts.tasks] == ["click", "buy"]
    by_label = {(one.split, one.label): one for one in report.facts.shape.by_label}
    rows = report.facts.shape.counts["train"].rows
    buy, click = by_label["train", "buy"], by_label["train", "click"]
    assert click.positives + click.negatives == rows
    assert buy.positives + buy.negatives + buy.unlabelled == rows
    assert buy.unlabelled == pytest.approx(0.3 * rows, rel=0.15)
    assert buy.rate < click.rate
    numbers = {(one.table, one.column): one for one in report.facts.shape.numbers}
    assert numbers["train", "price"].missing == pytest.approx(0.2, abs=0.03)
    assert numbers["train", "position"].missing == 0
    assert numbers["train", "days_ago"].missing == pytest.approx(0.1, abs=0.03)
    assert ("item_info", "grams") in numbers
    assert report.facts.shape.roles["importance"] == "weight"
    compared = {one.column for one in report.facts.shift.separation}
    assert {"price", "position", "newest days_ago", "length of coupons", "device"} <= compared
    for task in report.facts.tasks.values():
        scored = {score.column for score in task.leaks.scores}
        assert {"price", "shop", "coupons", "newest clicked", "newest days_ago"} <= scored
        assert not {"importance", "request", "click", "buy", "customer"} & scored
        (shop,) = (s for s in task.leaks.scores if s.column == "shop" and s.subject == "column")
        assert shop.of_item
    text = (tmp_path / "out" / "audit.md").read_text()
    assert "## Facts: leaks, label buy" in text
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["facts"]["tasks"]["buy"]


def test_history_target_and_a_label_are_enough(stored: Callable[..., Report]) -> None:
    def plant(store: Store) -> None:
        store.schema = PLAIN
        for columns in store.clicks.values():
            for name in {*columns} - {"seen", "article", "click"}:
                del columns[name]
        store.info, store.features = {"article": np.arange(ARTICLES)}, {"article": [1]}

    report = stored(plant)
    assert {finding.severity for finding in report.findings} <= {"notice"}, report.terminal()
    assert report.facts.shape.counts["train"].users == 0
    assert "users" not in report.facts.tasks["click"].leaks.means


def test_columns_without_a_role_are_left_alone(stored: Callable[..., Report]) -> None:
    """What was left out of the schema because it tells the label is not told of again."""

    def plant(store: Store) -> None:
        for columns in store.clicks.values():
            columns["seconds"] = [2.0 * one if one else None for one in columns["click"]]
            columns["note"] = [None] * len(columns["click"])

    assert not stored(plant).serious
    listed = stored(
        lambda store: (plant(store), store.with_clicks(numeric=("price", "position", "seconds")))[0]
    )
    assert {
        f.evidence.column for f in listed.named("single_column") if f.severity == "serious"
    } == {"seconds"}


def test_a_schema_that_is_none_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_store(customers=60)
    store.raw = '{"clicks": {"history": "seen"}, "items": {"id": "article"}}'
    root = store.write(tmp_path / "store")
    with pytest.raises(InputError, match=r"schema\.json.*clicks is incomplete"):
        audit(root)
    monkeypatch.setattr(sys, "argv", ["audit", "--data", str(root)])
    with pytest.raises(SystemExit) as left:
        run(main)
    assert left.value.code == EXIT_BAD_INPUT
    assert capsys.readouterr().err.strip().count("\n") == 0


def test_the_target_of_the_schema_must_be_there(tmp_path: Path) -> None:
    store = make_store(customers=60)
    store.with_clicks(target="product")
    with pytest.raises(InputError, match="needs a numeric column product"):
        audit(store.write(tmp_path / "store"))


# A column that knows the label in every role that can, told of the label that it knows.
def _number(store: Store, label: str) -> None:
    for split in ("train", "valid"):
        truth = store.clicks[split][label]
        store.clicks[split]["price"] = [(one or 0) + store.rng.random() for one in truth]


def _missing(store: Store, label: str) -> None:
    for row in where(store, label, 1, "train"):
        store.clicks["train"]["price"][row] = float("nan")
    for row in where(store, label, 0, "train"):
        store.clicks["train"]["price"][row] = 9.0


def _category(store: Store, label: str) -> None:
    for row in where(store, label, 1, "train"):
        store.clicks["train"]["country"][row] = int(store.rng.choice([2, 2**40]))
    for row in where(store, label, 0, "train"):
        store.clicks["train"]["country"][row] = int(store.rng.choice([-5, 2**50]))


def _marker_in_a_list(store: Store, label: str) -> None:
    for value in (0, 1):
        for row in where(store, label, value, "train"):
            coupons = store.rng.integers(0, 8, store.rng.integers(0, 9)).tolist()
            store.clicks["train"]["coupons"][row] = [*coupons, 8] if value else coupons


def _one_off(store: Store, label: str) -> None:
    """The newest value is the row's own: shifted by one."""
    for value in (0, 1):
        for row in where(store, label, value, "train"):
            own = store.clicks["train"]["clicked"][row]
            store.clicks["train"]["clicked"][row] = [*own[1:], value] if own else own


@pytest.mark.parametrize("label", ["click", "buy"])
@pytest.mark.parametrize(
    ("plant", "column", "subject"),
    [
        (_number, "price", "column"),
        (_missing, "price", "missing"),
        (_category, "country", "column"),
        (_marker_in_a_list, "coupons", "column"),
        (_one_off, "newest clicked", "column"),
    ],
)
def test_a_column_that_knows_the_label(
    stored: Callable[..., Report],
    plant: Callable[[Store, str], None],
    column: str,
    subject: str,
    label: str,
) -> None:
    report = stored(lambda store: plant(store, label))
    found = [f for f in report.named("single_column") if f.severity == "serious"]
    assert (column, subject) in {(f.evidence.column, f.evidence.subject) for f in found}
    assert {f.evidence.column for f in found} <= {column, f"length of {column}"}
    (finding,) = (
        f
        for f in found
        if f.label == label and (f.evidence.column, f.evidence.subject) == (column, subject)
    )
    assert explain(finding)[0].startswith(f"Label {label}: {column}")


@pytest.mark.parametrize("column", ["shop", "kinds", "number"])
def test_categories_of_negatives_from_elsewhere(stored: Callable[..., Report], column: str) -> None:
    """Categories of the item in the click log: of huge numbers, of lists, and below 0."""

    def plant(store: Store) -> None:
        by_item = {
            "shop": {
                a: s
                for c in store.clicks.values()
                for a, s in zip(c["article"], c["shop"], strict=True)
            },
            "kinds": dict(enumerate(store.info["kinds"])),
            "number": {a: a % 9 - 4 for a in range(ARTICLES)},
        }[column]
        for split in ("train", "valid", "test"):
            clicks = store.clicks[split]
            clicks[column] = [by_item[article] for article in clicks["article"]]
        for split in ("train", "valid"):
            clicks = store.clicks[split]
            for row in where(store, "click", 0, split):
                if store.rng.random() < 0.7:
                    clicks[column][row] = by_item[int(store.rng.choice([*by_item]) or 1)]
        if column != "shop":
            others = store.schema.clicks.categorical
            store.with_clicks(categorical=(*others, Categorical(column)))

    report = stored(plant, customers=900)
    found = [f for f in report.named("category_disagrees") if f.severity == "serious"]
    assert {f.evidence.column for f in found} == {column}
    told = {(f.label, f.evidence.split, f.evidence.source) for f in found}
    assert ("click", "train", "usual") in told
    if column == "kinds":  # the item table has it too
        assert ("click", "valid", "item_info") in told


def test_people_may_like_what_suits_them(stored: Callable[..., Report]) -> None:
    """A category of the user that decides the label together with the item is no leak."""

    def plant(store: Store) -> None:
        store.with_clicks(user="customer")
        for split in ("train", "valid"):
            clicks = store.clicks[split]
            shown = store.rng.random(len(clicks["customer"]))
            suits = np.array(clicks["customer"]) % 3 == np.array(clicks["article"]) % 3
            kept = np.flatnonzero(suits | (shown < 0.3))  # mostly what suits
            clicks = {name: [values[row] for row in kept] for name, values in clicks.items()}
            store.clicks[split] = clicks
            clicks["country"] = [one % 3 for one in clicks["customer"]]
            odds = np.where(suits[kept], 0.75, 0.3)
            clicks["click"] = (store.rng.random(len(odds)) < odds).astype(int).tolist()

    report = stored(plant, customers=1500)
    assert not report.serious, report.terminal()
    finding = report.named("category_disagrees")[0]
    assert (finding.severity, finding.evidence.column) == ("notice", "country")


@pytest.mark.parametrize("missing", [False, True])
def test_a_number_that_shifts(stored: Callable[..., Report], missing: bool) -> None:
    def plant(store: Store) -> None:
        price = store.clicks["test"]["price"]
        new = (
            [np.nan if store.rng.random() < 0.8 else p for p in price]
            if missing
            else [2.5 * p for p in price]
        )
        store.clicks["test"]["price"] = new

    found = stored(plant).named("shift")
    assert {(f.evidence.column, f.evidence.missing) for f in found} == {("price", missing)}
    assert {f.evidence.second for f in found} == {"test"}
    words = explain(found[0])[0]
    assert ("more often lack price" if missing else "have a higher price") in words


def test_the_time_of_the_schema_finds_the_future(stored: Callable[..., Report]) -> None:
    def plant(store: Store) -> None:
        store.with_clicks(user="customer")
        clicks = store.clicks["train"]
        last: dict[int, tuple[int, int]] = {}
        rows = list(zip(clicks["customer"], clicks["moment"], clicks["article"], strict=True))
        for customer, moment, article in rows:
            last[customer] = max(last.get(customer, (-1, 0)), (moment, article))
        for row, (customer, moment, _) in enumerate(rows[:200]):
            if last[customer][0] > moment and clicks["seen"][row]:
                clicks["seen"][row][-1] = last[customer][1]

    report = stored(plant)
    assert only_serious(report, "future_items").evidence.time == "moment"


def test_groups_of_one_row_rank_nothing(stored: Callable[..., Report]) -> None:
    def plant(store: Store) -> None:
        for columns in store.clicks.values():
            columns["page"] = [*range(2**53, 2**53 + len(columns["page"]))]

    report = stored(plant)
    found = {(f.label, f.evidence.split) for f in report.named("groups_of_one_label")}
    assert found == {(label, split) for label in ("click", "buy") for split in ("train", "valid")}
    assert not report.serious


def test_a_role_is_a_change_of_the_schema_alone(stored: Callable[..., Report]) -> None:
    """Of one label, the other is a column like any other; without roles of items all goes on."""
    report = stored(lambda s: s.with_clicks(labels=("buy",), categorical=(Categorical("click"),)))
    assert {f.name for f in report.serious} == {"missing_values", "single_column"}
    assert report.named("missing_values")[0].evidence.missing.keys() == {"buy"}
    assert report.named("single_column")[0].label is None

    def plant(store: Store) -> None:
        store.schema = replace(SCHEMA, items=Items("article"))

    report = stored(plant)
    assert not report.serious
    assert report.facts.content.titles is None

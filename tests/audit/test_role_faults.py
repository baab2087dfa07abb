"""A value that a role rules out is found in every role, and named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from store import ARTICLES, Store

from mmrec.audit import Report, explain

Plant = Callable[[Store], None]


def put(store: Store, name: str, value: Any, split: str = "train", rows: int = 5) -> None:
    """The same value in the first rows."""
    store.clicks[split][name][:rows] = [value] * rows


def no_buys(store: Store) -> None:
    store.kinds["buy"] = pa.int8()
    store.clicks["valid"]["buy"] = [None] * len(store.clicks["valid"]["buy"])


# Each plants one fault: the kinds of findings, and an attribute of the first one's evidence.
FAULTS: dict[str, tuple[Plant, str, str, Any]] = {
    "null category": (
        lambda s: put(s, "country", None), "missing_values", "missing", {"country": 5},
    ),
    "category beyond its limit": (
        lambda s: put(s, "device", 4), "values_outside", "outside", {"device": 5},
    ),
    "category below 0 where there is a limit": (
        lambda s: put(s, "device", -1), "values_outside", "outside", {"device": 5},
    ),
    "list beyond its limit": (
        lambda s: put(s, "coupons", [2, 9, 11]), "values_outside", "outside", {"coupons": 5},
    ),
    "null in a list": (
        lambda s: put(s, "coupons", [2, None]), "missing_values", "missing", {"coupons": 5},
    ),
    "null list": (
        lambda s: put(s, "coupons", None), "missing_values", "missing", {"coupons": 5},
    ),
    "infinite number": (
        lambda s: put(s, "price", np.inf), "infinite_numbers", "infinite", {"price": 5},
    ),
    "infinite number in a history": (
        lambda s: put(s, "days_ago", [-np.inf, 1.0]),
        "infinite_numbers uneven_history", "infinite", {"days_ago": 5},
    ),
    "history feature beyond its limit": (
        lambda s: put(s, "clicked", [2] * 99),
        "values_outside uneven_history", "outside", {"clicked": 5},
    ),
    "null history feature": (
        lambda s: put(s, "days_ago", None),
        "missing_values uneven_history", "missing", {"days_ago": 5},
    ),
    "history feature of another length": (
        lambda s: put(s, "days_ago", [0.0] * 99), "uneven_history", "uneven", {"days_ago": 5},
    ),
    "negative weight": (
        lambda s: put(s, "importance", -1.0), "values_outside", "outside", {"importance": 5},
    ),
    "infinite weight": (
        lambda s: put(s, "importance", np.inf), "infinite_numbers", "infinite", {"importance": 5},
    ),
    "missing weight": (
        lambda s: put(s, "importance", np.nan), "missing_values", "missing", {"importance": 5},
    ),
    "null group": (lambda s: put(s, "page", None), "missing_values", "missing", {"page": 5}),
    "null time": (lambda s: put(s, "moment", None), "missing_values", "missing", {"moment": 5}),
    "null row id": (
        lambda s: put(s, "request", None, "test"), "missing_values", "missing", {"request": 5},
    ),
    "row ids that repeat": (
        lambda s: put(s, "request", "again", "test"), "repeated_keys", "repeated", 4,
    ),
    "label of 2": (lambda s: put(s, "buy", 2), "label_values", "odd_labels", 5),
    "no label of a task": (no_buys, "one_label", "positives", 0),
    "text for a category": (
        lambda s: [c.__setitem__("device", ["x"] * len(c["device"])) for c in s.clicks.values()],
        "column_type", "refused",
        {"device": ("string", "integers or booleans or lists of integers")},
    ),
    "category of an item beyond its limit": (
        lambda s: s.info.update(brand=s.info["brand"] + 3), "values_outside", "table", "item_info",
    ),
    "negative tag": (
        lambda s: s.info.update(kinds=[[-3]] * ARTICLES), "values_outside", "outside",
        {"kinds": ARTICLES},
    ),
    "null category of an item": (
        lambda s: s.info.update(brand=[None, None, *s.info["brand"][2:].tolist()]),
        "missing_values", "missing", {"brand": 2},
    ),
    "infinite number of an item": (
        lambda s: s.info["grams"].__setitem__(7, np.inf), "infinite_numbers", "infinite",
        {"grams": 1},
    ),
    "text for a number of an item": (
        lambda s: s.info.update(grams=["heavy"] * ARTICLES), "column_type", "refused",
        {"grams": ("string", "numbers")},
    ),
    "NaN in a vector": (
        lambda s: s.features["cover_vector"][5].__setitem__(0, np.nan), "broken_vectors", "name",
        "features.cover_vector",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_any_role_is_found(stored: Callable[..., Report], fault: str) -> None:
    plant, names, what, value = FAULTS[fault]
    report = stored(plant, customers=300)
    assert {finding.name for finding in report.serious} == {*names.split()}, report.terminal()
    name: Any = names.split()[0]
    found = [getattr(finding.evidence, what) for finding in report.named(name)]
    assert value in found
    for finding in report.findings:
        assert all(sentence.endswith(".") for sentence in explain(finding))


@pytest.mark.parametrize(
    ("column", "severity"),
    [("price", "warning"), ("clicked", "warning"), ("importance", "warning"), ("buy", "serious")],
)
def test_columns_that_are_not_there(
    stored: Callable[..., Report], column: str, severity: str
) -> None:
    def plant(store: Store) -> None:
        for columns in store.clicks.values():
            del columns[column]

    found = stored(plant, customers=200).named("missing_column")
    assert {(f.severity, *f.evidence.absent) for f in found} == {(severity, column)}


def test_columns_that_items_have_not(stored: Callable[..., Report]) -> None:
    def plant(store: Store) -> None:
        del store.info["grams"], store.features["words_vector"]
        store.clicks["test"].pop("request")

    found = stored(plant, customers=200).named("missing_column")
    assert {f.evidence.table: f.evidence.absent for f in found} == {
        "test": ["request"],
        "item_info": ["grams"],
        "features": ["words_vector"],
    }


def test_masks_are_those_of_the_modalities(stored: Callable[..., Report]) -> None:
    def plant(store: Store) -> None:
        for number in np.flatnonzero(~store.features["has_cover"]):
            store.features["cover_vector"][number] = None

    report = stored(plant, customers=200)
    assert not report.serious
    facts = report.facts.content.vectors["features.cover_vector"]
    assert facts.absent == sum(number % 4 == 0 for number in range(1, ARTICLES))


@pytest.mark.parametrize("fault", [None, "nan", "alike"])
def test_a_third_modality_is_audited_by_its_name(
    stored: Callable[..., Report], fault: str | None
) -> None:
    """A column of vectors and a line of the schema; a fault in it is told of it alone."""

    def plant(store: Store) -> None:
        sounds = np.random.default_rng(5).normal(size=(ARTICLES, 7))
        sounds[6, 0] = np.nan if fault == "nan" else 1
        if fault == "alike":
            sounds[:] = sounds[7]
        store.features |= {"sound_vector": list(sounds), "has_tune": np.arange(ARTICLES) % 5 > 0}
        lines = {**store.schema.items.modalities, "tune": "sound_vector"}
        items = replace(store.schema.items, modalities=lines)
        store.schema = replace(store.schema, items=items)

    report = stored(plant, customers=200)
    facts = report.facts.content.vectors["features.sound_vector"]
    assert facts.width == 7
    assert facts.absent == sum(number % 5 == 0 for number in range(1, ARTICLES))
    assert facts.broken == (fault == "nan")
    told = [f for f in report.findings if "sound_vector" in str(f.evidence)]
    assert {f.severity for f in told} <= {"notice"} if fault is None else told


def test_keys_of_items_that_repeat(stored: Callable[..., Report]) -> None:
    def plant(store: Store) -> None:
        store.info["code"][3] = store.info["code"][4]

    finding = stored(plant, customers=200).named("repeated_keys")[0]
    assert (finding.severity, finding.evidence.column) == ("warning", "code")


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("price", 7.0, "price"),
        ("price", np.nan, "price"),
        ("country", 3, "country"),
        ("coupons", [], "coupons"),
        ("importance", 0.0, "importance"),
    ],
)
def test_constant_columns(
    stored: Callable[..., Report], column: str, value: Any, told: str
) -> None:
    def plant(store: Store) -> None:
        for columns in store.clicks.values():
            columns[column] = [value] * len(columns[column])
        store.kinds["coupons"] = pa.list_(pa.int64())

    found = stored(plant, customers=200).named("constant_column")
    assert told in found[0].evidence.constant


def test_a_weight_may_be_constant(stored: Callable[..., Report]) -> None:
    def plant(store: Store) -> None:
        for columns in store.clicks.values():
            columns["importance"] = [1.0] * len(columns["importance"])

    assert not stored(plant, customers=200).named("constant_column")

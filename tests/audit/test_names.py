"""Categories, numbers and lists of any kind, against slow loops."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrec.audit.checks.categories import agreement
from mmrec.audit.checks.statistics import SMOOTHING, list_means
from mmrec.audit.scan import clicks, names
from mmrec.audit.scan.names import BUCKETS, ByName, codes_of, distinct, names_of
from mmrec.audit.scan.numbers import Numbers
from mmrec.io.sources import open_source
from mmrec.schema import Categorical, Clicks

ANY = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(st.one_of(st.none(), ANY, st.integers(-3, 3), st.just(2**53 + 1)), max_size=30))
def test_equal_numbers_and_no_others_have_one_name(values: list[int | None]) -> None:
    found = names_of(pa.array(values, pa.int64()))
    assert np.isnan(found).tolist() == [value is None for value in values]
    for (a, one), (b, other) in combinations(zip(values, found, strict=True), 2):
        if a is not None and b is not None:
            assert (one == other) == (a == b)
    small = [v for v in values if v is not None and abs(v) < 2**53]
    assert [f for v, f in zip(values, found, strict=True) if v in small] == small


@given(st.lists(st.one_of(st.none(), st.lists(ANY | st.integers(-2, 2), max_size=4)), max_size=20))
def test_lists_of_the_same_values_have_one_name(rows: list[list[int] | None]) -> None:
    found = names_of(pa.array(rows, pa.list_(pa.int64())))
    for (a, one), (b, other) in combinations(zip(rows, found, strict=True), 2):
        assert (one == other) == (sorted(a or []) == sorted(b or []))


@given(st.lists(st.lists(ANY, max_size=25), max_size=12))
def test_codes_are_the_last_values_of_each_list(rows: list[list[int]]) -> None:
    flat = np.array([value for row in rows for value in row], dtype=np.int64)
    codes = codes_of(flat, np.array([len(row) for row in rows], dtype=np.int64))
    width = min(names.MOST_VALUES, max([0, *map(len, rows)]))
    assert codes.shape == (len(rows), width)
    code = {v: int(codes_of(np.array([v]), np.array([1]))[0, 0]) for v in flat.tolist()}
    for row, found in zip(rows, codes.tolist(), strict=True):
        kept = [code[value] for value in row[-width:]] if width else []
        assert found == [0] * (width - len(kept)) + kept
    assert 0 not in code.values()


@given(st.integers(0, 2**32), st.sampled_from([None, 3, 400]))
@settings(max_examples=25)
def test_rows_by_item_and_name_equal_loops(seed: int, kinds: int | None) -> None:
    rng = np.random.default_rng(seed)
    item = rng.integers(0, 5, 60)
    known = rng.integers(-(2**40), 2**40, kinds or 4).astype(float)
    value = np.where(rng.random(60) < 0.2, np.nan, rng.choice(known, 60))
    table = ByName.of(np.unique(known) if kinds else None, 5, columns=1)
    assert table is not None
    table.add(item[:20], value[:20])
    table.add(item[20:], value[20:])
    counted: dict[tuple[int, float], int] = defaultdict(int)
    for i, v in zip(item, value, strict=True):
        if not np.isnan(v):
            counted[int(i), float(v)] += 1
    assert table.rows.sum() == sum(counted.values())
    assert table.rows.shape[1] == (len(np.unique(known)) if kinds else BUCKETS)
    place = table.places(known)
    if len({*place.tolist()}) == len(known):  # no two in one bucket
        for (i, v), count in counted.items():
            assert table.rows[i, place[known == v][0]] == count
    assert table.places(np.array([np.nan, 2.0**41])).tolist()[0] == -1
    assert not kinds or table.places(np.array([2.0**41]))[0] == -1


def test_tables_keep_within_their_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "MOST_CELLS", 1000)
    few = ByName.of(np.arange(100.0), 10, columns=3)
    assert few is not None
    assert few.rows.shape == (10, 100)
    hashed = ByName.of(np.arange(101.0), 10, columns=3)
    assert hashed is not None
    assert (hashed.names, hashed.rows.shape) == (None, (10, 33))
    assert ByName.of(None, 400, columns=2) is None


def test_names_of_a_column_are_told_up_to_a_number(tmp_path: Path) -> None:
    path = tmp_path / "some.parquet"
    lists = [[1, 2], [2, 1], [], None, [2]]
    pq.write_table(pa.table({"a": [5, -1, None, 5, 2**60], "b": lists}), path)
    source = open_source(path)
    found = distinct(source, "a", 3)
    assert found is not None
    assert found[:2].tolist() == [-1, 5]
    assert len(found) == 3
    assert distinct(source, "a", 2) is None
    assert len(distinct(source, "b", 9)) == 3


@given(st.integers(0, 2**32))
@settings(max_examples=30)
def test_means_of_lists_equal_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 4, (17, 3))
    label, some = rng.integers(0, 2, 17), rng.random(17) < 0.7
    average = label[some].mean() if some.any() else 0.0
    rate = {}
    for code in (1, 2, 3):
        rows = [label[r] for r in range(17) if some[r] for c in codes[r] if c == code]
        rate[code] = (sum(rows) + SMOOTHING * average) / (len(rows) + SMOOTHING)
    for row, found in enumerate(list_means(codes, label, some)):
        own = [rate[code] for code in codes[row].tolist() if code]
        assert found == pytest.approx(np.mean(own) if own else average)


@given(st.lists(st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), max_size=9), max_size=5))
def test_moments_of_numbers_in_any_pieces(parts: list[list[float]]) -> None:
    found = Numbers("train", "price")
    for part in parts:
        found = found.and_of(np.array(part, dtype=float))
    values = np.array([value for part in parts for value in part], dtype=float)
    there = values[~np.isnan(values)]
    assert (found.values, found.finite) == (len(values), len(there))
    assert found.missing == pytest.approx(np.isnan(values).mean() if len(values) else 0.0)
    if len(there):
        assert (found.smallest, found.largest) == (there.min(), there.max())
        assert found.mean == pytest.approx(there.mean(), abs=1e-6)
        assert found.std == pytest.approx(there.std(), abs=1e-3)


def test_infinite_numbers_are_in_no_moment() -> None:
    found = Numbers("train", "price").and_of(np.array([np.inf, 1.0, np.nan, 3.0, -np.inf]))
    assert (found.values, found.finite, found.mean, found.largest) == (5, 2, 2.0, 3.0)


@given(st.integers(0, 2**32))
@settings(max_examples=30)
def test_agreement_is_the_chance_of_a_pair(seed: int) -> None:
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 4, 13)
    value = np.where(rng.random(13) < 0.2, np.nan, rng.integers(-2, 1, 13))
    rows = [(g, v) for g, v in zip(group, value, strict=True) if not np.isnan(v)]
    pairs = [a[1] == b[1] for a, b in combinations(rows, 2) if a[0] == b[0]]
    assert agreement(group, value) == pytest.approx(np.mean(pairs) if pairs else 0.0)


def test_history_features_give_the_newest_value_and_their_length(tmp_path: Path) -> None:
    roles = Clicks(
        "seen",
        "item",
        ("hit",),
        categorical=(Categorical("tags"),),
        history_categorical=(Categorical("liked"),),
        history_numeric=("days",),
    )
    rows = {
        "seen": [[0, 3], [2, 1], [0, 0], []],
        "item": [1, 2, 3, 1],
        "hit": [0, 1, 1, 0],
        "tags": [[4], [], [7, 4], [4]],
        "liked": [[0, 1], [1, 0], [0, 0], []],
        "days": [[None, 2.5], [1.0, None], [0.0, 9.0], [1.0]],
    }
    pq.write_table(pa.table(rows), tmp_path / "train.parquet")
    split = clicks.scan("train", open_source(tmp_path / "train.parquet"), clicks.Plan(roles, 4))
    others = split.sample.others
    assert others["newest liked"].tolist()[:2] == [1.0, 0.0]
    assert np.isnan(others["newest liked"][2:]).all()  # no item, no value of one
    assert others["newest days"][0] == 2.5
    assert np.isnan(others["newest days"][1:]).all()
    assert others["length of tags"].tolist() == [1, 0, 2, 1]
    assert others["tags"][0] == others["tags"][3] != others["tags"][2]
    assert split.columns.uneven == {"days": 1}
    assert not split.columns.missing
    assert split.numbers["days"].values == 7  # the lengths do not fit: all of them


def test_what_stands_beside_padding_is_no_number(tmp_path: Path) -> None:
    roles = Clicks("seen", "item", ("hit",), history_numeric=("days",))
    rows = {
        "seen": [[0, 3], [2, 1], [0, 0]],
        "item": [1, 2, 3],
        "hit": [0, 1, 1],
        "days": [[-1.0, 2.5], [4.0, None], [-1.0, -1.0]],
    }
    pq.write_table(pa.table(rows), tmp_path / "train.parquet")
    split = clicks.scan("train", open_source(tmp_path / "train.parquet"), clicks.Plan(roles, 4))
    days = split.numbers["days"]
    assert (days.values, days.finite, days.smallest, days.largest) == (3, 2, 2.5, 4.0)

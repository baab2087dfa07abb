"""Rows of random logs agree with loops, and know nothing of what comes at or after their time.

Logs have ties, repeated events and shuffled lines, and go through buckets of a few events.
"""

from __future__ import annotations

import random
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from reference import prepare as slow
from slow_variants import thoroughly

from mmrec.data.prepare.buckets import Buckets, edges, smallest_at
from mmrec.data.prepare.options import Log, Options, Plan
from mmrec.data.prepare.past import Past, count_earlier, run_starts
from mmrec.data.prepare.pipeline import Pipeline
from mmrec.data.prepare.rows import row_id_of

EVENT = st.fixed_dictionaries(
    {
        "user": st.sampled_from(["ann", "bob", "7"]),
        "item": st.sampled_from(["p", "q", "r", "s", "t"]),
        "time": st.integers(0, 9).map(lambda step: 1_700_000_000 + step * 50_000),
        "labels": st.tuples(st.sampled_from([0, 1]), st.sampled_from([0, 1, None])),
        "device": st.sampled_from(["phone", "desk", None]),
        "price": st.sampled_from([None, 1.5, -2.0]),
    }
)
BOTH = [  # a log in which a label never varies is refused
    {"user": "zoe", "item": "t", "time": 1_700_000_001, "labels": (n, n), "device": None}
    | {"price": None}
    for n in (0, 1)
]
EVENTS = st.lists(EVENT, min_size=3, max_size=40).map(lambda events: events + BOTH)
ASKED = st.fixed_dictionaries(
    {
        "history": st.sampled_from(["positive", "all", "device==phone"]),
        "history_length": st.integers(1, 5),
        "split": st.sampled_from(["time", "user-time"]),
        "events_in_memory": st.sampled_from([3, 7, 1000]),
    }
)
KEPT = {
    "positive": slow.positive,
    "all": lambda event: True,
    "device==phone": lambda event: event["device"] == "phone",
}
FEATURES = ("label", "days_ago", "device", "price")


def options_of(asked: dict[str, Any]) -> Options:
    log = Log(
        user="user",
        item="item",
        time="time",
        labels=("click", "buy"),
        categorical=("device",),
        numeric=("price",),
        row_id=("number",),
    )
    plan = Plan(
        history_features=FEATURES,
        shares=(0.5, 0.2, 0.3),
        statistics=("item", "user", "device"),
        windows=(1, 3),
        last=(2,),
        **asked,
    )
    return Options(log, plan=plan)


def run(events: list[slow.Event], options: Options, seed: int = 0) -> dict[int, dict[str, Any]]:
    """Prepare the events in another order; returns each row by its number, names in its values."""
    root = Path(mkdtemp())
    lines = [
        {name: event[name] for name in ("user", "item", "time", "device", "price", "number")}
        | dict(zip(("click", "buy"), event["labels"], strict=True))
        for event in events
    ]
    random.Random(seed).shuffle(lines)
    kinds = {"device": pl.String, "price": pl.Float64, "click": pl.Int8, "buy": pl.Int8}
    pl.DataFrame(lines, schema_overrides=kinds).write_parquet(root / "events.parquet")
    work = root / "work"
    work.mkdir()
    Pipeline(root / "events.parquet", None, options, work).run()
    names = {
        path.stem: [None, *pl.read_parquet(path)["key"].to_list()]
        for path in (work / "log" / "maps").glob("*.parquet")
    }
    found = {}
    for frame in work.glob("sorted/u*.parquet"):
        parts = pl.read_parquet(frame).select("row_id", "part").iter_rows()
        found |= {int(number): {"part": part} for number, part in parts}
    key = row_id_of(options)
    for part in ("train", "valid", "test"):
        path = work / "rows" / f"{part}.parquet"
        rows = pq.read_table(path).to_pylist() if path.exists() else []
        # Rows of train and valid have no key: they are in order of the bucket, then time.
        numbers = _numbers(work, part)
        assert len(numbers) == len(rows)
        for number, row in zip(numbers, rows, strict=True):
            assert row.get(key, str(number)) == str(number)
            found[number] |= _named(row, names)
    return found


def _numbers(work: Path, part: str) -> list[int]:
    place = ("train", "valid", "test").index(part)
    frames = [pl.read_parquet(path) for path in sorted(work.glob("sorted/u*.parquet"))]
    ordered = [frame.sort("time", maintain_order=True) for frame in frames]
    return [int(n) for frame in ordered for n in frame.filter(part=place)["row_id"].to_list()]


def _named(row: dict[str, Any], names: dict[str, list[str | None]]) -> dict[str, Any]:
    row["user"], row["item"] = names["user"][row["user"]], names["item"][row["item"]]
    row["device"] = names["log_device"][row["device"]]
    row["history"] = [names["item"][item] for item in row["history"]]
    row["history_device"] = [names["log_device"][value] for value in row["history_device"]]
    row["price"], *prices = (_or_none(price) for price in (row["price"], *row["history_price"]))
    row["history_price"] = prices
    return row


def _or_none(number: float | None) -> float | None:
    return None if number is None or np.isnan(number) else number


def expected(events: list[slow.Event], row: slow.Event, plan: Plan) -> dict[str, Any]:
    past = slow.history(events, row, plan.history_length, KEPT[plan.history])
    wanted: dict[str, Any] = {name: row[name] for name in ("user", "item", "time", "device")}
    wanted["price"] = row["price"]
    wanted["history"] = [event["item"] for event in past]
    wanted["history_device"] = [event["device"] for event in past]
    wanted["history_price"] = [event["price"] for event in past]
    for place, label in enumerate(("click", "buy")):
        known = [event["labels"][place] for event in past]
        wanted[f"history_{label}"] = [2 if value is None else value for value in known]
    days = [(row["time"] - event["time"]) / slow.DAY for event in past]
    wanted["history_days_ago"] = np.float32(days).tolist()
    for of in ("item", "user", "device"):
        for days_back, ending in ((None, ""), (1, "_1d"), (3, "_3d")):
            found = slow.statistic(events, row, of, days_back)
            labels = [f"{of}_{label}_share{ending}" for label in ("click", "buy")]
            names = [f"{of}_log_rows{ending}", *labels]
            wanted |= dict(zip(names, np.float32(found).tolist(), strict=True))
    wanted["user_click_share_last_2"] = float(np.float32(slow.last_share(events, row, 2)))
    return wanted


def distinct(events: list[slow.Event]) -> list[slow.Event]:
    """Without repeats, numbered."""
    seen = {repr(event): event for event in events}
    return [event | {"number": number} for number, event in enumerate(seen.values())]


WITH_LOGS = given(EVENTS, ASKED)


QUICKLY = [Phase.explicit, Phase.reuse, Phase.generate]  # a shrunken log is minutes away


@settings(max_examples=12, deadline=None, phases=QUICKLY)
@WITH_LOGS
def test_rows_agree_with_loops(events: list[slow.Event], asked: dict[str, Any]) -> None:
    events, options = distinct(events), options_of(asked)
    rows = run(events, options)
    parts = (slow.parts_by_time if asked["split"] == "time" else slow.parts_by_user_time)(
        events, (5, 2)
    )
    assert len(rows) == len(events)
    for event, part in zip(events, parts, strict=True):
        row = rows[event["number"]]
        wanted = expected(events, event, options.plan) | {"part": part}
        for name, value in wanted.items():
            if isinstance(value, float):
                np.testing.assert_allclose(row[name], value, rtol=1e-6, err_msg=name)
            else:
                assert row[name] == value, name
        if part < 2:
            assert (row["click"], row["buy"]) == event["labels"]


test_rows_agree_with_loops_thoroughly = thoroughly(test_rows_agree_with_loops, WITH_LOGS, 500)


@settings(max_examples=5, deadline=None, phases=QUICKLY)
@given(EVENTS, ASKED, st.randoms())
def test_nothing_depends_on_the_row_itself_on_later_ones_or_on_the_order_of_lines(
    events: list[slow.Event], asked: dict[str, Any], chance: random.Random
) -> None:
    """What is later, or of the same instant, gets other labels and devices."""
    events, options = distinct(events), options_of(asked)
    now = chance.choice(events)["time"]
    changed = [_other(event, now, chance) for event in events]
    one, other = run(events, options), run(changed, options, seed=1)
    for event in events:
        if event["time"] == now:
            known = [name for name in one[event["number"]] if name.startswith(("history", "user_"))]
            assert len(known) > 10
            for name in known:
                np.testing.assert_equal(one[event["number"]][name], other[event["number"]][name])


def _other(event: slow.Event, now: int, chance: random.Random) -> slow.Event:
    if event["time"] < now or event["user"] == "zoe":
        return event
    labels = (1 - event["labels"][0], chance.choice([0, 1, None]))
    return event | {"labels": labels, "item": chance.choice("pqrst")}


def test_repeated_events_are_counted_once(tmp_path: Path) -> None:
    event = {"user": "u", "item": "p", "time": 1_700_000_000, "labels": (1, 0), "device": None}
    later = event | {"time": 1_700_000_500, "item": "q"}
    events = [event | {"price": 1.0, "number": 0}] * 3 + [later | {"price": None, "number": 1}]
    events += [event | {"number": 2 + number} for number, event in enumerate(BOTH)]
    asked = {"history": "positive", "history_length": 5, "split": "time", "events_in_memory": 2}
    rows = run(events, options_of(asked))
    assert rows[1]["history"] == ["p"]
    assert rows[1]["user_log_rows"] == pytest.approx(np.log(2))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.booleans()), max_size=20))
def test_counts_and_pasts_agree_with_loops(rows: list[tuple[int, int, bool]]) -> None:
    rows = sorted(rows, key=lambda row: row[:2])
    user, time, kept = (np.array([row[n] for row in rows], dtype=int) for n in range(3))
    for scale in (1, 2**58):  # one number for key and time, or two sorts
        earlier = count_earlier(user, time * scale, kept)
        assert earlier.tolist() == [
            sum(k for u, t, k in rows if u == row[0] and t < row[1]) for row in rows
        ]
    past = Past.of(user, time, kept.astype(bool))
    place, sizes = past.newest(np.arange(len(rows)), 2)
    lists = np.split(place, np.cumsum(sizes)[:-1]) if len(rows) else []
    for row, found in zip(rows, lists, strict=True):
        before = [n for n, (u, t, k) in enumerate(rows) if u == row[0] and t < row[1] and k]
        assert found.tolist() == before[-2:]
    assert run_starts(user).tolist() == [
        min(n for n, (u, *_) in enumerate(rows) if u == row[0]) for row in rows
    ]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(-(2**40), 2**52), min_size=1, max_size=50), st.data())
def test_the_value_at_a_rank_is_exact(values: list[int], data: st.DataObject) -> None:
    path = Path(mkdtemp()) / "a.parquet"
    pl.DataFrame({"time": values}).write_parquet(path)
    rank = data.draw(st.integers(0, len(values) - 1))
    assert smallest_at(path, "time", rank, min(values), max(values)) == sorted(values)[rank]
    cuts = edges(path, "time", min(values), max(values), 4)
    assert len(cuts) <= 3
    assert (np.diff(cuts) > 0).all()


def test_buckets_hold_every_row_in_order(tmp_path: Path) -> None:
    frame = pl.DataFrame({"a": np.arange(100)})
    with Buckets(tmp_path, "u", 3) as buckets:
        for part in frame.iter_slices(7):
            buckets.add(part, part["a"].to_numpy() % 3)
    found = [pl.read_parquet(tmp_path / f"u{n:05}.parquet")["a"].to_list() for n in range(3)]
    assert found == [list(range(n, 100, 3)) for n in range(3)]

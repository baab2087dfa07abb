"""Which rows are of which part, what train must not know, what is drawn, and rows to be scored."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, reject, settings
from hypothesis import strategies as st
from preparing import LOG, START, events, names, rows, run
from slow_variants import thoroughly

from mmrec import ClickData, ParquetStream
from mmrec.audit import audit
from mmrec.data.prepare import Catalogue, Log, Plan, prepare_grown, prepare_like
from mmrec.data.prepare.negatives import Pool, draw
from mmrec.data.prepare.past import uniform
from mmrec.errors import InputError
from mmrec.io.parquet import GROUP_ROWS

QUICKLY = [Phase.explicit, Phase.reuse, Phase.generate]


def test_a_split_by_users_and_by_a_column(tmp_path: Path) -> None:
    log = events(400, user=[f"u{n % 97}" for n in range(400)])
    made = run(tmp_path, log, split="user", shares=(0.5, 0.3, 0.2), history="all")
    of = {part: {row["user"] for row in rows(made, part)} for part in ("train", "valid", "test")}
    assert not of["train"] & of["valid"]
    assert not (of["train"] | of["valid"]) & of["test"]
    assert [len(of[part]) > 10 for part in of] == [True] * 3
    part = [["train", "valid", "test"][n % 3] for n in range(40)]
    click = [n // 3 % 2 for n in range(40)]
    made = run(tmp_path, events(part=part, click=click), split="part", name="own")
    assert [row["time"] for row in rows(made, "valid")] == [
        START + 3600 * n for n in range(1, 40, 3)
    ]
    with pytest.raises(InputError, match=r"a split is train, valid or test, got 'x' .* row 0$"):
        run(tmp_path, events(part=["x", *part[1:]], click=click), split="part", name="bad")


def test_train_does_not_know_cold_items(tmp_path: Path) -> None:
    log = events(600, item=[f"i{n * 7 % 41}" for n in range(600)])
    made = run(tmp_path, log, cold=0.3, history="all", split="user-time")
    train = {row["item"] for row in rows(made, "train")}
    train |= {item for row in rows(made, "train") for item in row["history"]}
    later = {row["item"] for row in rows(made, "valid", "test")}
    cold = {f"i{n}" for n in range(41)} - train
    assert 5 < len(cold) < 20
    assert cold <= later
    assert any(set(row["history"]) & cold for row in rows(made, "valid", "test"))
    assert any("of items that train does not know: no rows of train" in x for x in made.report)
    drawn = uniform(np.arange(100_000), 3)
    assert abs(drawn.mean() - 0.5) < 0.005
    assert not (drawn == uniform(np.arange(100_000), 4)).any()


CLICKS = replace(LOG, labels=())


WITH_CLICKS = given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 7), st.integers(0, 30)),
        min_size=20,
        unique=True,
    ),
    st.sampled_from(["popularity", "uniform"]),
    st.sampled_from([4, 1000]),
    st.booleans(),
)


@settings(max_examples=6, deadline=None, phases=QUICKLY)
@WITH_CLICKS
def test_negatives_were_alive_and_never_clicked(
    clicks: list[tuple[int, int, int]], by: str, memory: int, told: bool
) -> None:
    clicks = [*clicks, *((9, item, item * 10) for item in range(4)), (8, 5, 29), (7, 6, 31)]
    log = pl.DataFrame(clicks, schema=["user", "item", "time"], orient="row").with_columns(
        pl.col("time") * 60 + START
    )
    items = pl.DataFrame({"item": range(10), "since": [START - 60 + 300 * n for n in range(10)]})
    plan: dict[str, Any] = {"negatives_by": by, "events_in_memory": memory, "history": "all"}
    plan |= {"negatives": 2, "statistics": ("item",), "split": "time", "shares": (0.4, 0.3, 0.3)}
    catalogue = Catalogue(since="since" if told else None)
    try:
        made = run(Path(mkdtemp()), log, items, asked=CLICKS, catalogue=catalogue, **plan)
    except InputError as error:  # all at once, or nobody had anything else to click
        if "needs rows" in str(error) or "labels must be both" in str(error):
            reject()
        raise
    own = {(str(user), str(item)) for user, item, _ in log.rows()}
    first = {str(item): time for item, time in log.group_by("item").agg(pl.min("time")).rows()}
    listed = {str(item): time for item, time in items.rows()} if told else {}
    distinct = log.unique()
    for row in rows(made, "train", "valid"):
        times = distinct.filter(
            (pl.col("item").cast(pl.String) == row["item"]) & (pl.col("time") < row["time"])
        )
        assert row["item_log_rows"] == pytest.approx(np.log1p(times.height))
        past = [(str(u), str(i)) for u, i, time in log.rows() if time < row["time"]]
        assert all((row["user"], item) in past for item in row["history"])
        if row["clicked"] == 0:
            assert (row["user"], row["item"]) not in own
            born = min(some.get(row["item"], 2**62) for some in (first, listed))
            assert born < row["time"]


test_negatives_were_alive_and_never_clicked_thoroughly = thoroughly(
    test_negatives_were_alive_and_never_clicked, WITH_CLICKS, 200
)


def test_draws_follow_popularity_or_are_even() -> None:
    item = np.repeat([1, 2, 3, 4], [600, 300, 100, 5]).astype(np.int32)
    pool = Pool(np.zeros(len(item), np.int64), item)
    user, time = np.ones(3000, np.int64), np.ones(3000, np.int64)
    taken = np.array([1 << 32 | 4])
    drawn = draw(user, time, taken, pool, Plan(negatives=1), np.random.default_rng(0))
    share = np.bincount(drawn.ravel(), minlength=5) / drawn.size
    np.testing.assert_allclose(share, [0, 0.6, 0.3, 0.1, 0], atol=0.03)
    both = draw(user, time, taken, pool, Plan(negatives=3), np.random.default_rng(0))
    assert ((np.sort(both) == [1, 2, 3]).all(axis=1)).mean() > 0.9
    assert not (np.diff(np.sort(both)) == 0)[(both > 0).all(axis=1)].any()
    none = draw(user, time * 0, taken, pool, Plan(negatives=2), np.random.default_rng(0))
    assert not none.any()


def test_schema_and_audit_say_that_negatives_were_drawn(tmp_path: Path) -> None:
    log = events(300, item=[f"i{n * 7 % 211}" for n in range(300)])
    asked = replace(CLICKS, row_id=("key",))
    log = log.drop("click").with_columns(key=pl.format("e{}", pl.int_range(300)))
    made = run(tmp_path, log, asked=asked, negatives=3, history="all")
    schema = json.loads((made.root / "schema.json").read_text())
    told = "3 drawn for each click, by popularity"
    assert schema["clicks"]["negatives"] == told
    assert any(told in line for line in made.report)
    assert told in str(audit(made.root, progress=False))
    keys = pq.read_table(made.root / "test.parquet")["key"].to_pylist()
    assert {"e299", "e299#1", "e299#2", "e299#3"} <= set(keys)
    assert len(set(keys)) == len(keys)


FULL = Log(
    user="user",
    item="item",
    time="time",
    labels=("click",),
    categorical=("device",),
    group="request",
    weight="importance",
)
PLAN: dict[str, Any] = {
    "history": "all",
    "history_features": ("label", "days_ago", "device"),
    "statistics": ("item", "user", "device"),
    "windows": (1,),
    "last": (3,),
    "levels": True,
    "split": "part",
}


WITH_LOGS = given(st.integers(0, 10**6), st.sampled_from([7, 1000]))


@settings(max_examples=3, deadline=None, phases=QUICKLY)
@WITH_LOGS
def test_new_rows_are_as_if_they_had_been_in_the_log(seed: int, memory: int) -> None:
    """What `like` makes of new events is what `prepare` makes of them as the test part."""
    rng, folder = np.random.default_rng(seed), Path(mkdtemp())
    count = 90
    log = events(
        count,
        user=[f"u{n}" for n in rng.integers(0, 6, count)],
        item=[f"i{n}" for n in rng.integers(0, 9, count)],
        click=rng.integers(0, 2, count),
        device=rng.choice(["a", "b", "c"], count),
        request=rng.integers(0, 20, count),
        importance=np.ones(count),
        time=START + np.sort(rng.integers(0, 60, count)) * 7200,
    ).unique(["user", "item", "time"], maintain_order=True)
    now = log["time"][log.height - 20]
    part = (
        pl.when(pl.col("time") >= now)
        .then(pl.lit("test"))
        .otherwise(
            pl.when(pl.int_range(pl.len()) % 2 == 0)
            .then(pl.lit("train"))
            .otherwise(pl.lit("valid"))
        )
    )
    whole = run(
        folder,
        log.with_columns(part=part),
        asked=FULL,
        events_in_memory=memory,
        name="whole",
        **PLAN,
    )
    # Of the old events alone, in other parts: that changes what train knows, and nothing else.
    part = pl.int_range(pl.len()).replace_strict({0: "test"}, default="train")
    part = pl.when(pl.int_range(pl.len()) % 3 == 1).then(pl.lit("valid")).otherwise(part)
    old = log.filter(pl.col("time") < now).with_columns(part=part)
    former = run(folder, old, asked=FULL, events_in_memory=memory, name="former", **PLAN)
    log.filter(pl.col("time") >= now).drop("importance").write_parquet(folder / "new.parquet")
    like = prepare_like(former.root, folder / "new.parquet", folder / "like")
    found = rows(like, "rows")
    wanted = rows(whole, "test")
    assert len(wanted) >= 20
    for row, other in zip(found, wanted, strict=True):
        assert other.pop("importance") == 1.0
        for name in ("row_id", "request", "item_rows_level", "item_share_level"):
            row.pop(name), other.pop(name)
        devices = [names(some, "log_device") for some in (like, whole)]
        for some, known in zip((row, other), devices, strict=True):
            some["device"] = known[some["device"]]
            some["history_device"] = [known[value] for value in some["history_device"]]
        np.testing.assert_equal(row, other)


test_new_rows_are_as_if_they_had_been_in_the_log_thoroughly = thoroughly(
    test_new_rows_are_as_if_they_had_been_in_the_log, WITH_LOGS, 200
)


def test_candidates_of_new_users_and_items(tmp_path: Path) -> None:
    items = pl.DataFrame({"item": [f"i{n}" for n in range(5)], "name": list("abcde")})
    made = run(
        tmp_path, events(), items, catalogue=Catalogue(title="name"), statistics=("item:rows",)
    )
    later = START + 3600 * 100
    new = pl.DataFrame(
        {"user": ["u0", "new", "u0", "u0"], "item": ["i1", "i9", "i9", "i1"], "time": later}
    ).with_columns(time=pl.Series([later, later, later + 5, later + 9]))
    new.write_csv(tmp_path / "new.csv")
    pl.DataFrame({"item": ["i9", "i1"], "name": ["z", "B"]}).write_csv(tmp_path / "more.csv")
    like = prepare_like(made.root, tmp_path / "new.csv", tmp_path / "like", tmp_path / "more.csv")
    found = rows(like, "rows")
    assert [row["user"] for row in found] == ["u0", "new", "u0", "u0"]
    assert [row["row_id"] for row in found] == [0, 1, 2, 3]
    clicks = [f"i{n * 7 % 5}" for n in range(0, 40, 4) if n % 3 == 0]
    assert [row["history"] for row in found] == [clicks, [], clicks, clicks]
    assert found[0]["item_log_rows"] == found[3]["item_log_rows"] == pytest.approx(np.log(9))
    titles = pq.read_table(like.root / "item_feature.parquet")["title"].to_pylist()
    assert titles == ["a", "B", "c", "d", "e", "z"]
    assert names(like, "item") == [None, "i0", "i1", "i2", "i3", "i4", "i9"]
    with pytest.raises(InputError, match="an output of prepare is needed"):
        prepare_like(tmp_path, tmp_path / "new.csv", tmp_path / "none")
    again = prepare_like(like.root, tmp_path / "new.csv", tmp_path / "again")
    assert names(again, "user")[-1] == "new"


def test_a_grown_log_keeps_the_numbers_and_has_the_rows_of_the_whole(tmp_path: Path) -> None:
    """New users, values and tags whose names come first, and an item that left the table."""
    plan: dict[str, Any] = {"history": "all", "history_features": ("device",)}
    plan |= {"asked": replace(LOG, categorical=("device",)), "catalogue": Catalogue(tags="kind")}
    log = events(60).with_columns(device=pl.format("d{}", pl.int_range(60) % 3))
    newest = pl.Series([n >= 50 for n in range(60)])
    log = log.with_columns(
        user=pl.when(newest).then(pl.lit("a new one")).otherwise("user"),
        device=pl.when(newest).then(pl.lit("abacus")).otherwise("device"),
    )
    items = pl.DataFrame({"item": [f"i{n}" for n in range(5)], "kind": ["b", "c", "b", "c", "b"]})
    grown_items = items[1:].vstack(pl.DataFrame({"item": ["a"], "kind": ["a"]}))
    former = run(tmp_path, log[:50], items, name="former", **plan)
    whole = run(tmp_path, log, items, name="whole", **plan)
    log.write_parquet(tmp_path / "all.parquet")
    grown_items.write_parquet(tmp_path / "now.parquet")
    grown = prepare_grown(
        former.root, tmp_path / "all.parquet", tmp_path / "grown", tmp_path / "now.parquet"
    )
    for name in ("user", "item", "tag", "log_device"):
        known = names(former, name)
        assert names(grown, name)[: len(known)] == known
        assert len(names(grown, name)) == len(known) + 1
    for part in ("train", "valid", "test"):
        found, wanted = rows(grown, part), rows(whole, part)
        devices = [names(made, "log_device") for made in (grown, whole)]
        for some, known in ((found, devices[0]), (wanted, devices[1])):
            for row in some:
                row["device"] = known[row["device"]]
                row["history_device"] = [known[value] for value in row["history_device"]]
        assert found == wanted
    with pytest.raises(InputError, match="needs another folder"):
        prepare_grown(former.root, tmp_path / "all.parquet", former.root)


def test_new_events_that_the_log_has_already_count_once(tmp_path: Path) -> None:
    made = run(tmp_path, events(), history="all", statistics=("user:rows",))
    events()[-6:].write_parquet(tmp_path / "new.parquet")
    like = prepare_like(made.root, tmp_path / "new.parquet", tmp_path / "like")
    assert "6 new events are in the log already: counted once" in like.report
    assert not any("without any label" in line for line in like.report)
    found = rows(like, "rows")
    for number, row in zip(range(34, 40), found, strict=True):
        assert row["history"] == [f"i{n * 7 % 5}" for n in range(number % 4, number, 4)]
        assert row["user_log_rows"] == pytest.approx(np.log1p(number // 4))


def test_row_groups_are_small_and_files_open(tmp_path: Path) -> None:
    count = 40_000
    log = events(count, user=[f"u{n % 500}" for n in range(count)])
    made = run(tmp_path, log, events_in_memory=15_000)
    data = ClickData.open(made.root)
    groups = pq.ParquetFile(data.train).metadata
    sizes = [groups.row_group(n).num_rows for n in range(groups.num_row_groups)]
    assert max(sizes) <= GROUP_ROWS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ParquetStream(data.train, batch_size=512, columns=["item"], shuffle=True)
    assert sum(data.rows.values()) == count

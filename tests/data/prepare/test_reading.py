"""Times, ids and labels as they come: recognised, asked for, or refused in one sentence."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from preparing import LOG, START, events, names, rows, run

from mmrec.data.prepare import Catalogue, Condition, Log, Options, Plan, Prepared, prepare
from mmrec.data.prepare.__main__ import main
from mmrec.errors import InputError

MOMENTS = [datetime.fromtimestamp(START + 3600 * n, timezone.utc) for n in range(40)]
SECONDS = [START + 3600 * n for n in range(40)]
SUMMER = [datetime(2024, 5, 1, tzinfo=timezone.utc) + timedelta(hours=n) for n in range(40)]


def text(pattern: str, moments: list[datetime] = MOMENTS) -> list[str]:
    return [moment.strftime(pattern) for moment in moments]


TIMES: list[tuple[Any, dict[str, str], list[Any], str]] = [
    (SECONDS, {}, SECONDS, "by their size in s: 2023-11-14 to 2023-11-16"),
    ([n * 1000 for n in SECONDS], {}, [n * 1000 for n in SECONDS], "by their size in ms"),
    ([n * 10**6 for n in SECONDS], {}, [n * 10**6 for n in SECONDS], "by their size in us"),
    ([n * 10**9 for n in SECONDS], {}, [n * 10**9 for n in SECONDS], "by their size in ns"),
    ([str(n) for n in SECONDS], {}, SECONDS, "by their size in s"),
    ([n + 0.25 for n in SECONDS], {}, SECONDS, "by their size in s"),
    (list(range(40)), {"time_unit": "days"}, list(range(40)), "in days as asked"),
    (MOMENTS, {}, MOMENTS, "datetimes of zone UTC"),
    ([m.replace(tzinfo=None) for m in MOMENTS], {}, MOMENTS, "without a zone read as UTC"),
    (text("%Y-%m-%dT%H:%M:%SZ"), {}, MOMENTS, "times: ISO 8601"),
    (text("%Y-%m-%d %H:%M:%S.000+00:00"), {}, MOMENTS, "times: ISO 8601"),
    (text("%Y-%m-%d %H:%M:%S"), {}, MOMENTS, "ISO 8601, without a zone read as UTC"),
    (
        text("%Y-%m-%dT%H:%M", [m + timedelta(hours=2) for m in SUMMER]),
        {"time_zone": "Europe/Berlin"},
        SUMMER,
        "ISO 8601, without a zone read as Europe/Berlin",
    ),
    (
        text("%Y-%m-%dT%H:%M:%S-0330", [m - timedelta(hours=3.5) for m in SUMMER]),
        {"time_zone": "Europe/Berlin"},
        SUMMER,
        "times: ISO 8601",
    ),
    (text("%d/%m/%Y %H:%M:%S"), {"time_format": "%d/%m/%Y %H:%M:%S"}, MOMENTS, "text as %d/%m"),
]


@pytest.mark.parametrize(("given", "asked", "wanted", "told"), TIMES)
def test_times_are_recognised(
    tmp_path: Path, given: Any, asked: dict[str, str], wanted: list[Any], told: str
) -> None:
    made = run(tmp_path, events(time=given), asked=replace(LOG, **asked))
    assert any(told in line for line in made.report), made.report
    assert [row["time"] for row in rows(made)] == wanted


@pytest.mark.parametrize("kind", ["date", "text"])
def test_events_of_a_day_do_not_see_each_other(tmp_path: Path, kind: str) -> None:
    days = [date(2024, 1, 1 + n // 10) for n in range(40)]
    given = days if kind == "date" else [str(day) for day in days]
    made = run(tmp_path, events(time=given), history="all", split="user-time")
    assert "times: dates: events of one day do not see each other" in made.report
    assert [len(row["history"]) for row in rows(made, "train")][:10] == [0] * 10


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (list(range(40)), r"the time unit is asked for, got 0 to 39 in .*, column time$"),
        ([*SECONDS[:39], SECONDS[39] * 1000], "the time unit is asked for"),
        (["01/05/2024"] * 40, r"give the time format .*, got '01/05/2024' in .*, row 0$"),
        ([*text("%Y-%m-%d")[:39], "yesterday"], r"got 'yesterday' in .*, column time, row 39$"),
        ([*text("%Y-%m-%d")[:39], "2024-13-01"], r"times can be read, got '2024-13-01' .* row 39$"),
        ([None] * 40, "every event needs a time, there is none"),
    ],
)
def test_other_times_are_refused(tmp_path: Path, given: list[Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        run(tmp_path, events(time=given))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.parquet"]


def test_a_moment_that_a_zone_does_not_have_is_refused(tmp_path: Path) -> None:
    night = [datetime(2024, 3, 31, 2, 30)] * 40  # clocks go from two to three
    for given in (night, [str(moment) for moment in night]):
        with pytest.raises(InputError, match=r"times can be read, got .*2, 30|.*02:30.* row 0$"):
            run(tmp_path, events(time=given), asked=replace(LOG, time_zone="Europe/Berlin"))


def test_a_format_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    asked = replace(LOG, time_format="%d/%m/%Y")
    with pytest.raises(InputError, match=r"times can be read, got '11\.14\.2023' in .*, row 0$"):
        run(tmp_path, events(time=text("%m.%d.%Y")), asked=asked)


HASHES = [2**64 - 1 - n % 4 for n in range(40)]
UUIDS = [f"{n % 4:08x}-0000-4000-8000-000000000000" for n in range(40)]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (pl.Series([n % 4 for n in range(40)]), ["0", "1", "2", "3"]),
        (pl.Series([9 + n % 4 for n in range(40)]), ["9", "10", "11", "12"]),
        (pl.Series(HASHES, dtype=pl.UInt64), sorted({str(n) for n in HASHES})),
        (pl.Series([-(2**63) + n % 4 for n in range(40)]), None),
        (pl.Series(UUIDS), sorted({*UUIDS})),
        (pl.Series([bytes([n % 4, 255]) for n in range(40)]), ["00ff", "01ff", "02ff", "03ff"]),
        (pl.Series([float(n % 4) for n in range(40)]), ["0", "1", "2", "3"]),
        (pl.Series([["7", " 7 ", "x", "007"][n % 4] for n in range(40)]), ["007", "7", "x"]),
        (pl.Series([["b", "a"][n % 2] for n in range(40)], dtype=pl.Categorical), ["a", "b"]),
        (pl.Series([n % 2 == 0 for n in range(40)]), ["false", "true"]),
    ],
)
def test_any_ids_become_dense_numbers(
    tmp_path: Path, given: pl.Series, wanted: list[str] | None
) -> None:
    made = run(tmp_path, events(user=given))
    keys = names(made, "user")[1:]
    assert wanted is None or keys == wanted
    own = {str(value) for value in pl.DataFrame({"a": given})["a"].to_list()}
    assert len(keys) == len(wanted or own)
    users = pq.read_table(made.root / "train.parquet")["user"].to_numpy()
    assert set(users.tolist()) <= set(range(1, len(keys) + 1))


def test_json_lines_may_mix_types(tmp_path: Path) -> None:
    some = [7, "7", "x", 1.5]
    lines = [
        {"user": some[n % 4], "item": n % 5, "time": START + n, "click": n % 2 == 0}
        for n in range(40)
    ]
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    made = prepare(path, None, tmp_path / "out", Options(LOG))
    assert names(made, "user") == [None, "1.5", "7", "x"]
    assert "label click: 20 of 40 positive" in made.report


@pytest.mark.parametrize("line", [21, 10_500])  # within the lines that tell the columns, and behind
def test_a_broken_line_of_json_is_named(tmp_path: Path, line: int) -> None:
    event = {"user": "u", "item": "i", "time": START, "click": 1}
    lines = [json.dumps(event | {"click": n % 2, "time": START + n}) for n in range(11_000)]
    (tmp_path / "good.jsonl").write_text("\n".join(lines))
    lines[line - 1] = '{"user": "a", "item": :}'
    (tmp_path / "bad.jsonl").write_text("\n".join(["", *lines]))
    for log, items in (("bad", None), ("good", tmp_path / "bad.jsonl")):
        with pytest.raises(InputError, match=rf"bad\.jsonl cannot be read: line {line + 1} is no"):
            prepare(tmp_path / f"{log}.jsonl", items, tmp_path / "out", Options(LOG))


def test_csv_files_of_a_folder_with_another_delimiter(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    for number, part in enumerate(events().iter_slices(25)):
        part.write_csv(tmp_path / "log" / f"{number}.csv", separator=";")
    with pytest.raises(InputError, match="is the delimiter another"):
        prepare(tmp_path / "log", None, tmp_path / "out", Options(LOG))
    made = prepare(tmp_path / "log", None, tmp_path / "out", Options(replace(LOG, delimiter=";")))
    again = run(tmp_path, events(), name="parquet")
    for part in ("train", "valid", "test_labels"):
        one, other = (pq.read_table(some.root / f"{part}.parquet") for some in (made, again))
        assert one == other


def test_labels_by_condition_and_missing_ones(tmp_path: Path) -> None:
    stars = [None, 5, 1, 4, 2]
    kind = ["view", "cart", "buy", "view"]
    log = events(
        rating=[stars[n % 5] for n in range(40)], kind=[kind[n % 4] for n in range(40)]
    ).drop("click")
    asked = replace(LOG, labels=("liked=rating>=4", "acted=kind==cart|buy"))
    found = rows(run(tmp_path, log, asked=asked), "train")
    for number, row in enumerate(found):
        rating = stars[number % 5]
        assert row["liked"] == (None if rating is None else int(rating >= 4))
        assert row["acted"] == int(kind[number % 4] != "view")
    assert Condition.parse("a<=3").operator == "<="


BAD: list[tuple[dict[str, Any], Log, str]] = [
    ({"click": [2, *[0, 1] * 19, 0]}, LOG, r"labels are 0 or 1, or left out, got 2 .* row 0$"),
    ({"click": [0] * 40}, LOG, r"a label is 0 .* click is 1 in 0 and 0 in 40 of .*events\.parquet"),
    ({"price": ["1"] * 39 + ["x"]}, replace(LOG, numeric=("price",)), r"got 'x' in .* row 39$"),
    ({"price": [1.0] * 39 + [np.inf]}, replace(LOG, numeric=("price",)), r"got inf in .* row 39$"),
    (
        {"w": [1.0] * 39 + [-1.0]},
        replace(LOG, weight="w"),
        r"weights are finite, .*got -1.0 .* 39$",
    ),
    (
        {"tags": [["a"]] * 40},
        replace(LOG, categorical=("tags",)),
        r"needed, column tags \(categorical\) of .*events\.parquet holds List.*: write one column",
    ),
    ({}, replace(LOG, user="customer"), r"a column customer is needed \(user\), .* has user, item"),
    ({"user": [None] * 40}, LOG, "events with a user, an item and a time are needed"),
    ({"row": ["same"] * 40}, replace(LOG, row_id=("row",)), "columns need names other than row"),
    (
        {"key": ["a"] * 40},
        replace(LOG, row_id=("key",)),
        r"'a' names several of .*events\.parquet, column key: ",
    ),
]


@pytest.mark.parametrize(("columns", "asked", "sentence"), BAD)
def test_bad_values_are_named_and_nothing_is_left(
    tmp_path: Path, columns: dict[str, Any], asked: Log, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        run(tmp_path, events(**columns), asked=asked)
    assert ".preparing" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.parquet"]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Log("u", "i", "t", ("y",), time_unit="weeks"), "time_unit is one of s, ms"),
        (lambda: Log("u", "i", "t", ("y>=",)), "a condition reads"),
        (lambda: Log("u", "i", "t", ("y",), categorical=("a:b",)), "NAME:min=N or NAME:hash=N"),
        (lambda: Options(Log("u", "i", "t")), "holds clicks only: give a label, or ask"),
        (lambda: Options(LOG, plan=Plan(negatives=2)), "this one has the label click"),
        (lambda: Options(LOG, plan=Plan(statistics=("seller",))), "statistics are of item, user"),
        (lambda: Options(LOG, plan=Plan(history_features=("x",))), "history features are of"),
        (lambda: Plan(shares=(0.5, 0.2, 0.2)), "add up to 1"),
        (lambda: Plan(windows=(7,)), "windows are of statistics"),
        (lambda: Plan(history="some"), "a condition reads"),
        (lambda: Plan(cold=1.0), "cold must lie"),
        (lambda: Plan(history_length=0), "history_length must be"),
        (lambda: Plan(images="fax"), "images is one of"),
        (lambda: Catalogue(separator=""), "a separator is at least one character"),
    ],
)
def test_options_are_checked_before_any_work(make: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        make()


def test_the_command_line_says_what_it_misses(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("events.csv", "items.csv", "out")]
    for words, sentence in (
        (paths, "--user is needed: the column of the user"),
        (paths[:2], "give EVENTS ITEMS DEST"),
        ([*paths, "--user", "u", "--item", "i", "--time", "t"], "holds clicks only"),
        (["--like", str(tmp_path), paths[0]], r"give EVENTS \[ITEMS\] DEST"),
        (["--like", str(tmp_path), *paths[1:]], "an output of prepare is needed"),
    ):
        with pytest.raises(InputError, match=sentence):
            main(words)
    for mode in ("--like", "--grow"):
        words = [mode, "D", *paths, "--label", "y", "--seed", "0", "--levels"]
        with pytest.raises(InputError, match=r"are those of D, got --label, --levels, --seed$"):
            main(words)
        with pytest.raises(InputError, match=r"got --history-features$"):
            main([mode, "D", *paths, "--history-features"])
    events().write_csv(tmp_path / "events.csv")
    columns = ["--user", "user", "--item", "item", "--time", "time", "--label", "click"]
    with pytest.raises(InputError, match="a column has one role"):
        main([paths[0], "-", paths[2], *columns, "--categorical", "user"])
    main([paths[0], "-", paths[2], *columns, "--history-features", "--levels", "--last", "3"])
    assert "liked" not in rows(Prepared(tmp_path / "out", []))[0]
    assert rows(Prepared(tmp_path / "out", []))[0]["item_rows_level"] == 1


def test_files_that_are_none(tmp_path: Path) -> None:
    options = Options(LOG)
    with pytest.raises(InputError, match="there is none at"):
        prepare(tmp_path / "no.csv", None, tmp_path / "out", options)
    (tmp_path / "a.parquet").write_text("x")
    with pytest.raises(InputError, match=r"a parquet file is needed, .* cannot be read"):
        prepare(tmp_path / "a.parquet", None, tmp_path / "out", options)
    (tmp_path / "a.xls").write_text("x")
    with pytest.raises(InputError, match=r"files end in \.csv"):
        prepare(tmp_path / "a.xls", None, tmp_path / "out", options)
    (tmp_path / "e.csv").write_text("user,item,time,click\n")
    with pytest.raises(InputError, match="at least one event is needed"):
        prepare(tmp_path / "e.csv", None, tmp_path / "out", options)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"a column user is needed \(user\)"):
        prepare(tmp_path / "b.parquet", None, tmp_path / "out", options)

"""Each defect, planted in sound data, is found and named; sound data raise nothing serious."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from findings import only_serious
from slow_variants import thorough

from mmrec.audit import Report, audit, explain


@pytest.mark.parametrize("seeds", [10, thorough(100)])
@pytest.mark.parametrize("split", ["users", "time"])
def test_sound_data_raise_nothing_serious(
    audited: Callable[..., Report], split: str, seeds: int
) -> None:
    for seed in range(seeds):
        report = audited(seed=seed + (100 if split == "time" else 0), split=split, users=300)
        assert not report.serious, report.terminal()


@pytest.mark.parametrize("column", ["likes_level", "views_level"])
def test_levels_of_negatives_from_elsewhere(audited: Callable[..., Report], column: str) -> None:
    def plant(data: Any) -> None:
        for name in ("train", "valid"):
            clicks = data.clicks[name]
            wrong = (clicks["label"] == 0) & (data.rng.random(len(clicks["label"])) < 0.6)
            clicks[column] = np.where(wrong, data.rng.integers(1, 11, len(wrong)), clicks[column])

    report = audited(plant)
    finding = only_serious(report, "category_disagrees")
    told = {(f.evidence.split, f.evidence.source) for f in report.named("category_disagrees")}
    assert finding.evidence.column == column
    assert ("train", "item_feature") in told
    assert ("train", "usual") in told
    assert ("valid", "item_feature") in told
    share = report.named("category_disagrees")[0].evidence.share
    assert 0.2 < share < 0.4  # 60 % of the negatives, less one in ten that hits the same level


def test_levels_that_differ_whatever_the_label_are_no_leak(audited: Callable[..., Report]) -> None:
    def plant(data: Any) -> None:
        for clicks in data.clicks.values():
            wrong = data.rng.random(len(clicks["label"])) < 0.4
            clicks["likes_level"] = np.where(
                wrong, data.rng.integers(1, 11, len(wrong)), clicks["likes_level"]
            )

    assert not audited(plant).serious


def test_context_of_the_moment_is_no_leak(audited: Callable[..., Report]) -> None:
    """An hour that sways clicks and is no function of the item is honest, and said to be one."""

    def plant(data: Any) -> None:
        for clicks in data.clicks.values():
            label = clicks["label"]
            hour = data.rng.integers(0, 24, len(label))
            clicks["hour"] = np.where(label & (data.rng.random(len(label)) < 0.3), 20, hour)

    report = audited(plant)
    assert not report.serious, report.terminal()
    assert "hour" in {finding.evidence.column for finding in report.named("single_column")}


def test_rows_sorted_by_label(audited: Callable[..., Report]) -> None:
    def plant(data: Any) -> None:
        clicks = data.clicks["train"]
        order = np.argsort(clicks["label"], kind="stable")
        data.clicks["train"] = {name: values[order] for name, values in clicks.items()}

    report = audited(plant)
    assert {f.name for f in report.serious} == {"row_order", "neighbouring_labels"}
    scores = {score.subject: score.auc.value for score in report.facts.tasks["label"].leaks.scores}
    assert scores["row_number"] == 1.0


def test_rows_sorted_in_pieces(audited: Callable[..., Report]) -> None:
    """Sorted within many pieces: the row number knows little, the neighbour nearly all."""

    def plant(data: Any) -> None:
        clicks = data.clicks["train"]
        piece = np.arange(len(clicks["label"])) // 60
        order = np.lexsort((clicks["label"], piece))
        data.clicks["train"] = {name: values[order] for name, values in clicks.items()}

    only_serious(audited(plant), "neighbouring_labels")


def test_target_in_history_of_positives(audited: Callable[..., Report]) -> None:
    def plant(data: Any) -> None:
        for clicks in data.clicks.values():
            hit = (clicks["label"] == 1) & (data.rng.random(len(clicks["label"])) < 0.5)
            place = data.rng.integers(0, 3, len(hit)) - 3
            clicks["item_seq"][hit, place[hit]] = clicks["item_id"][hit]

    finding = audited(plant).named("target_in_history")[0]
    assert finding.severity == "serious"
    assert finding.evidence.of_negatives == 0
    assert 0.4 < finding.evidence.of_positives < 0.6


def test_histories_that_end_with_their_row(audited: Callable[..., Report]) -> None:
    def plant(data: Any) -> None:
        for clicks in data.clicks.values():
            hit = data.rng.random(len(clicks["label"])) < 0.5
            clicks["item_seq"][hit, -1] = clicks["item_id"][hit]

    finding = only_serious(audited(plant), "target_ends_history")
    assert finding.evidence.newest == finding.evidence.holding


def test_coming_back_to_items_is_not_serious(audited: Callable[..., Report]) -> None:
    def plant(data: Any) -> None:
        for clicks in data.clicks.values():
            hit = data.rng.random(len(clicks["label"])) < 0.2
            place = -1 - data.rng.integers(0, 8, len(hit))
            clicks["item_seq"][hit, place[hit]] = clicks["item_id"][hit]
            clicks["item_seq"][:, :5] = 0
            for row in clicks["item_seq"]:  # close the gaps that planting left
                real = row[row != 0]
                row[:] = 0
                row[len(row) - len(real) :] = real

    report = audited(plant)
    assert not report.serious, report.terminal()
    assert report.named("target_in_history")[0].severity == "warning"


def test_right_padded_histories(audited: Callable[..., Report]) -> None:
    def plant(data: Any) -> None:
        for clicks in data.clicks.values():
            history = clicks["item_seq"]
            order = np.argsort(history == 0, axis=1, kind="stable")
            clicks["item_seq"] = np.take_along_axis(history, order, axis=1)

    finding = only_serious(audited(plant), "right_padded_history")
    assert finding.evidence.first_right_padded in (0, 1, 2)


def test_a_few_users_shared_between_splits(audited: Callable[..., Report]) -> None:
    def plant(data: Any) -> None:
        users = np.unique(data.clicks["valid"]["user_id"])
        renamed = dict(
            zip(users[::2].tolist(), np.unique(data.clicks["train"]["user_id"]), strict=False)
        )
        for name in ("valid",):
            old = data.clicks[name]["user_id"]
            data.clicks[name]["user_id"] = np.array([renamed.get(u, u) for u in old.tolist()])

    report = audited(plant)
    finding = report.named("users_shared")[0]
    assert finding.severity == "warning"
    assert finding.evidence.split == "valid"
    assert finding.evidence.users_found == pytest.approx(finding.evidence.users / 2, abs=1)


def test_rows_dealt_to_splits_at_random(audited: Callable[..., Report]) -> None:
    """Users shared, and train rows from after the valid ones: their histories tell the answers."""

    def plant(data: Any) -> None:
        whole = {
            name: np.concatenate([data.clicks[s][name] for s in data.clicks])
            for name in data.clicks["train"]
        }
        drawn = data.rng.choice(3, len(whole["label"]), p=[0.6, 0.2, 0.2])
        for number, split in enumerate(list(data.clicks)):
            data.clicks[split] = {n: v[drawn == number] for n, v in whole.items()}
            del data.clicks[split]["timestamp"]

    report = audited(plant)
    assert only_serious(report, "future_in_train").evidence.split == "valid"
    assert report.named("users_shared")


def test_popularity_shift(audited: Callable[..., Report]) -> None:
    """Train asks about popular items far more often than valid does."""

    def plant(data: Any) -> None:
        views = data.levels["views_level"]
        clicks = data.clicks["valid"]
        rare = data.rng.choice(np.flatnonzero((views > 0) & (views < 4)), len(clicks["label"]))
        clicks["item_id"] = rare
        for name, levels in data.levels.items():
            clicks[name] = levels[rare]

    finding = audited(plant).named("popularity_shift")[0]
    assert finding.severity == "serious"
    assert (finding.evidence.first, finding.evidence.second) == ("train", "valid")


def test_item_rates_that_do_not_carry_over(audited: Callable[..., Report]) -> None:
    """In train the item decides the label, in valid a coin does: negatives drawn another way."""

    def plant(data: Any) -> None:
        clicks = data.clicks["train"]
        liked = clicks["item_id"] % 2 == 0
        clicks["label"] = (data.rng.random(len(liked)) < np.where(liked, 0.8, 0.2)).astype(int)

    only_serious(audited(plant), "item_means_shift")


def test_future_items(audited: Callable[..., Report]) -> None:
    def plant(data: Any) -> None:
        clicks = data.clicks["train"]
        last: dict[int, tuple[int, int]] = {}
        rows = zip(clicks["user_id"], clicks["timestamp"], clicks["item_id"], strict=True)
        for user, time, item in rows:
            last[user] = max(last.get(user, (-1, 0)), (time, item))
        for row, user in enumerate(clicks["user_id"][:300]):
            time, item = last[user]
            if time > clicks["timestamp"][row]:
                clicks["item_seq"][row, -1] = item

    finding = only_serious(audited(plant), "future_items")
    assert finding.evidence.split == "train"
    assert 200 < finding.evidence.rows < 300


def test_returns_to_items_met_before_the_log_are_no_future(audited: Callable[..., Report]) -> None:
    """The last row of each user asks again about the oldest item of its history."""

    def plant(data: Any) -> None:
        for clicks in data.clicks.values():
            last: dict[int, int] = {}
            for row in np.argsort(clicks["timestamp"], kind="stable"):
                last[int(clicks["user_id"][row])] = int(row)
            for row in last.values():
                history = clicks["item_seq"][row]
                if history.any():
                    clicks["item_id"][row] = history[np.flatnonzero(history)[0]]
            for name, levels in data.levels.items():
                clicks[name] = levels[clicks["item_id"]]

    report = audited(plant)
    assert not report.serious, report.terminal()
    assert report.named("target_in_history")


def test_a_column_that_is_the_label(audited: Callable[..., Report]) -> None:
    def plant(data: Any) -> None:
        for clicks in data.clicks.values():
            noise = data.rng.random(len(clicks["label"]))
            clicks["seconds_watched"] = clicks["label"] * 1.0 + noise

    finding = only_serious(audited(plant), "single_column")
    assert finding.evidence.column == "seconds_watched"


def test_unknown_ids_and_padding_as_target(audited: Callable[..., Report]) -> None:
    def plant(data: Any) -> None:
        clicks = data.clicks["valid"]
        clicks["item_id"][:3] = 10_000
        clicks["item_id"][3:5] = 0
        clicks["item_seq"][:4, -1] = -1

    report = audited(plant)
    counts = report.named("unknown_items")[0].evidence
    assert (counts.split, counts.unknown_targets, counts.unknown_histories) == ("valid", 3, 4)
    assert report.named("padding_as_target")[0].evidence.padding_targets == 2


def test_valid_rows_that_stand_in_train(audited: Callable[..., Report]) -> None:
    def plant(data: Any) -> None:
        train, valid = data.clicks["train"], data.clicks["valid"]
        for name in train:
            train[name] = np.concatenate([train[name], valid[name][:400]])

    finding = audited(plant).named("rows_in_train")[0]
    assert (finding.severity, finding.evidence.rows_found) == ("serious", 400)


def test_label_rate_and_repeats(audited: Callable[..., Report]) -> None:
    def plant(data: Any) -> None:
        clicks = data.clicks["train"]
        keep = (clicks["label"] == 1) | (data.rng.random(len(clicks["label"])) < 0.3)
        clicks = {name: values[keep] for name, values in clicks.items()}
        data.clicks["train"] = {n: np.concatenate([v, v[:500]]) for n, v in clicks.items()}

    report = audited(plant)
    assert report.named("label_rate_shift")
    assert report.named("duplicate_rows")[0].evidence.repeated == 500


@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.int32()), pa.large_list(pa.int64()), pa.list_(pa.int32(), 13), "ragged"],
    ids=str,
)
def test_any_list_type_gives_the_same_report(
    made: Callable[..., Any], tmp_path: Path, kind: Any
) -> None:
    root = made(users=100).write(tmp_path / "data")
    before = audit(root)
    for path in (root / "MicroLens_1M_x1").glob("[tv]*.parquet"):
        table = pq.read_table(path)
        place = table.column_names.index("item_seq")
        lists = table["item_seq"].to_pylist()
        if kind == "ragged":
            lists = [[item for item in row if item] for row in lists]
        column = pa.array(lists, pa.list_(pa.int64()) if kind == "ragged" else kind)
        pq.write_table(table.set_column(place, "item_seq", column), path)
    after = audit(root)
    assert [explain(f) for f in after.findings] == [explain(f) for f in before.findings]
    assert after.facts.tasks["label"].leaks == before.facts.tasks["label"].leaks


def test_columns_of_a_wrong_type(audited: Callable[..., Report]) -> None:
    """Histories of floats and users of strings are told of, and audited as far as they go."""

    def plant(data: Any) -> None:
        clicks = data.clicks["valid"]
        clicks["item_seq"] = clicks["item_seq"].astype(float)
        clicks["item_seq"][4, -1] = np.nan
        clicks["user_id"] = np.array([f"user {i}" for i in clicks["user_id"]])

    report = audited(plant)
    finding = report.named("column_type")[0]
    assert finding.evidence.refused == {
        "user_id": ("string", "integers"),
        "item_seq": ("list<element: double>", "lists of integers"),
    }
    assert report.named("missing_values")[0].evidence.missing == {"item_seq": 1}
    assert {f.name for f in report.serious} == {"column_type", "missing_values"}

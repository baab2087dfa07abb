"""One streamed pass counts what slow loops count."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrec.audit import audit
from mmrec.audit.checks.categories import differs_from_usual
from mmrec.audit.scan import clicks
from mmrec.audit.scan.rows import chosen, row_keys
from mmrec.data.microlens import MICROLENS
from mmrec.errors import InputError
from mmrec.io.sources import open_source

ITEMS, WIDTH = 7, 5


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def random_rows(rng: np.random.Generator, n: int) -> list[dict[str, Any]]:
    """Histories padded anywhere, ids beyond the table, labels missing: nothing is refused."""
    return [
        {
            "user_id": int(rng.integers(1, 4)),
            "item_seq": rng.integers(0, ITEMS + 1, WIDTH).tolist(),
            "item_id": int(rng.integers(0, ITEMS + 1)),
            "likes_level": int(rng.integers(0, 3)),
            "label": [0, 1, None][rng.integers(0, 3)],
        }
        for _ in range(n)
    ]


def by_loops(rows: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "late": 0, "holes": 0, "unknown_target": 0, "unknown_history": 0, "padding": 0,
        "hits": np.zeros((2, 3), dtype=int), "neighbours": np.zeros((2, 2), dtype=int),
        "lengths": np.zeros(WIDTH + 1, dtype=int), "levels": np.zeros((ITEMS, 3), dtype=int),
        "in_history": np.zeros(ITEMS, dtype=int),
    }  # fmt: skip
    for row in rows:
        history = row["item_seq"]
        real = [item != 0 for item in history]
        found["lengths"][sum(real)] += 1
        started, gap, broken = False, False, False
        for there in real:
            gap = gap or (started and not there)
            broken = broken or gap
            started = started or there
        found["late"] += broken and not real[-1]
        found["holes"] += broken and real[-1]
        found["unknown_history"] += any(item >= ITEMS for item in history)
        for item in history:
            if item < ITEMS:
                found["in_history"][item] += 1
            else:
                found["in_history"][0] += 1
        target = row["item_id"]
        found["unknown_target"] += target >= ITEMS
        found["padding"] += target == 0
        target = 0 if target >= ITEMS else target
        found["levels"][target, row["likes_level"]] += 1
        label = row["label"] or 0
        found["hits"][label] += (row["label"] is not None) * np.array(
            [
                1,
                target != 0 and target in history,
                target != 0 and history[-1] == target,
            ]
        )
    for a, b in pairwise(rows):
        ids = [0 if row["item_id"] >= ITEMS else row["item_id"] for row in (a, b)]
        apart = a["user_id"] != b["user_id"] and ids[0] != ids[1]
        if apart and None not in (a["label"], b["label"]):
            found["neighbours"][a["label"], b["label"]] += 1
    return found


@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_counts_equal_loops_for_any_batch_size(
    tmp_path_factory: pytest.TempPathFactory, seed: int, n: int, size: int
) -> None:
    rows = random_rows(np.random.default_rng(seed), n)
    path = write(tmp_path_factory.mktemp("scan") / "train.parquet", rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clicks, "BATCH", size)
        split = clicks.scan("train", open_source(path), clicks.Plan(MICROLENS.clicks, ITEMS))
    wanted, counts = by_loops(rows), split.counts
    assert counts.right_padded == wanted["late"]
    assert counts.with_gaps == wanted["holes"]
    assert (counts.unknown_targets, counts.unknown_histories, counts.padding_targets) == (
        wanted["unknown_target"],
        wanted["unknown_history"],
        wanted["padding"],
    )
    label = split.by_label["label"]
    assert label.hits.tolist() == wanted["hits"].tolist()
    assert label.neighbours.tolist() == wanted["neighbours"].tolist()
    assert split.lengths.tolist() == wanted["lengths"].tolist()
    assert split.in_history.tolist() == wanted["in_history"].tolist()
    table = split.by_name["likes_level"]
    assert table.rows.tolist() == wanted["levels"][:, table.names.astype(int)].tolist()
    assert split.asked.sum() == n == table.rows.sum()
    labels = [row["label"] for row in rows]
    assert split.columns.missing.get("label", 0) == label.counts.unlabelled == labels.count(None)
    assert (label.counts.positives, label.counts.negatives) == (labels.count(1), labels.count(0))
    assert label.targets.sum() == n - labels.count(None)


@given(st.integers(0, 2**32), st.booleans())
@settings(max_examples=50, deadline=None)
def test_disagreement_equals_loops(seed: int, leave_out: bool) -> None:
    rng = np.random.default_rng(seed)
    item, value = rng.integers(0, 4, 23), rng.integers(0, 5, 23)
    table = np.zeros((4, 4), dtype=np.int32)
    for i, v in zip(item, value, strict=True):
        if v < 4:
            table[i, v] += 1
    known, differs = differs_from_usual(table, item, value, leave_out=leave_out)
    for row, (i, v) in enumerate(zip(item, value, strict=True)):
        counts = table[i].astype(int)
        if leave_out and v < 4:
            counts[v] -= 1
        own = counts[v] if v < 4 else (-1 if leave_out else 0)
        assert known[row] == (counts.max() > 0)
        if known[row]:
            assert differs[row] == (max(own, 0) < counts.max())


def test_a_sample_holds_whole_users_and_the_same_ones() -> None:
    users = np.random.default_rng(0).integers(0, 10_000, 50_000)
    kept = chosen(users, 0.1)
    assert len(np.unique(users[kept])) == pytest.approx(1000, abs=150)
    assert not np.isin(users[~kept], users[kept]).any()
    assert chosen(users[kept], 0.1).all()


def test_keys_ignore_the_padding_and_nothing_else() -> None:
    history = np.array([[0, 0, 3, 5]])
    user, item = np.array([7]), np.array([9])
    key = row_keys(history, user, item)
    assert row_keys(history[:, 1:].copy(), user, item) == key
    for other in ([[0, 3, 0, 5]], [[0, 0, 5, 3]], [[0, 0, 3, 6]]):
        assert row_keys(np.array(other), user, item) != key
    assert row_keys(history, item, user) != key


def test_a_sampled_audit_agrees_with_the_whole(made: Callable[..., Any], tmp_path: Path) -> None:
    def plant(data: Any) -> None:
        for columns in data.clicks.values():
            wrong = (columns["label"] == 0) & (data.rng.random(len(columns["label"])) < 0.8)
            columns["likes_level"][wrong] = 11 - columns["likes_level"][wrong]

    data = made(users=1500)
    plant(data)
    root = data.write(tmp_path / "data")
    whole, part = audit(root), audit(root, sample_rows=3000)
    assert (
        {f.name for f in part.serious} == {f.name for f in whole.serious} == {"category_disagrees"}
    )
    aucs = [
        one.auc
        for report in (whole, part)
        for one in report.facts.tasks["label"].categories.disagreements
        if (one.split, one.column, one.source) == ("train", "likes_level", "item_feature")
    ]
    assert aucs[1].rows < 0.7 * aucs[0].rows
    assert aucs[1].value == pytest.approx(aucs[0].value, abs=0.03)
    for report in (whole, part):  # what is counted is counted in every row
        counts = report.facts.shape.by_label[0]
        assert counts.positives + counts.negatives == len(data.clicks["train"]["label"])


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(InputError, match=r"parquet file is needed.*train\.parquet"):
        audit(tmp_path)
    with pytest.raises(InputError, match="a directory of data"):
        audit(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"needs train\.parquet"):
        audit(tmp_path / "empty")
    pq.write_table(pa.table({"label": [0, 1]}), tmp_path / "train.parquet")
    with pytest.raises(InputError, match="numeric column item_id"):
        audit(tmp_path)


def test_a_file_damaged_in_the_middle(made: Callable[..., Any], tmp_path: Path) -> None:
    root = made(users=200).write(tmp_path / "data")
    path = root / "MicroLens_1M_x1" / "train.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 4 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 4)
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"train\.parquet"):
        audit(root)


def test_the_least_a_data_set_can_be(tmp_path: Path) -> None:
    """A train file of three columns and no table beside it is audited all the same."""
    rows = [{"item_id": 1 + i % 5, "item_seq": [i % 3], "label": i % 2} for i in range(60)]
    write(tmp_path / "train.parquet", rows)
    report = audit(tmp_path)
    report.write(tmp_path / "out")
    names = {finding.name for finding in report.findings}
    assert {"no_item_info", "no_valid", "missing_column"} <= names


def test_empty_files_are_findings(made: Callable[..., Any], tmp_path: Path) -> None:
    data = made(users=60)
    data.clicks["valid"] = {name: values[:0] for name, values in data.clicks["valid"].items()}
    root = data.write(tmp_path / "data")
    table = pq.read_table(root / "MicroLens_1M_x1" / "train.parquet")
    pq.write_table(table.slice(0, 0), root / "MicroLens_1M_x1" / "valid.parquet")
    report = audit(root)
    report.write(tmp_path / "out")
    assert {"empty_split", "no_valid"} <= {finding.name for finding in report.findings}
    pq.write_table(table.slice(0, 0), root / "MicroLens_1M_x1" / "train.parquet")
    assert "empty_split" in {finding.name for finding in audit(root).findings}


def test_columns_may_bear_any_name(made: Callable[..., Any], tmp_path: Path) -> None:
    """Names that the audit gives to columns of its own are free for those of a click log."""
    names = {"row", "length", "key", "fold", "history", "others"}
    data = made(users=100)
    for columns in data.clicks.values():
        columns |= dict.fromkeys(names, 1.0 * columns["item_id"])
    root = data.write(tmp_path / "data")
    source = open_source(root / "MicroLens_1M_x1" / "train.parquet")
    split = clicks.scan("train", source, clicks.Plan(MICROLENS.clicks, 300))
    assert {*split.sample.others} == names | {"likes_level", "views_level", "timestamp"}
    assert not audit(root).serious

"""Counts and baselines against loops over rows."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmrec.data.counts import PRIOR_ROWS, count_clicks, read_pairs
from mmrec.schema import Clicks

CLICKS = Clicks("item_seq", "item_id", ("label",), user="user_id")
USERS = [5, 9, 5, 7, 9, 9, 5]
ITEMS = [1, 2, 2, 3, 3, 1, 4]
LABELS = [1, 0, 1, 0, 0, 1, 1]
HISTORIES = [[0, 0, 4], [0, 1, 6], [0, 0, 0], [0, 0, 2], [1, 2, 3], [0, 0, 3], [0, 0, 1]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    columns = {"user_id": USERS, "item_seq": HISTORIES, "item_id": ITEMS, "label": LABELS}
    pq.write_table(pa.table(columns), tmp_path / "train.parquet", row_group_size=3)
    return tmp_path / "train.parquet"


def test_counts_equal_loops(path: Path) -> None:
    counts = count_clicks(path, CLICKS, 8)
    for item in range(8):
        assert counts.item_rows[item, 0] == ITEMS.count(item)
        clicks = sum(y for i, y in zip(ITEMS, LABELS, strict=True) if i == item)
        assert counts.item_clicks[item, 0] == clicks
    assert counts.users.tolist() == [5, 7, 9]
    assert counts.user_rows[:, 0].tolist() == [3, 1, 3]
    assert counts.user_clicks[:, 0].tolist() == [3, 0, 1]
    assert counts.in_history.nonzero()[0].tolist() == [1, 2, 3, 4, 6]
    assert counts.known_items.nonzero().flatten().tolist() == [1, 2, 3, 4, 6]
    assert counts.rate.tolist() == [pytest.approx(4 / 7)]


def test_baselines_are_smoothed_logits(path: Path) -> None:
    counts = count_clicks(path, CLICKS, 8)

    def logit(clicks: float, rows: float) -> float:
        rate = (clicks + PRIOR_ROWS * 4 / 7) / (rows + PRIOR_ROWS)
        return math.log(rate / (1 - rate))

    pairs = [(5, 2), (9, 7), (6, 1), (100, 4)]
    users, items = (np.array(column) for column in zip(*pairs, strict=True))
    user_counts = {5: (3, 3), 9: (1, 3)}
    item_counts = {2: (1, 2), 1: (2, 2), 4: (1, 1)}
    for (user, item), got, both in zip(
        pairs,
        counts.item_logit(items)[:, 0],
        counts.user_item_logit(users, items)[:, 0],
        strict=True,
    ):
        assert got == pytest.approx(logit(*item_counts.get(item, (0, 0))))
        expected = got + logit(*user_counts.get(user, (0, 0))) - logit(0, 0)
        assert both == pytest.approx(expected)


def test_share_of_known_users(path: Path) -> None:
    assert count_clicks(path, CLICKS, 8).share_known(np.array([5, 5, 8, 9])) == 0.75


def test_pairs_are_the_columns(path: Path) -> None:
    pairs = read_pairs(path, CLICKS)
    assert (pairs.user.tolist(), pairs.item.tolist(), pairs.labels[:, 0].tolist()) == (
        USERS,
        ITEMS,
        LABELS,
    )

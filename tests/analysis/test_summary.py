"""What a run says at its end, against loops over the rows of a small shop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from shop import SCHEMA, make_shop
from torch import nn

from mmrec import ClickData
from mmrec.analysis import summarise
from mmrec.analysis.summary import K
from mmrec.data.counts import count_clicks
from mmrec.schema import Schema
from mmrec.train.evaluate import Scores


def scored(root: Path, schema: Schema) -> tuple[ClickData, Scores, dict[str, list[float]]]:
    """A shop, scores of its valid rows that tell something, and these rows."""
    data = ClickData.open(make_shop(root, (300, 400, 20), schema=schema))
    columns = pq.read_table(data.valid).to_pydict()
    rng = np.random.default_rng(0)
    label = np.array([columns["click"], columns["buy"]], dtype=np.float32).T
    logit = rng.normal(size=label.shape).astype(np.float32) + label
    rows = np.arange(len(label))
    return data, Scores(rows, rows, label, logit, ("click", "buy")), columns


def test_rows_of_a_group_are_ranked_against_each_other(tmp_path: Path) -> None:
    clicks = replace(SCHEMA.clicks, user=None, group="customer")
    data, scores, columns = scored(tmp_path, replace(SCHEMA, clicks=clicks))
    counts = count_clicks(data.train, data.schema.clicks, data.num_items)
    figures, lines = summarise(data, counts, nn.Linear(2, 1), scores)
    groups = np.array(columns["customer"])
    assert 50 < len(set(groups.tolist())) < 300
    assert scores.label is not None
    for at, task in enumerate(scores.tasks):
        found: dict[str, list[float]] = {n: [] for n in ("ndcg", "recall", "mrr", "hit_rate")}
        for group in set(groups.tolist()):
            own = (groups == group) & ~np.isnan(scores.label[:, at])
            label = scores.label[own, at][np.argsort(-scores.logit[own, at])]
            if not label.any():
                continue
            gain = 1 / np.log2(np.arange(2, len(label) + 2))
            best = np.sort(label)[::-1]
            found["ndcg"].append((label * gain)[:K].sum() / (best * gain)[:K].sum())
            found["recall"].append(label[:K].sum() / label.sum())
            found["hit_rate"].append(float(label[:K].any()))
            found["mrr"].append(1 / (1 + label.argmax()) if label[:K].any() else 0.0)
        for name, values in found.items():
            assert figures["ranking"][task][name] == pytest.approx(np.mean(values)), name
        shown = f"NDCG {np.mean(found['ndcg']):.4f}, recall {np.mean(found['recall']):.4f}, "
        assert lines[f"valid, {task}, first {K} of a group"].startswith(shown)


def test_without_groups_or_clicks_nothing_is_said_of_them(tmp_path: Path) -> None:
    data, scores, _ = scored(tmp_path / "a", SCHEMA)
    counts = count_clicks(data.train, data.schema.clicks, data.num_items)
    figures, lines = summarise(data, counts, nn.Linear(2, 1), scores)
    assert figures["ranking"] == {"click": None, "buy": None}
    assert not [line for line in lines if "of a group" in line]

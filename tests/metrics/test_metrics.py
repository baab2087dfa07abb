"""Metrics agree with scikit-learn and with loops, ties and one-class users included."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from mmrec import InputError
from mmrec.metrics import (
    auc,
    calibration_curve,
    calibration_error,
    gauc,
    logloss,
    logloss_of_logits,
    predicted_over_observed,
)

# few distinct scores: ties everywhere
clicks = st.lists(st.tuples(st.integers(0, 1), st.integers(-3, 3)), min_size=2, max_size=60)
rows_of_users = st.lists(
    st.tuples(st.integers(1, 6), st.integers(0, 1), st.integers(-2, 2)), min_size=1, max_size=60
)


@given(clicks)
def test_auc_is_sklearns(rows: list[tuple[int, int]]) -> None:
    label, score = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    if len(set(label)) == 1:
        with pytest.raises(InputError, match="AUC needs both classes"):
            auc(label, score)
    else:
        assert auc(label, score) == pytest.approx(roc_auc_score(label, score), abs=1e-12)


def test_auc_of_a_million_rows_with_ties_is_sklearns() -> None:
    rng = np.random.default_rng(0)
    score = rng.normal(size=1_000_003).round(3).astype(np.float32)
    label = rng.random(len(score)) < 1 / (1 + np.exp(-score))
    assert auc(label, score) == pytest.approx(roc_auc_score(label, score), abs=1e-12)


@given(rows_of_users)
def test_gauc_is_the_loop_over_users(rows: list[tuple[int, int, int]]) -> None:
    user, label, score = (np.array(column) for column in zip(*rows, strict=True))
    total = covered = users = 0.0
    for one in np.unique(user):
        mine = user == one
        if len(set(label[mine])) == 2:
            total += mine.sum() * roc_auc_score(label[mine], score[mine])
            covered += mine.sum()
            users += 1
    if not covered:
        with pytest.raises(InputError, match="none of"):
            gauc(user, label, score)
        return
    found = gauc(user, label, score)
    assert found.auc == pytest.approx(total / covered, abs=1e-12)
    assert found.row_coverage == pytest.approx(covered / len(rows))
    assert found.user_coverage == pytest.approx(users / len(np.unique(user)))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_logloss_is_sklearns_also_at_zero_and_one(dtype: type) -> None:
    rng = np.random.default_rng(1)
    probability = rng.random(997).astype(dtype)
    probability[:4] = [0, 1, 0, 1]
    label = rng.integers(0, 2, 997)
    label[:4] = [0, 1, 1, 0]
    expected = log_loss(label, probability.astype(dtype))
    assert logloss(label, probability) == pytest.approx(expected, rel=1e-6)


def test_logloss_of_logits_is_exact_where_probabilities_round() -> None:
    assert logloss_of_logits([0, 1], [800.0, -800.0]) == 800.0
    rng = np.random.default_rng(2)
    logit = rng.normal(size=499)
    label = rng.integers(0, 2, 499)
    assert logloss_of_logits(label, logit) == pytest.approx(
        log_loss(label, 1 / (1 + np.exp(-logit))), rel=1e-12
    )


@settings(max_examples=50)
@given(rows_of_users, st.integers(1, 9))
def test_calibration_error_is_the_loop_over_bins(
    rows: list[tuple[int, int, int]], bins: int
) -> None:
    _, label, level = (np.array(column) for column in zip(*rows, strict=True))
    probability = (level + 2) / 4
    n = len(rows)
    ordered = sorted(range(n), key=lambda i: probability[i])
    shared = [label[probability == probability[i]].mean() for i in ordered]
    edges = np.linspace(0, n, bins + 1).round().astype(int)
    expected = 0.0
    for low, high in pairwise(edges):
        if high > low:
            said = np.mean([probability[i] for i in ordered[low:high]])
            expected += (high - low) / n * abs(said - np.mean(shared[low:high]))
    assert calibration_error(label, probability, bins=bins) == pytest.approx(expected, abs=1e-12)


def test_calibration_of_true_probabilities_is_near_zero_and_bins_are_equal() -> None:
    rng = np.random.default_rng(3)
    probability = rng.random(200_000)
    label = rng.random(200_000) < probability
    assert calibration_error(label, probability) < 0.006
    assert calibration_error(label, probability**2) > 0.1
    assert predicted_over_observed(label, probability) == pytest.approx(1.0, abs=0.01)
    assert set(calibration_curve(label, probability, bins=20)[2]) == {10_000}


@pytest.mark.parametrize(
    ("label", "score", "sentence"),
    [
        ([1, 0], [0.5], "one length"),
        ([], [], "at least one row"),
        ([1, 2], [0.1, 0.2], "labels must be 0 or 1, got 2.0 at position 1"),
        ([1, 0], [0.1, float("nan")], "scores must be finite, got nan at position 1"),
        ([1, 1], [0.1, 0.2], "all 2 labels are 1"),
        ([0, 0], [0.1, 0.2], "all 2 labels are 0"),
    ],
)
def test_bad_input_is_one_sentence(label: list[int], score: list[float], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        auc(label, score)


def test_probabilities_and_clicks_are_required_where_they_matter() -> None:
    with pytest.raises(InputError, match=r"must lie in \[0, 1\], got 1.5"):
        logloss([0, 1], [0.5, 1.5])
    with pytest.raises(InputError, match="all 2 labels are 0"):
        predicted_over_observed([0, 0], [0.5, 0.5])
    with pytest.raises(InputError, match="one shape"):
        gauc([1], [0, 1], [0.1, 0.2])

"""Intervals: the statistic is the metric of the resampled rows, and the truth is covered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from slow_variants import thorough

from mmrec import InputError
from mmrec.metrics import Interval, auc, bootstrap, gauc, logloss_of_logits
from mmrec.metrics.intervals import _statistic


def simulated(
    rng: np.random.Generator, users: int, spread: float = 0.7
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clicks whose logit is a user's own level plus a signal: rows of a user hang together."""
    rows = rng.integers(2, 12, users)
    user = np.repeat(np.arange(users), rows)
    level = rng.normal(scale=spread, size=users)[user]
    logit = level + rng.normal(size=len(user))
    return user, (rng.random(len(user)) < 1 / (1 + np.exp(-logit))).astype(float), logit


def interval(*given: Any, **options: Any) -> Interval:
    return bootstrap(*given, **options).interval()


METRICS = {
    "auc": lambda user, label, score: auc(label, score),
    "logloss": lambda user, label, score: logloss_of_logits(label, score),
    "gauc": lambda user, label, score: gauc(user, label, score).auc,
}


@pytest.mark.parametrize("metric", METRICS)
def test_a_replicate_is_the_metric_of_repeated_rows(metric: str) -> None:
    rng = np.random.default_rng(0)
    user, label, score = simulated(rng, 37)
    score = score.round(1)  # ties
    index, users = np.unique(user, return_inverse=True)[1], 37
    statistic = _statistic(metric, index, label, score)
    for _ in range(5):
        drawn = rng.integers(0, users, users)
        rows = [np.flatnonzero(user == one) for one in drawn]
        copy = np.repeat(np.arange(users), [len(part) for part in rows])  # a user of its own
        picked = np.concatenate(rows)
        expected = METRICS[metric](copy, label[picked], score[picked])
        found = statistic(np.bincount(drawn, minlength=users))
        assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_the_middle_is_the_metric_itself(metric: str) -> None:
    user, label, score = simulated(np.random.default_rng(1), 101)
    found = interval(metric, user, label, score, replicates=50)
    assert found.value == pytest.approx(METRICS[metric](user, label, score), abs=1e-12)
    assert found.low < found.value < found.high
    assert found == interval(metric, user, label, score, replicates=50)


@pytest.mark.parametrize(
    ("simulations", "replicates", "low", "high"),
    [(80, 120, 0.87, 1.0), thorough(2000, 400, 0.93, 0.97)],
)
@pytest.mark.parametrize("metric", METRICS)
def test_the_truth_is_covered_as_often_as_promised(
    metric: str, simulations: int, replicates: int, low: float, high: float
) -> None:
    """93-97 % of 2,000 simulations in the slow run. In short: what 80 of them can tell."""
    truth = METRICS[metric](*simulated(np.random.default_rng(7), 200_000))
    covered = 0
    for seed in range(simulations):
        rows = simulated(np.random.default_rng((11, seed)), 300)
        found = interval(metric, *rows, replicates=replicates, seed=seed)
        covered += found.low <= truth <= found.high
    assert low <= covered / simulations <= high, covered / simulations


def test_paired_differences_see_what_separate_intervals_cannot() -> None:
    rng = np.random.default_rng(3)
    user, label, good = simulated(rng, 400)
    worse = good + rng.normal(scale=0.4, size=len(good))

    def difference(other: np.ndarray, replicates: int = 300) -> Interval:
        scores = (good, other)
        ours, theirs = (
            bootstrap("auc", user, label, score, replicates=replicates) for score in scores
        )
        return (ours - theirs).interval()

    found = difference(worse)
    assert found.low > 0
    assert found.value == pytest.approx(auc(label, good) - auc(label, worse))
    apart = [interval("auc", user, label, score, replicates=300) for score in (good, worse)]
    assert apart[0].low < apart[1].high  # the separate ones overlap
    same = difference(good, replicates=20)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    noise = good + rng.normal(scale=1e-3, size=len(good))
    unclear = difference(noise)
    assert unclear.low <= 0 <= unclear.high


def test_bad_input_is_one_sentence() -> None:
    with pytest.raises(InputError, match="metric must be one of"):
        interval("f1", [1, 2], [0, 1], [0.1, 0.2])
    with pytest.raises(InputError, match="at least two of them, got 1"):
        interval("auc", [1, 1], [0, 1], [0.1, 0.2])
    with pytest.raises(InputError, match="one length"):
        interval("auc", [1, 2, 3], [0, 1], [0.1, 0.2])
    with pytest.raises(InputError, match="too few clicks"):
        interval("auc", [1, 2], [0, 0], [0.1, 0.2])

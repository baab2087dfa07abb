"""AUCs and their errors against loops, libraries and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from slow_variants import thorough

from mmrec.audit.checks.statistics import (
    Measured,
    Standard,
    clusters_of,
    difference,
    influence,
    lower_share,
    measure,
    within,
)


def rows_of(n: int) -> np.ndarray:
    return np.arange(n)


def test_auc_equals_sklearn_with_ties() -> None:
    rng = np.random.default_rng(0)
    for size in (7, 53, 211):
        label = rng.permutation(np.arange(size) % 3 == 0)
        score = rng.integers(0, 5, size)
        assert measure(label, score, rows_of(size)).value == pytest.approx(
            roc_auc_score(label, score), abs=1e-12
        )


def test_influence_is_what_leaving_a_row_out_changes() -> None:
    """The jackknife: n times the change of AUC without the row, up to 1/n."""
    rng = np.random.default_rng(1)
    size = 400
    label = rng.random(size) < 0.4
    score = rng.normal(size=size) + label
    auc, rows = influence(label, score)
    assert rows.sum() == pytest.approx(0, abs=1e-12)
    for row in (3, 77, 301):
        rest = np.delete(np.arange(size), row)
        change = auc - influence(label[rest], score[rest])[0]
        assert change == pytest.approx(rows[row], abs=3e-5)


@pytest.mark.parametrize("draws", [400, thorough(4000)])
@pytest.mark.parametrize("rows_a_user", [1, 7])
def test_errors_are_those_of_repeated_draws(rows_a_user: int, draws: int) -> None:
    """Users differ in how they score and how they click, so rows of one user go together."""
    rng = np.random.default_rng(2)
    users = 60
    user = np.repeat(np.arange(users), rows_a_user)
    drawn, errors, null_z = [], [], []
    for _ in range(draws):
        taste = rng.normal(size=users)[user]
        label = rng.random(len(user)) < 1 / (1 + np.exp(-taste))
        score = taste + 0.7 * rng.normal(size=len(user))
        measured = measure(label, score, user)
        drawn.append(measured.value)
        errors.append(measured.error)
        unrelated = rng.normal(size=users)[user]
        null_z.append(measure(label, unrelated, user).z())
    assert np.mean(errors) == pytest.approx(np.std(drawn), rel=0.15)
    assert np.std(null_z) == pytest.approx(1, abs=0.15)
    # Ignoring users would have told this test that chance is a finding.
    if rows_a_user > 1:
        alone = measure(label, unrelated, rows_of(len(user)))
        assert alone.null_error < 0.75 * measure(label, unrelated, user).null_error


def test_few_rows_that_differ_are_no_proof() -> None:
    """12 rows of 3000 are flagged, all negatives: with 3 in 4 negative, 1 in 32 by chance."""
    label = np.arange(3000) % 4 == 0
    flag = np.zeros(3000, dtype=bool)
    flag[np.flatnonzero(~label)[:12]] = True
    assert abs(measure(label, flag, rows_of(3000)).z()) == pytest.approx(2, abs=0.05)


def test_difference_is_paired() -> None:
    rng = np.random.default_rng(3)
    label = rng.random(500) < 0.3
    score = rng.normal(size=500) + label
    near = score + 0.01 * rng.normal(size=500)
    both = difference(label, near, score, rows_of(500))
    apart = math.hypot(
        measure(label, near, rows_of(500)).error, measure(label, score, rows_of(500)).error
    )
    assert both.value == pytest.approx(roc_auc_score(label, near) - roc_auc_score(label, score))
    assert both.error < apart / 20
    assert difference(label, score, score, rows_of(500)) == Measured(0.0, 0.0, 0.0, 500)


@pytest.mark.parametrize("draws", [200, thorough(2000)])
def test_within_groups_sees_no_difference_between_them(draws: int) -> None:
    """Groups that differ in both flag and label, but not inside: z is that of chance."""
    rng = np.random.default_rng(4)
    seen = []
    for _ in range(draws):
        group = rng.integers(0, 90, 700)
        level = rng.random(90)[group]
        flag, label = rng.random(700) < level, rng.random(700) < level
        seen.append(within(group, flag, label, rows_of(700)))
    assert np.mean(seen) == pytest.approx(0, abs=0.25)
    assert np.std(seen) == pytest.approx(1, abs=0.15)
    assert within(group, flag, flag, rows_of(700)) > 10
    assert within(rows_of(700), flag, flag, rows_of(700)) == 0  # groups of one row say nothing


def test_the_standard_is_chance_and_size() -> None:
    standard = Standard.of(tests=100, positives=2500, negatives=7500)
    assert standard.z == pytest.approx(4.417, abs=0.001)  # normal quantile of 1 - 0.001 / 200
    assert standard.resolution == pytest.approx(1.96 * 0.006667, abs=1e-4)
    sure = Measured(0.52, 0.001, 0.001, 10_000)
    assert standard.found(sure)
    assert not standard.found(Measured(0.52, 0.01, 0.01, 10_000))  # not real
    assert not standard.found(Measured(0.51, 0.0001, 0.0001, 10_000))  # too small to matter
    assert standard.decides(Measured(0.93, 0.001, 0.001, 10_000), honest=0.8)
    assert standard.decides(Measured(0.07, 0.001, 0.001, 10_000), honest=0.8)
    assert not standard.decides(Measured(0.89, 0.001, 0.001, 10_000), honest=0.8)
    assert Standard.of(tests=1, positives=0, negatives=5).resolution == 0.5


def test_share_is_a_lower_bound() -> None:
    assert lower_share(0, 50, 4.4) == 0
    # Wilson's interval of 30 in 100 at z = 1.96 is 0.2189 to 0.3958.
    assert lower_share(30, 100, 1.96) == pytest.approx(0.2189, abs=1e-4)


def test_labels_of_one_kind_measure_nothing() -> None:
    measured = measure(np.ones(9), np.arange(9), rows_of(9))
    assert (measured.value, measured.z()) == (0.5, 0.0)


def test_few_users_are_no_clusters() -> None:
    assert clusters_of(np.zeros(5)).tolist() == [0, 1, 2, 3, 4]
    assert clusters_of(np.arange(40) // 2 + 7).max() == 39  # 20 users: rows stand for themselves
    assert clusters_of(np.arange(80) // 2 + 7).max() == 39  # 40 users are enough

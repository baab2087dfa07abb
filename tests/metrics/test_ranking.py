"""Ranking at k is the mean over all orders of ties, and scikit-learn's NDCG."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from mmrec import InputError
from mmrec.metrics import ranking_at_k

rows = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 1), st.integers(-1, 1)),
    min_size=1,
    max_size=11,
)


def slow(label: np.ndarray, score: np.ndarray, k: int) -> tuple[float, float, float, float]:
    """Every order of the rows in which scores do not rise."""
    found = []
    for order in permutations(range(len(label))):
        if all(score[a] >= score[b] for a, b in pairwise(order)):
            top = [label[i] for i in order[:k]]
            best = sum(1 / np.log2(i + 2) for i in range(min(k, int(sum(label)))))
            gain = sum(y / np.log2(i + 2) for i, y in enumerate(top))
            first = next((1 / (i + 1) for i, y in enumerate(top) if y), 0.0)
            found.append((gain / best, sum(top) / sum(label), first, float(first > 0)))
    return tuple(np.mean(found, axis=0))


@given(rows, st.integers(1, 7))
def test_every_figure_is_the_mean_over_all_orders_of_ties(
    drawn: list[tuple[str, int, int]], k: int
) -> None:
    group, label, score = (np.array(column) for column in zip(*drawn, strict=True))
    figures, names = [], np.unique(group)
    for name in names:
        mine = group == name
        if mine.sum() > 6:
            return
        if label[mine].any():
            figures.append(slow(label[mine], score[mine], k))
    if not figures:
        with pytest.raises(InputError, match="a group with a click"):
            ranking_at_k(group, label, score, k=k)
        return
    found = ranking_at_k(group, label, score, k=k)
    got = (found.ndcg, found.recall, found.mrr, found.hit_rate)
    np.testing.assert_allclose(got, np.mean(figures, axis=0), atol=1e-12)
    assert found.coverage == pytest.approx(len(figures) / len(names))


@pytest.mark.parametrize("k", [1, 5, 100])
def test_ndcg_is_sklearns(k: int) -> None:
    rng = np.random.default_rng(k)
    label = (rng.random((50, 40)) < 0.2).astype(int)
    score = rng.normal(size=label.shape).round(1)  # many ties
    group = np.repeat(np.arange(50), 40)
    there = label.any(1)
    shuffled = rng.permutation(label.size)
    found = ranking_at_k(group[shuffled], label.ravel()[shuffled], score.ravel()[shuffled], k=k)
    assert found.ndcg == pytest.approx(ndcg_score(label[there], score[there], k=k), abs=1e-12)


def test_a_group_of_many_ties_stays_exact() -> None:
    """One click among 5,000 equal rows: the first ten hold it in one case of 500."""
    label = np.zeros(5000)
    label[17] = 1
    found = ranking_at_k(np.zeros(5000), label, np.zeros(5000), k=10)
    assert found.hit_rate == pytest.approx(10 / 5000, rel=1e-9)
    assert found.mrr == pytest.approx(sum(1 / i for i in range(1, 11)) / 5000, rel=1e-9)


def test_bad_input_gets_a_sentence() -> None:
    with pytest.raises(InputError, match="k must be a whole number"):
        ranking_at_k([1], [1], [0.5], k=0)
    with pytest.raises(InputError, match="one shape"):
        ranking_at_k([1, 2], [1], [0.5], k=1)

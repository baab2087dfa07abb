"""How much of the label content alone explains, and how much it adds to ids: a linear probe.

N items, K width of the content, lambda the strength of the ridge.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmrec.audit.checks.statistics import (
    Array,
    Floats,
    Measured,
    Standard,
    clusters_of,
    difference,
    item_means,
    measure,
    smoothed,
)
from mmrec.audit.scan.rows import FEWEST_USERS
from mmrec.audit.scan.split import Split
from mmrec.audit.scan.vectors import Vectors

STRENGTHS = (1.0, 10.0, 100.0, 1_000.0, 10_000.0)  # in rows: what the average item weighs


@dataclass(frozen=True)
class Probe:
    """AUCs on valid.

    Attributes:
        columns: the vectors that content is.
        content, ids, both: of content alone, of item means alone, of both.
        adds: paired difference of the last two; `real` whether it is more than chance.
        new_items: of content on items that train never asks about, where enough of them are.
    """

    columns: list[str]
    content: Measured
    ids: Measured
    both: Measured
    adds: Measured
    real: bool
    new_items: Measured | None


def probe(
    train: Split, valid: Split, label: str, vectors: Sequence[Vectors], standard: Standard
) -> Probe:
    """Fit item rates on content in train, score valid.

    The content's prediction c_i is ridge regression of an item's positive rate on its vectors,
    weighted by rows. Beside ids, it takes the average's place in the smoothed item mean:
    (positives_i + s c_i) / (rows_i + s), so that rare items lean on their content.
    """
    there = np.asarray(np.stack([v.there for v in vectors]).any(axis=0))
    features = np.concatenate([_standardised(v) for v in vectors], axis=1)
    targets = train.by_label[label].targets
    negative, positive = targets.sum(axis=0).astype(float)
    rows = negative + positive
    content, ids = fit(features, positive, rows, there), item_means(targets)
    both = smoothed(positive, rows, content)
    held = valid.sample.labelled(label)
    item, truth, cluster = held.item, held.label, clusters_of(held.user)
    adds = difference(truth, both[item], ids[item], cluster)
    some = held.where(rows[item] == 0)
    enough = min((some.label > 0).sum(), (some.label == 0).sum()) >= FEWEST_USERS
    new = measure(some.label, content[some.item], clusters_of(some.user)) if enough else None
    return Probe(
        columns=[v.facts.name for v in vectors],
        content=measure(truth, content[item], cluster),
        ids=measure(truth, ids[item], cluster),
        both=measure(truth, both[item], cluster),
        adds=adds,
        real=standard.real(adds, 0.0),
        new_items=new,
    )


def _standardised(vectors: Vectors) -> Floats:
    """(N, K + 1) sketches of unit variance, zero where absent, and whether they are present."""
    sketch = vectors.sketch.astype(np.float64)
    present = sketch[vectors.there]
    if not len(present):
        return np.zeros((len(sketch), 1))
    std = present.std(axis=0)
    scaled = np.where(std > 0, (sketch - present.mean(axis=0)) / np.where(std > 0, std, 1), 0.0)
    scaled[~vectors.there] = 0
    return np.concatenate([scaled, vectors.there[:, None]], axis=1)


def fit(features: Floats, positive: Array, rows: Array, there: Array) -> Floats:
    """(N,) predicted positive rates; lambda by the error on a held-out fifth of the items."""
    shown = np.flatnonzero((rows > 0) & there)
    average = positive.sum() / max(1.0, rows.sum())
    if len(shown) < 2:
        return np.full(len(rows), average)
    draw = np.random.default_rng(0).permutation(len(shown))
    held, rest = shown[draw[: len(shown) // 5]], shown[draw[len(shown) // 5 :]]

    some = _Ridge(features[rest], positive[rest] / rows[rest] - average, rows[rest])

    def error(strength: float) -> float:
        missed = positive[held] / rows[held] - average - features[held] @ some.solve(strength)
        return float((rows[held] * missed**2).sum())

    best = min(STRENGTHS, key=error) if len(held) else STRENGTHS[-1]
    whole = _Ridge(features[shown], positive[shown] / rows[shown] - average, rows[shown])
    predicted: Floats = average + features @ whole.solve(best)
    return predicted


class _Ridge:
    """argmin over b of sum of w (y - x b)^2 + strength mean(w) |b|^2."""

    def __init__(self, x: Floats, y: Floats, weight: Floats) -> None:
        weighted = x.T * weight
        self.gram, self.right, self.scale = weighted @ x, weighted @ y, float(weight.mean())

    def solve(self, strength: float) -> Floats:
        ridge = strength * self.scale * np.eye(len(self.right))
        solved: Floats = np.linalg.solve(self.gram + ridge, self.right)
        return solved

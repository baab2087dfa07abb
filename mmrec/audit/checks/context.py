"""What the checks look at: the scanned splits, and the standard that findings are held to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrec.audit.checks.statistics import Floats, Standard
from mmrec.audit.scan.layout import Layout
from mmrec.audit.scan.scan import Split
from mmrec.audit.watch import Watch

Array = NDArray[Any]
Ints = NDArray[np.int64]
SMOOTHING = 10.0  # rows of the average item that an item's mean is mixed with


@dataclass
class Context:
    """Everything that was read of the click logs.

    Attributes:
        layout: where the files are.
        splits: name to scanned split; train is always there.
        watches: evaluation split to what of it was found in train.
        num_items: ids are below it.
        standard: when a difference is a finding.
        time: the column of times, or None.
        honest: the AUC of the better of item means and user means, out of fold, in train.
    """

    layout: Layout
    splits: dict[str, Split]
    watches: dict[str, Watch]
    num_items: int
    standard: Standard
    time: str | None
    honest: float = 0.5

    @property
    def train(self) -> Split:
        """The training split."""
        return self.splits["train"]

    @property
    def valid(self) -> Split | None:
        """The validation split, where it is there and has labels."""
        valid = self.splits.get("valid")
        return valid if valid is not None and valid.labelled else None


def labelled(split: Split) -> dict[str, Array]:
    """The sampled rows that have a label."""
    there = split.sample["label"] >= 0
    return {name: values[there] for name, values in split.sample.items()}


def item_means(train: Split, folds: tuple[int, ...] = (0, 1)) -> Floats:
    """(N,) positive rate of each item in these halves of train, smoothed towards the average."""
    negative, positive = train.targets[list(folds)].sum(axis=0)
    average = positive.sum() / max(1, positive.sum() + negative.sum())
    means: Floats = (positive + SMOOTHING * average) / (positive + negative + SMOOTHING)
    return means


def user_means(rows: dict[str, Array], fold: int) -> Floats:
    """(n,) positive rate of each row's user among the rows of `fold`, smoothed likewise."""
    _, place = np.unique(rows["user"], return_inverse=True)
    there = rows["fold"] == fold
    count = np.bincount(place, weights=there)
    positive = np.bincount(place, weights=there & (rows["label"] > 0))
    average = positive.sum() / max(1.0, count.sum())
    means: Floats = ((positive + SMOOTHING * average) / (count + SMOOTHING))[place]
    return means

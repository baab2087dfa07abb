"""What the training rows show: clicks and rows per item and user, and the trivial baselines.

N items, U users of train.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mmrec.data.schema import HISTORY, LABEL, TARGET, USER
from mmrec.io.parquet import (
    INTEGER,
    INTEGERS,
    NUMBER,
    Ints,
    open_parquet,
    read_columns,
    read_numbers,
)

Floats = NDArray[np.float64]
SHARED = 0.5  # ids of users say something where train knows that share of the rows
PRIOR_ROWS = 10.0  # an item or user starts with that many rows of the average rate


@dataclass(frozen=True)
class ClickCounts:
    """Counts over one labelled file.

    Attributes:
        item_rows, item_clicks: (N,) rows with that target, and how many of them were clicked.
        in_history: (N,) bool, whether the item stands in some history.
        users: (U,) user ids, ascending.
        user_rows, user_clicks: (U,) rows and clicks of those users.
    """

    item_rows: Ints
    item_clicks: Ints
    in_history: NDArray[np.bool_]
    users: Ints
    user_rows: Ints
    user_clicks: Ints

    @property
    def known_items(self) -> torch.Tensor:
        """(N,) bool: shown as a target or in a history."""
        return torch.from_numpy((self.item_rows > 0) | self.in_history)

    @property
    def rate(self) -> float:
        """Share of clicked rows."""
        return float(self.item_clicks.sum() / self.item_rows.sum())

    def item_logit(self, item: Ints) -> Floats:
        """Logit of the smoothed click rate of `item`: (c + 10 r) / (n + 10), r the overall rate."""
        return self._logit(self.item_clicks[item], self.item_rows[item])

    def user_item_logit(self, user: Ints, item: Ints) -> Floats:
        """Item logit + user logit - overall logit; an unknown user adds nothing."""
        place = np.clip(np.searchsorted(self.users, user), 0, len(self.users) - 1)
        known = self.users[place] == user
        clicks, rows = self.user_clicks[place] * known, self.user_rows[place] * known
        none = np.zeros_like(clicks)
        return self.item_logit(item) + self._logit(clicks, rows) - self._logit(none, none)

    def share_known(self, user: Ints) -> float:
        """Share of `user` entries that are users of train."""
        return float(np.isin(user, self.users).mean())

    def users_shared_with(self, pairs: Pairs) -> torch.Tensor | None:
        """Train's users where most of these rows are theirs, else None; says which on stdout."""
        share = self.share_known(pairs.user)
        shared = share >= SHARED
        print(
            f"train knows the users of {share:.0%} of valid's rows: users "
            f"{'have biases of their own' if shared else 'are told apart by their histories alone'}"
        )
        return torch.from_numpy(self.users) if shared else None

    def _logit(self, clicks: Ints, rows: Ints) -> Floats:
        rate = (clicks + PRIOR_ROWS * self.rate) / (rows + PRIOR_ROWS)
        rate = np.clip(rate, 1e-6, 1 - 1e-6)
        logit: Floats = np.log(rate / (1.0 - rate))
        return logit


def count_clicks(path: str | Path, num_items: int) -> ClickCounts:
    """One pass over a labelled file in bounded memory."""
    rows, clicks = np.zeros(num_items, np.int64), np.zeros(num_items, np.int64)
    in_history = np.zeros(num_items, np.bool_)
    users, labels = [], []
    kinds = {USER: INTEGER, HISTORY: INTEGERS, TARGET: INTEGER, LABEL: NUMBER}
    for columns in read_columns(open_parquet(path, kinds), kinds):
        target, label = columns[TARGET].numbers(), columns[LABEL].numbers() > 0
        rows += np.bincount(target, minlength=num_items)
        clicks += np.bincount(target[label], minlength=num_items)
        in_history[columns[HISTORY].lists()[0]] = True
        users.append(columns[USER].numbers())
        labels.append(label)
    in_history[0] = False
    known, place = np.unique(np.concatenate(users), return_inverse=True)
    user_clicks = np.bincount(place[np.concatenate(labels)], minlength=len(known))
    return ClickCounts(rows, clicks, in_history, known, np.bincount(place), user_clicks)


@dataclass(frozen=True)
class Pairs:
    """The scalar columns of a labelled file: user, item and label, (R,) each."""

    user: Ints
    item: Ints
    label: Ints


def read_pairs(path: str | Path) -> Pairs:
    """Users, targets and labels of a labelled file."""
    source = open_parquet(path, {USER: INTEGER, TARGET: INTEGER, LABEL: NUMBER})
    return Pairs(*(read_numbers(source, name).astype(np.int64) for name in (USER, TARGET, LABEL)))

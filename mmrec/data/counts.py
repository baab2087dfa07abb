"""What the training rows show: counts, vocabularies, moments, and the trivial baselines.

N items, U users of train, T tasks, R rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mmrec.data.checks import kinds_of
from mmrec.io.parquet import Array, Column, Ints, is_list, open_parquet, read_columns
from mmrec.schema import Categorical, Clicks

Floats = NDArray[np.float64]
SHARED = 0.5  # ids of users say something where train knows that share of the rows
PRIOR_ROWS = 10.0  # an item or user starts with that many rows of the average rate


@dataclass(frozen=True)
class Values:
    """The values of a categorical column, ascending, and in how many places each stands."""

    value: Ints
    count: Ints

    def known(self, min_count: int) -> Ints:
        """(K,) those that stand in at least `min_count` places."""
        return self.value[self.count >= min_count]


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of a numeric column's values that are there; 0 and 1 of none."""

    count: int = 0
    mean: float = 0.0
    square: float = 0.0  # sum of squared distances from the mean

    @property
    def std(self) -> float:
        """Over all values; 1 where they do not vary."""
        std = float(np.sqrt(self.square / self.count)) if self.count else 1.0
        return std if std > 1e-12 * max(1.0, abs(self.mean)) else 1.0

    def and_of(self, values: Array) -> Moments:
        """With more values, NaN left out."""
        some = values[~np.isnan(values)].astype(np.float64)
        if not some.size:
            return self
        mean, square = float(some.mean()), float(np.square(some - some.mean()).sum())
        count = self.count + some.size
        gap = mean - self.mean
        return Moments(
            count,
            self.mean + gap * some.size / count,
            self.square + square + gap**2 * self.count * some.size / count,
        )


@dataclass(frozen=True)
class ClickCounts:
    """Counts over one labelled file.

    Attributes:
        item_rows, item_clicks: (N, T) rows with that target and a label, and how many had 1.
        in_history: (N,) bool, whether the item stands in some history.
        shown: (N,) rows with that target.
        users: (U,) user ids, ascending; None where the schema has no user.
        user_rows, user_clicks: (U, T) rows and clicks of those users.
        values: categorical column -> its values.
        moments: numeric column -> its moments.
    """

    item_rows: Ints
    item_clicks: Ints
    in_history: NDArray[np.bool_]
    shown: Ints
    users: Ints | None
    user_rows: Ints
    user_clicks: Ints
    values: Mapping[str, Values]
    moments: Mapping[str, Moments]

    @property
    def known_items(self) -> torch.Tensor:
        """(N,) bool: shown as a target or in a history."""
        return torch.from_numpy((self.shown > 0) | self.in_history)

    @property
    def rate(self) -> Floats:
        """(T,) share of clicked rows."""
        rates: Floats = self.item_clicks.sum(0) / np.maximum(self.item_rows.sum(0), 1)
        return rates

    def item_logit(self, item: Ints) -> Floats:
        """(R, T) logit of the smoothed rate of `item`, (c + 10 r) / (n + 10), r that of all."""
        return self._logit(self.item_clicks[item], self.item_rows[item])

    def user_item_logit(self, user: Ints, item: Ints) -> Floats:
        """(R, T) item logit + user logit - overall logit; an unknown user adds nothing."""
        if self.users is None:
            return self.item_logit(item)
        place = np.clip(np.searchsorted(self.users, user), 0, len(self.users) - 1)
        known = (self.users[place] == user)[:, None]
        clicks, rows = self.user_clicks[place] * known, self.user_rows[place] * known
        none = np.zeros_like(clicks)
        return self.item_logit(item) + self._logit(clicks, rows) - self._logit(none, none)

    def share_known(self, user: Ints) -> float:
        """Share of `user` entries that are users of train."""
        return 0.0 if self.users is None else float(np.isin(user, self.users).mean())

    def users_shared_with(self, pairs: Pairs) -> torch.Tensor | None:
        """Train's users where most of these rows are theirs, else None; says which on stdout."""
        if self.users is None:
            return None
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


def count_clicks(path: str | Path, clicks: Clicks, num_items: int) -> ClickCounts:
    """One pass over a labelled file in bounded memory."""
    kinds = kinds_of(clicks, labelled=True)
    source = open_parquet(path, kinds)
    tasks = len(clicks.labels)
    rows, hits = np.zeros((num_items, tasks), np.int64), np.zeros((num_items, tasks), np.int64)
    shown, in_history = np.zeros(num_items, np.int64), np.zeros(num_items, np.bool_)
    of_users: list[tuple[Array, Array]] = []
    values = {c.name: _Tally() for c in _counted(clicks)}
    moments = dict.fromkeys((*clicks.numeric, *clicks.history_numeric), Moments())
    for columns in read_columns(source, kinds):
        target = columns[clicks.target].numbers()
        history, _ = columns[clicks.history].lists()
        labels = np.stack([columns[name].floats() for name in clicks.labels], axis=1)  # (R, T)
        shown += np.bincount(target, minlength=num_items)
        for task in range(tasks):
            there = ~np.isnan(labels[:, task])
            rows[:, task] += np.bincount(target[there], minlength=num_items)
            hits[:, task] += np.bincount(target[labels[:, task] > 0], minlength=num_items)
        in_history[history] = True
        if clicks.user is not None:
            of_users.append((columns[clicks.user].numbers().astype(np.int64), labels))
        real = history != 0
        for column in clicks.categorical:
            values[column.name].add(_flat(columns[column.name]))
        for column in clicks.history_categorical:
            values[column.name].add(columns[column.name].lists()[0][real])
        for name in clicks.numeric:
            moments[name] = moments[name].and_of(columns[name].floats())
        for name in clicks.history_numeric:
            moments[name] = moments[name].and_of(columns[name].lists(missing=True)[0][real])
    in_history[0] = False
    users, user_rows, user_clicks = _by_user(of_users, tasks)
    return ClickCounts(
        item_rows=rows,
        item_clicks=hits,
        in_history=in_history,
        shown=shown,
        users=users,
        user_rows=user_rows,
        user_clicks=user_clicks,
        values={name: tally.values() for name, tally in values.items()},
        moments=moments,
    )


def _counted(clicks: Clicks) -> Iterable[Categorical]:
    return (*clicks.categorical, *clicks.history_categorical)


def _flat(column: Column) -> Array:
    return column.lists()[0] if is_list(column.array.type) else column.numbers()


class _Tally:
    """Counts of values, merged as they come: memory grows with the values, not with the rows."""

    def __init__(self) -> None:
        self._parts: list[tuple[Ints, Ints]] = []
        self._held = 0

    def add(self, values: Array) -> None:
        value, count = np.unique(values.astype(np.int64), return_counts=True)
        self._parts.append((value, count))
        self._held += len(value)
        if self._held > 2 * len(self._parts[0][0]) + (1 << 16):
            self._parts = [self._merged()]
            self._held = len(self._parts[0][0])

    def _merged(self) -> tuple[Ints, Ints]:
        if not self._parts:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        value, place = np.unique(np.concatenate([v for v, _ in self._parts]), return_inverse=True)
        counts = np.concatenate([c for _, c in self._parts])
        return value, np.bincount(place, counts, len(value)).astype(np.int64)

    def values(self) -> Values:
        return Values(*self._merged())


def _by_user(parts: list[tuple[Array, Array]], tasks: int) -> tuple[Ints | None, Ints, Ints]:
    """Users, and their rows and clicks (U, T)."""
    if not parts:
        return None, np.zeros((0, tasks), np.int64), np.zeros((0, tasks), np.int64)
    users, place = np.unique(np.concatenate([user for user, _ in parts]), return_inverse=True)
    labels = np.concatenate([labels for _, labels in parts])

    def count(chosen: Array) -> Ints:
        columns = [np.bincount(place[chosen[:, t]], minlength=len(users)) for t in range(tasks)]
        return np.stack(columns, axis=1).astype(np.int64)

    return users, count(~np.isnan(labels)), count(labels > 0)


@dataclass(frozen=True)
class Pairs:
    """What intervals and baselines need of a labelled file.

    Attributes:
        user: (R,) users; the row's number where the schema has none.
        item: (R,) targets.
        labels: (R, T), NaN where a task has none.
        group: (R,) rows that are ranked against each other; None = the schema names none.
    """

    user: Ints
    item: Ints
    labels: Floats
    group: Ints | None = None


def read_pairs(path: str | Path, clicks: Clicks) -> Pairs:
    """Users, targets, labels and groups of a labelled file."""
    whole = [name for name in (clicks.user, clicks.group) if name is not None]
    names = list(dict.fromkeys([clicks.target, *clicks.labels, *whole]))
    kinds = kinds_of(clicks, labelled=True)
    source = open_parquet(path, {name: kinds[name] for name in names})
    items, labels = [], []
    more: dict[str, list[Ints]] = {name: [] for name in whole}
    for columns in read_columns(source, names):
        items.append(columns[clicks.target].numbers().astype(np.int64))
        for name, parts in more.items():
            parts.append(columns[name].numbers().astype(np.int64))
        labels.append(np.stack([columns[name].floats() for name in clicks.labels], axis=1))
    item = np.concatenate(items)
    found = {name: np.concatenate(parts) for name, parts in more.items()}
    user = np.arange(len(item)) if clicks.user is None else found[clicks.user]
    group = None if clicks.group is None else found[clicks.group]
    return Pairs(user, item, np.concatenate(labels).astype(np.float64), group)

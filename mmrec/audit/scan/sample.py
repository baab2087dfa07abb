"""Rows kept in memory: whole users, chosen by a hash, so that all splits keep the same ones.

Errors are computed over users, so a sample must hold a user with all its rows or not at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Hashes = NDArray[np.uint64]

ROWS = 500_000  # an AUC over so many rows has a standard error below 0.001
_FULL = float(2**64)


def mix(values: Array) -> Hashes:
    """64 well-mixed bits of each integer (the finaliser of SplitMix64, Steele et al. 2014)."""
    x = np.asarray(values).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


def chosen(values: Array, rate: float) -> NDArray[np.bool_]:
    """(n,) True for the same random share `rate` of values, whenever asked."""
    if rate >= 1:
        return np.ones(len(values), dtype=np.bool_)
    return np.asarray(mix(values) < np.uint64(int(rate * _FULL)))


def row_keys(history: Array, user: Array, target: Array) -> Hashes:
    """(B,) one hash of user, target and history; padding on the left changes nothing."""
    width = history.shape[1]
    multipliers = mix(np.arange(width)[::-1]) | np.uint64(1)  # by distance from the newest
    body = history.view(np.uint64) @ multipliers
    return mix(mix(body) ^ pair_keys(user, target))


def pair_keys(user: Array, item: Array) -> Hashes:
    """(B,) one hash of user and item."""
    return mix(mix(user) + np.asarray(item).astype(np.uint64))


class Table:
    """Columns that grow by runs of rows."""

    def __init__(self) -> None:
        self._runs: list[dict[str, Array]] = []

    def add(self, **columns: Array) -> None:
        """Append rows; every call names the same columns."""
        self._runs.append(columns)

    def columns(self) -> dict[str, Array]:
        """All rows, by column."""
        if not self._runs:
            return {}
        names = list(self._runs[0])
        whole = {name: np.concatenate([run[name] for run in self._runs]) for name in names}
        self._runs = [whole]
        return whole


def right_aligned(runs: list[Array]) -> NDArray[np.int32]:
    """Histories of runs of different widths as one left-padded matrix."""
    width = max((run.shape[1] for run in runs), default=1)
    whole = np.zeros((sum(len(run) for run in runs), width), dtype=np.int32)
    end = 0
    for run in runs:
        whole[end : end + len(run), width - run.shape[1] :] = run
        end += len(run)
    return whole

"""Numeric columns: how many values are missing, and the moments of the others."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from mmrec.audit.scan.rows import Array
from mmrec.data.counts import Moments


@dataclass(frozen=True)
class Numbers:
    """The values of a numeric column, or of its lists.

    Attributes:
        table: train, valid, test or item_info.
        values: all of them; `missing` the share that is null or NaN, `finite` how many are neither
            missing nor infinite.
        mean, std, smallest, largest: of the finite ones.
    """

    table: str
    column: str
    values: int = 0
    missing: float = 0.0
    finite: int = 0
    mean: float = 0.0
    std: float = 0.0
    smallest: float = math.nan
    largest: float = math.nan

    def and_of(self, values: Array) -> Numbers:
        """With more values (n,), NaN where missing."""
        some, total = values[np.isfinite(values)], self.values + len(values)
        absent = round(self.missing * self.values) + int(np.isnan(values).sum())
        moments = Moments(self.finite, self.mean, self.std**2 * self.finite).and_of(some)
        ends = np.concatenate([some, [self.smallest, self.largest]])
        return replace(
            self,
            values=total,
            missing=absent / max(1, total),
            finite=moments.count,
            mean=moments.mean,
            std=math.sqrt(moments.square / max(1, moments.count)),
            smallest=float(np.fmin.reduce(ends)),
            largest=float(np.fmax.reduce(ends)),
        )

"""The order of a stream, row by row, from its plan alone: what each global batch must hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmrec.stream.partition import Plan


def slice_rows(
    plan: Plan, sizes: Sequence[int], batch: int, rank: int = 0, world_size: int = 1
) -> list[int]:
    """Numbers of the rows that a rank yields of one global batch, in order."""
    first_row = [sum(sizes[:group]) for group in range(len(sizes))]
    start, stop = plan.part_of(batch, rank, world_size)
    rows = []
    for lane, tail, first, count in plan.lane_rows(batch, start, stop):
        for position in range(first, first + count):
            if tail:
                where = int(plan.tail_order(lane)[position])
            else:
                window = plan.window_of(lane, position)
                low, high = plan.window_bounds(lane, window)
                assert low <= position < high
                where = low + int(plan.window_order(lane, window)[position - low])
            ((group, first_in_group, last),) = plan.group_rows(lane, tail, where, 1)
            assert last == first_in_group + 1 <= sizes[group]
            rows.append(first_row[group] + first_in_group)
    return rows


def left_padded(values: Sequence[Any], width: int) -> list[Any]:
    """The last `width` values, zeros before them."""
    kept = list(values)[-width:]
    return [0] * (width - len(kept)) + kept


def rank_correlation(positions: Sequence[int]) -> float:
    """Spearman's correlation of a permutation of 0..n-1 with its index."""
    x = np.asarray(positions, dtype=np.float64)
    return float(np.corrcoef(x, np.arange(len(x)))[0, 1])

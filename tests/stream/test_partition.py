"""The order of the rows: every promise of `partition.py` over arbitrary shapes of data sets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.stream_order import rank_correlation, slice_rows

from mmrec.stream.partition import (
    Plan,
    Spec,
    choose_lanes,
    cut_lanes,
    lane_window,
    permutation,
    shares,
)

sizes_of_groups = st.one_of(
    st.lists(st.integers(0, 9), max_size=40),  # tiny row groups, empty ones too
    st.lists(st.just(1), min_size=1, max_size=90),
    st.lists(st.integers(11, 13), min_size=1, max_size=30),  # almost equal, as repack writes
    st.lists(st.sampled_from([1, 2, 200]), min_size=1, max_size=5),  # very uneven
)
specs = st.builds(
    Spec,
    batch_size=st.integers(1, 37),
    window=st.integers(1, 400),
    lanes=st.sampled_from([(1, 1), (4, 4), (2, 4), (4, 1), (3, 5)]),
    seed=st.integers(0, 2**64 - 1),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
)


def plan_of(sizes: list[int], spec: Spec, epoch: int = 0, *, forced: bool = False) -> Plan:
    array = np.array(sizes, dtype=np.int64)
    lanes = spec.lanes if forced else choose_lanes(array, spec)
    if forced:
        lanes = (lanes[0], min(lanes[1], spec.batch_size))
    return Plan(array, spec, epoch=epoch, lanes=lanes)


def epoch_rows(plan: Plan, sizes: list[int]) -> list[list[int]]:
    return [slice_rows(plan, sizes, batch) for batch in range(plan.num_batches)]


@settings(max_examples=150, deadline=None)
@given(sizes=sizes_of_groups, spec=specs, epoch=st.integers(0, 5), forced=st.booleans())
def test_every_row_once(sizes: list[int], spec: Spec, epoch: int, forced: bool) -> None:
    plan = plan_of(sizes, spec, epoch, forced=forced)
    batches = epoch_rows(plan, sizes)
    rows = [row for batch in batches for row in batch]
    assert len(rows) == len(set(rows)) == plan.num_rows
    assert set(rows) <= set(range(sum(sizes)))
    assert [len(batch) for batch in batches[:-1]] == [spec.batch_size] * (len(batches) - 1)
    dropped = sum(sizes) - len(rows)
    assert dropped == (sum(sizes) % spec.batch_size if spec.drop_last else 0)


@settings(max_examples=60, deadline=None)
@given(sizes=sizes_of_groups, spec=specs, world=st.integers(1, 6), forced=st.booleans())
def test_ranks_share_each_batch(sizes: list[int], spec: Spec, world: int, forced: bool) -> None:
    plan = plan_of(sizes, spec, forced=forced)
    for batch in range(plan.num_batches):
        parts = [slice_rows(plan, sizes, batch, rank, world) for rank in range(world)]
        assert [row for part in parts for row in part] == slice_rows(plan, sizes, batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@settings(max_examples=60, deadline=None)
@given(sizes=sizes_of_groups, spec=specs)
def test_without_shuffling_rows_come_in_file_order(sizes: list[int], spec: Spec) -> None:
    spec = replace(spec, shuffle=False, lanes=(1, 1), drop_last=False)
    rows = [row for batch in epoch_rows(plan_of(sizes, spec), sizes) for row in batch]
    assert rows == list(range(sum(sizes)))


@settings(max_examples=60, deadline=None)
@given(sizes=sizes_of_groups, spec=specs, forced=st.booleans())
def test_windows_and_tails_are_bounded(sizes: list[int], spec: Spec, forced: bool) -> None:
    plan = plan_of(sizes, spec, forced=forced)
    lanes = len(plan.main_rows)
    longest = max(plan.longest_window(lane) for lane in range(lanes))
    assert longest <= max(1, spec.window // (lanes + 2))
    snapped = max(np.diff(cut_lanes(np.array(sizes), spec, plan.lanes)), default=0)
    assert snapped >= 0
    bound = plan.times * (spec.batch_size + plan.places) + spec.window // 2
    assert sum(plan.tail_rows) <= bound


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("uneven", [0, 1])
def test_readers_share_no_lane(world: int, workers: int, uneven: int) -> None:
    """64 row groups, 4 x 4 lanes: up to 16 readers, and each row group is in one lane alone."""
    spec = Spec(64, 4096, (4, 4), seed=3, shuffle=True, drop_last=False)
    sizes = [512 + uneven * (group % 2) for group in range(64)]
    assert choose_lanes(np.array(sizes), spec) == (4, 4)
    plan = plan_of(sizes, spec, epoch=1)
    groups: list[set[int]] = []
    for rank in range(world):
        for worker in range(workers):
            mine: set[int] = set()
            for batch in range(worker, plan.first_tail_batch, workers):
                for rows in plan.lane_rows(batch, *plan.part_of(batch, rank, world)):
                    mine |= {group for group, _, _ in plan.group_rows(*rows)}
            groups.append(mine)
    assert sum(map(len, groups)) == len(set.union(*groups)) == 64


def test_few_row_groups_mean_few_lanes() -> None:
    spec = Spec(64, 4096, (4, 4), seed=0, shuffle=True, drop_last=False)
    assert choose_lanes(np.array([100_000]), spec) == (1, 1)
    assert choose_lanes(np.array([50_000, 50_000]), spec) == (1, 2)
    assert choose_lanes(np.full(16, 6_000), spec) == (4, 4)
    assert choose_lanes(np.array([90_000] + [100] * 60), spec) == (1, 1)
    assert choose_lanes(np.array([], dtype=np.int64), spec) == (4, 4)


def test_another_seed_or_epoch_is_another_order() -> None:
    sizes = [50] * 20
    spec = Spec(32, 400, (4, 4), seed=1, shuffle=True, drop_last=False)
    orders = [
        epoch_rows(plan_of(sizes, replace(spec, seed=seed), epoch), sizes)
        for seed in (1, 2)
        for epoch in (0, 1)
    ]
    assert len({str(order) for order in orders}) == 4
    assert epoch_rows(plan_of(sizes, spec, 1), sizes) == orders[1]


def test_shuffled_rows_are_far_from_home() -> None:
    """Row groups as a whole are few, so one epoch's correlation scatters ; the mean is 0."""
    sizes = [10] * 64
    spec = Spec(64, 2048, (4, 4), seed=1, shuffle=True, drop_last=False)
    orders = [epoch_rows(plan_of(sizes, spec, epoch), sizes) for epoch in range(30)]
    found = [rank_correlation([row for batch in order for row in batch]) for order in orders]
    assert max(map(abs, found)) < 0.5
    assert abs(float(np.mean(found))) < 0.1


@settings(max_examples=50, deadline=None)
@given(n=st.integers(0, 300), key=st.lists(st.integers(-5, 2**64), max_size=3))
def test_permutation(n: int, key: list[int]) -> None:
    assert sorted(permutation(n, *key).tolist()) == list(range(n))


def test_permutation_is_even() -> None:
    """Each value in each place about equally often: chi-squared over 2,000 keys."""
    counts = np.zeros((7, 7))
    for key in range(2000):
        counts[np.arange(7), permutation(7, key)] += 1
    expected = 2000 / 7
    chi = ((counts - expected) ** 2 / expected).sum()
    assert chi < 70  # 36 degrees of freedom: the 99.9th percentile is 68


def test_permutation_never_changes() -> None:
    """A stored position is worth nothing once this changes."""
    assert permutation(11, 42, 3).tolist() == [2, 9, 8, 1, 6, 10, 5, 7, 4, 0, 3]


def test_the_order_never_changes() -> None:
    """Lanes, windows and tails of an epoch, as they were when the format of states was made."""
    sizes = [5, 3, 0, 7, 4, 6]
    spec = Spec(4, 30, (2, 2), seed=11, shuffle=True, drop_last=False)
    assert epoch_rows(plan_of(sizes, spec, 2, forced=True), sizes) == [
        [22, 21, 16, 17],
        [1, 0, 12, 14],
        [19, 20, 18, 8],
        [2, 3, 13, 6],
        [24, 23, 9, 10],
        [4, 15, 5, 7],
        [11],
    ]


def test_shares_and_window() -> None:
    assert shares(10, 4) == [0, 2, 5, 7, 10]
    spec = Spec(64, 1800, (4, 4), seed=0, shuffle=True, drop_last=False)
    assert lane_window(spec, (4, 4)) == 100

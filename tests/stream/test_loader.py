"""make_loader: what workers write into shared memory arrives whole, in order, and in time."""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrec.errors import InputError
from mmrec.stream.loader import _read_ahead, make_loader
from mmrec.stream.ring import BatchTensors, Ring, Writer, Written
from mmrec.stream.stream import ParquetStream

ROWS = 500


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    number = np.arange(ROWS)
    table = pa.table(
        {
            "n": number.astype(np.int32),
            "odd": number % 2 == 1,
            "half": number / 2,
            "list": pa.array(
                [[int(n), int(n) + 1, -int(n)] for n in number], pa.list_(pa.int32(), 3)
            ),
            "one": pa.array([[int(n)] for n in number], pa.list_(pa.int64(), 1)),
        }
    )
    path = tmp_path_factory.mktemp("loader") / "a.parquet"
    pq.write_table(table, path, row_group_size=20)
    return path


def check(batch: dict[str, torch.Tensor]) -> list[int]:
    n = batch["row"]
    assert batch["n"].tolist() == n.tolist()
    assert batch["odd"].dtype == torch.bool
    assert batch["odd"].tolist() == (n % 2 == 1).tolist()
    assert batch["half"].dtype == torch.float32
    assert batch["half"].tolist() == (n / 2).tolist()
    assert torch.equal(batch["list"], torch.stack([n, n + 1, -n], dim=1))
    assert torch.equal(batch["one"], n[:, None])
    return n.tolist()


def make(path: Path, **options: Any) -> ParquetStream[Any]:
    return ParquetStream(path, **{"batch_size": 7, "shuffle": True, **options})


@pytest.mark.parametrize("prefetch", [1, 3, 14])
@pytest.mark.parametrize("persistent", [False, True])
def test_batches_stay_what_they_were(path: Path, prefetch: int, persistent: bool) -> None:
    """A consumer that is slow, keeps every batch and writes into it sees no later batch in it."""
    stream = make(path)
    loader = make_loader(make(path), num_workers=2, prefetch=prefetch, persistent=persistent)
    for _ in range(2):  # two epochs
        alone = [check(batch) for batch in stream]
        kept = []
        for number, batch in enumerate(loader):
            if number % 25 == 0:
                time.sleep(0.05)  # workers run as far ahead as they may
            kept.append(batch)
        assert [check(batch) for batch in kept] == alone
        for batch in kept:
            batch["list"].zero_()


def test_an_iteration_that_was_given_up(path: Path) -> None:
    alone = [check(batch) for batch in make(path)]
    for persistent in (False, True):
        loader = make_loader(make(path), num_workers=2, prefetch=4, persistent=persistent)
        given_up = iter(loader)
        assert check(next(given_up)) == alone[0]
        loader.set_epoch(0)
        again = [check(batch) for batch in loader]
        assert again == alone
    del given_up


def test_an_iteration_that_was_given_up_says_so(path: Path) -> None:
    """Its slots belong to the next iteration, so it must not hand them out."""
    loader = make_loader(make(path), num_workers=2, persistent=True)
    given_up = iter(loader)
    next(given_up)
    assert len(list(loader)) == 72
    with pytest.raises(InputError, match="one iteration at a time"):
        next(given_up)


@pytest.mark.parametrize("prefetch", [1, 16])
def test_whole_batches_come_before_an_error(tmp_path: Path, prefetch: int) -> None:
    """As many as without workers, though several come in one message."""
    flags = [None if row == 200 else row for row in range(300)]
    pq.write_table(pa.table({"n": flags}), tmp_path / "a.parquet", row_group_size=20)

    def before_the_error(workers: int) -> list[list[int]]:
        stream = ParquetStream(
            tmp_path, batch_size=3, window=60, lanes=(2, 1), shuffle=True, threads=0
        )
        loader = make_loader(stream, num_workers=workers, prefetch=prefetch)
        batches: list[list[int]] = []
        sentence = r"^every value must be there, got null in [^\n]*, row 200$"
        with pytest.raises(InputError, match=sentence):  # from a worker process, too
            batches.extend(batch["row"].tolist() for batch in loader)
        return batches

    alone = before_the_error(0)
    assert len(alone) > 16
    assert before_the_error(1) == alone


def test_reading_ahead_is_bounded_in_bytes() -> None:
    assert _read_ahead(1000) == 16
    assert _read_ahead(2 << 20) == 8
    assert _read_ahead(1 << 30) == 2


def make_ring(workers: int = 1) -> Ring:
    blocks = ((torch.int64, ("row", "n"), None), (torch.int64, ("list",), 3))
    return Ring(BatchTensors(blocks), rows=5, workers=workers, live=3, spare=2)


def test_a_slot_is_held_until_the_last_tensor_is_gone() -> None:
    ring = make_ring()
    batch = ring.hand_out(Written(0, 1, 5), pin=False)
    assert ring.held(0) == [1]
    assert batch["n"].data_ptr() == ring.tensors(Written(0, 1, 5))["n"].data_ptr()
    part = batch["list"][2:, 1].numpy()
    del batch
    assert ring.held(0) == [1]
    del part
    assert ring.held(0) == []


def test_who_keeps_many_batches_gets_copies() -> None:
    ring = make_ring(workers=2)
    kept = [ring.hand_out(Written(0, slot, 5), pin=False) for slot in range(3)]
    assert ring.held(0) == [0, 1]
    assert kept[2]["n"].data_ptr() != ring.tensors(Written(0, 2, 5))["n"].data_ptr()
    other = ring.hand_out(Written(1, 0, 5), pin=False)  # another worker's slots are others
    assert ring.held(1) == [0]
    del other, kept
    assert ring.held(0) == ring.held(1) == []


def test_a_fork_does_not_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its copy of the batch may go while this process still holds it."""
    ring = make_ring()
    batch = ring.hand_out(Written(0, 3, 5), pin=False)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    del batch
    assert ring.held(0) == [3]


def test_a_slot_that_was_skipped_does_not_shorten_the_round() -> None:
    """Slots are used in turn; the turn passes a held one and must stop short of the newest."""
    ring = make_ring()
    writer = Writer(ring, 0)
    first, second, third = (writer.next(5) for _ in range(3))
    kept = [ring.hand_out(first, pin=False), ring.hand_out(second, pin=False)]
    not_handed_out = [writer.next(5), writer.next(5)]
    ring.hand_out(third, pin=False)  # a copy, for two are kept
    not_handed_out.append(writer.next(5))
    assert not_handed_out[-1].slot == third.slot
    kept.clear()
    kept.append(ring.hand_out(not_handed_out.pop(0), pin=False))
    assert writer.next(5).slot not in {written.slot for written in not_handed_out}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=60))
def test_no_batch_is_written_over(moves: list[tuple[int, int]]) -> None:
    """A worker that is at most `live` ahead; a consumer that keeps and drops as it likes."""
    ring = make_ring()
    writer = Writer(ring, 0)
    sent: deque[tuple[Written, int]] = deque()
    kept: list[tuple[dict[str, torch.Tensor], int]] = []
    for number, (move, which) in enumerate(moves):
        if move == 0 and len(sent) < ring.live:
            written = writer.next(5)
            for tensor in ring.tensors(written).values():
                tensor.fill_(number)
            sent.append((written, number))
        elif move == 1 and sent:
            written, content = sent.popleft()
            kept.append((ring.hand_out(written, pin=False), content))
        elif move == 2 and kept:
            kept.pop(which % len(kept))
        for batch, content in kept:
            assert all(bool((tensor == content).all()) for tensor in batch.values())
        for written, content in sent:
            assert bool((ring.tensors(written)["list"] == content).all())


def test_position_and_length(path: Path) -> None:
    for workers in (0, 2):
        loader = make_loader(make(path), num_workers=workers)
        assert len(loader) == 72
        assert loader.state_dict()["batch"] == 0
        loader.set_epoch(3)
        for number, _ in enumerate(loader, start=1):
            state = loader.state_dict()
            assert (state["epoch"], state["batch"]) == (3, number)
        assert loader.epoch == 3
        assert loader.fingerprint() == state["fingerprint"]
        loader.seek(epoch=1, batch=70)
        assert loader.state_dict()["batch"] == 70
        assert len(list(loader)) == 2


def test_ranks_stay_in_step_when_the_last_batch_is_short(path: Path) -> None:
    """500 = 71 x 7 + 3: in the last batch one of four ranks has no row."""
    lengths = []
    for rank in range(4):
        stream = make(path, rank=rank, world_size=4)
        lengths.append([len(check(batch)) for batch in make_loader(stream, num_workers=2)])
    assert {len(each) for each in lengths} == {72}
    assert [each[-1] for each in lengths] == [0, 1, 1, 1]


def test_collate_is_called(path: Path) -> None:
    for workers in (0, 1):
        stream = make(path, collate=lambda columns: int(columns["n"].sum()))
        assert sum(make_loader(stream, num_workers=workers)) == ROWS * (ROWS - 1) // 2


def test_pin_memory_without_a_gpu_changes_nothing(path: Path) -> None:
    for workers in (0, 1):
        batch = next(iter(make_loader(make(path), num_workers=workers, pin_memory=True)))
        check(batch)
        assert batch["list"].is_pinned() == torch.cuda.is_available()


@pytest.mark.parametrize("options", [{"num_workers": -1}, {"num_workers": 1, "prefetch": 0}])
def test_wrong_use(path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="at least"):
        make_loader(make(path), **options)


@settings(max_examples=40, deadline=None)
@given(
    scalars=st.lists(st.sampled_from([torch.int64, torch.float32, torch.bool]), max_size=5),
    widths=st.lists(st.integers(1, 9), max_size=3),
    rows=st.integers(0, 13),
)
def test_tensors_of_a_slot_do_not_overlap(
    scalars: list[torch.dtype], widths: list[int], rows: int
) -> None:
    by_type: dict[torch.dtype, list[str]] = {torch.int64: ["row"]}
    for index, dtype in enumerate(scalars):
        by_type.setdefault(dtype, []).append(f"s{index}")
    tensors_of = BatchTensors(
        (
            *((dtype, tuple(names), None) for dtype, names in by_type.items()),
            *((torch.int64, (f"l{index}",), width) for index, width in enumerate(widths)),
        )
    )
    ring = Ring(tensors_of, rows=13, workers=2, live=1, spare=2)
    everything = {}
    for worker in range(2):
        for slot in range(3):
            written = Written(worker, slot, rows)
            tensors = ring.tensors(written)
            expected = tensors_of.empty(rows)
            assert {n: (t.shape, t.dtype) for n, t in tensors.items()} == {
                n: (t.shape, t.dtype) for n, t in expected.items()
            }
            for name, tensor in tensors.items():
                values = torch.randint(0, 2, tensor.shape).to(tensor.dtype)
                tensor.copy_(values)
                everything[written, name] = values
    for (written, name), values in everything.items():
        assert torch.equal(ring.hand_out(written, pin=False)[name], values)

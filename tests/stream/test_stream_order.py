"""The order of batches and where it resumes: whatever the ranks, workers, processes and stops."""

from __future__ import annotations

import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.stream_order import slice_rows
from slow_variants import thorough, thoroughly
from torch.utils.data import DataLoader, IterableDataset

import mmrec.stream.stream
from mmrec.errors import InputError
from mmrec.stream.loader import make_loader
from mmrec.stream.stream import ParquetStream

# Three workers on a machine of two cores are wanted here.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


def write_files(folder: Path, files: list[list[int]]) -> int:
    """Files with row groups of these sizes, whose one column is the row's number; how many rows."""
    schema = pa.schema([("n", pa.int32())])
    row = 0
    for index, groups in enumerate(files):
        with pq.ParquetWriter(folder / f"{index:03d}.parquet", schema) as writer:
            for size in groups:
                numbers = np.arange(row, row + size, dtype=np.int32)
                if size:
                    writer.write_table(pa.table({"n": numbers}), row_group_size=size)
                row += size
    return row


def stream_of(folder: Path, **options: Any) -> ParquetStream[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that row groups are big
        return ParquetStream(folder, **{"batch_size": 8, "window": 60, "shuffle": True, **options})


def batches_of(stream: Any) -> list[list[int]]:
    batches = []
    for batch in stream:
        assert batch["n"].tolist() == batch["row"].tolist()
        batches.append(batch["row"].tolist())
    return batches


def side_by_side(ranks: list[list[list[int]]]) -> list[list[int]]:
    """The global batches of which each rank has a slice; the ranks must have equally many."""
    return [[row for part in parts for row in part] for parts in zip(*ranks, strict=True)]


def as_workers(stream: ParquetStream[Any], workers: int, patch: pytest.MonkeyPatch) -> Any:
    """What a DataLoader with that many workers yields, without its processes: in turn."""

    def worker(index: int) -> Iterator[Any]:
        info = SimpleNamespace(id=index, num_workers=workers)
        patch.setattr(mmrec.stream.stream, "get_worker_info", lambda: info)
        return iter(stream)

    running = [worker(index) for index in range(workers)]
    while running:
        for one in list(running):
            try:
                yield next(one)
            except StopIteration:
                running.remove(one)


shapes = st.lists(
    st.one_of(
        st.lists(st.integers(0, 20), max_size=9),
        st.lists(st.just(1), max_size=30),
        st.lists(st.sampled_from([1, 90]), max_size=4),
    ),
    min_size=1,
    max_size=4,
)


ORDERS = given(
    files=shapes,
    batch_size=st.integers(4, 23),
    window=st.integers(1, 200),
    epoch=st.integers(0, 3),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    start=st.floats(0, 1),
)


@settings(max_examples=25, deadline=None)
@ORDERS
def test_global_batches_depend_on_seed_and_epoch_alone(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[list[int]],
    batch_size: int,
    window: int,
    epoch: int,
    shuffle: bool,
    drop_last: bool,
    start: float,
) -> None:
    folder = tmp_path_factory.mktemp("order")
    rows = write_files(folder, files)
    options = {
        "batch_size": batch_size,
        "window": window,
        "shuffle": shuffle,
        "drop_last": drop_last,
    }
    alone = stream_of(folder, **options)
    alone.set_epoch(epoch)
    whole = batches_of(alone)
    sizes = [size for groups in files for size in groups if size]
    plan = alone._plan(epoch)
    assert whole == [slice_rows(plan, sizes, batch) for batch in range(len(alone))]
    everything = sorted(row for batch in whole for row in batch)
    if drop_last:
        assert len(set(everything)) == len(everything) == rows // batch_size * batch_size
    else:
        assert everything == list(range(rows))
    first = int(start * len(alone))
    with pytest.MonkeyPatch.context() as patch:
        for world in (1, 2, 4):
            for workers in (0, 1, 3):
                ranks = []
                for rank in range(world):
                    stream = stream_of(folder, rank=rank, world_size=world, **options)
                    stream.seek(epoch=epoch, batch=first)
                    assert len(stream) == len(whole)
                    source = as_workers(stream, workers, patch) if workers else stream
                    ranks.append(batches_of(source))
                    patch.undo()
                together = side_by_side(ranks)
                assert together == whole[first:]


test_global_batches_depend_on_seed_and_epoch_alone_thoroughly = thoroughly(
    test_global_batches_depend_on_seed_and_epoch_alone, ORDERS, 300
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    assert write_files(folder, [[20] * 7, [13, 1, 30], [], [25] * 4]) == 284
    return folder


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_real_workers(folder: Path, world: int, workers: int) -> None:
    whole = batches_of(stream_of(folder))
    ranks = [
        batches_of(make_loader(stream_of(folder, rank=r, world_size=world), num_workers=workers))
        for r in range(world)
    ]
    assert side_by_side(ranks) == whole


@pytest.mark.parametrize("workers", [0, 2])
def test_a_plain_data_loader(folder: Path, workers: int) -> None:
    stream = stream_of(folder)
    loader = DataLoader(stream, batch_size=None, num_workers=workers)
    assert len(loader) == len(stream) == 36
    assert batches_of(loader) == batches_of(stream_of(folder))


@pytest.mark.parametrize("persistent", [False, True])
def test_epochs_with_workers(folder: Path, persistent: bool) -> None:
    expected = []
    for epoch in range(3):
        stream = stream_of(folder)
        stream.set_epoch(epoch)
        expected.append(batches_of(stream))
    assert expected[0] != expected[1] != expected[2]
    loader = make_loader(stream_of(folder), num_workers=2, persistent=persistent)
    loader.seek(epoch=0, batch=5)
    found = []
    for epoch in range(3):
        loader.set_epoch(epoch)  # keeps the position in epoch 0
        found.append(batches_of(loader))
    assert found == [expected[0][5:], *expected[1:]]
    loader.seek(epoch=1, batch=30)
    assert batches_of(loader) == expected[1][30:]
    assert batches_of(loader) == expected[2]  # the next iteration is the next epoch, whole
    loader.set_epoch(2)
    assert batches_of(loader) == expected[2]  # unless told otherwise


@pytest.mark.parametrize("every", [9, thorough(1)])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("through_loader", [False, True])
def test_resume_after_any_batch(
    folder: Path, shuffle: bool, through_loader: bool, every: int
) -> None:
    def make() -> Any:
        stream = stream_of(folder, shuffle=shuffle)
        return make_loader(stream) if through_loader else stream

    whole = {}
    for epoch in (0, 2):
        one = make()
        one.set_epoch(epoch)
        whole[epoch] = batches_of(one)
        for stop in range(0, len(one) + 1, every):
            running = make()
            running.set_epoch(epoch)
            batches = iter(running)
            for _ in range(stop):
                next(batches)
            state = json.loads(json.dumps(running.state_dict()))
            assert (state["epoch"], state["batch"]) == (epoch, stop)
            assert (
                state == running.stream.state_after(epoch=epoch, batch=stop)
                if through_loader
                else True
            )
            again = make()
            again.load_state_dict(state)
            assert again.state_dict() == state
            again.set_epoch(epoch)
            assert batches_of(again) == whole[epoch][stop:]
            again.set_epoch(epoch)
            assert batches_of(again) == whole[epoch]


@pytest.mark.parametrize("stop", [0, 1, 17, 35, 36])
def test_resume_with_workers_elsewhere(folder: Path, stop: int) -> None:
    """Saved by one rank with 2 workers, restored on two ranks with 3."""
    whole = batches_of(stream_of(folder))
    loader = make_loader(stream_of(folder), num_workers=2)
    batches = iter(loader)
    for batch in range(stop):
        assert next(batches)["row"].tolist() == whole[batch]
    state = loader.state_dict()  # workers have read ahead; that does not count
    del batches
    ranks = []
    for rank in range(2):
        again = make_loader(stream_of(folder, rank=rank, world_size=2), num_workers=3)
        again.load_state_dict(state)
        ranks.append(batches_of(again))
    assert side_by_side(ranks) == whole[stop:]


def test_a_state_of_another_order_is_refused(folder: Path, tmp_path: Path) -> None:
    state = stream_of(folder).state_dict()
    for options in ({"seed": 1}, {"batch_size": 9}, {"shuffle": False}, {"window": 61}):
        with pytest.raises(InputError, match=next(iter(options))):
            stream_of(folder, **options).load_state_dict(state)
    write_files(tmp_path, [[20] * 7, [13, 1, 30], [], [25, 25, 25, 26]])
    with pytest.raises(InputError, match="files was"):
        stream_of(tmp_path).load_state_dict(state)
    for epoch, batch in ((-1, 0), (0, -1), (0, 37)):
        with pytest.raises(InputError, match="position must lie in"):
            stream_of(folder).seek(epoch=epoch, batch=batch)
    with pytest.raises(InputError, match="at least 0, got -2"):
        stream_of(folder).set_epoch(-2)


def test_a_pickled_stream_is_the_same_stream(folder: Path) -> None:
    stream = stream_of(folder)
    stream.seek(epoch=1, batch=4)
    again = pickle.loads(pickle.dumps(stream))
    assert again.fingerprint() == stream.fingerprint()
    assert batches_of(again) == batches_of(stream)


def test_two_iterations_at_once(folder: Path) -> None:
    """They are of two epochs, and neither disturbs the other."""
    stream = stream_of(folder)
    first, second = batches_of(stream), batches_of(stream)
    stream.set_epoch(0)
    both = [(a["row"].tolist(), b["row"].tolist()) for a, b in zip(stream, stream, strict=True)]
    assert both == list(zip(first, second, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_every_iteration_is_the_next_epoch(folder: Path, workers: int) -> None:
    loader = make_loader(stream_of(folder), num_workers=workers)
    found = [batches_of(loader) for _ in range(3)]
    assert found[0] != found[1] != found[2]
    for epoch in (2, 0, 1):
        loader.set_epoch(epoch)
        assert batches_of(loader) == found[epoch]


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("plain", [False, True])
def test_an_iteration_keeps_the_position_that_it_began_with(
    folder: Path, plain: bool, persistent: bool
) -> None:
    """Whatever is set for the next one before the workers have looked."""
    whole = batches_of(stream_of(folder))
    for _ in range(4):
        stream = stream_of(folder)
        if plain:
            how = {"num_workers": 2, "persistent_workers": persistent}
            loader: Any = DataLoader(stream, batch_size=None, **how)
        else:
            loader = make_loader(stream, num_workers=2, persistent=persistent)
        stream.seek(epoch=0, batch=30)
        batches = iter(loader)
        stream.seek(epoch=1, batch=0)
        assert [batch["row"].tolist() for batch in batches] == whole[30:]


def test_one_of_several_workers_has_no_state(folder: Path) -> None:
    """torchdata's stateful loader asks there; a worker knows its own batches alone."""
    loader = DataLoader(Asking(stream_of(folder)), batch_size=None, num_workers=2)
    with pytest.raises(InputError, match="one of 2 workers knows only its own"):
        next(iter(loader))
    assert next(iter(DataLoader(Asking(stream_of(folder)), batch_size=None, num_workers=1)))


class Asking(IterableDataset[dict[str, Any]]):
    def __init__(self, stream: ParquetStream[Any]) -> None:
        self.stream = stream

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for _ in self.stream:
            yield self.stream.state_dict()


def test_inference_mode_leaves_no_trace(folder: Path) -> None:
    """What is made or iterated inside serves outside, and the other way round."""
    whole = batches_of(stream_of(folder))
    with torch.inference_mode():
        stream = stream_of(folder)
        loader = make_loader(stream_of(folder), num_workers=1, persistent=True)
        assert batches_of(loader) == whole
        kept = list(loader)
    del kept
    loader.set_epoch(0)
    assert batches_of(loader) == whole
    stream.set_epoch(1)
    stream.seek(epoch=0, batch=0)
    assert batches_of(stream) == whole


def test_the_callers_generators_are_left_alone(folder: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    for workers in (0, 2):
        batches_of(make_loader(stream_of(folder), num_workers=workers))
    assert torch.equal(torch.rand(2), expected)


def test_an_abandoned_iteration_leaves_no_thread(folder: Path) -> None:
    import threading

    before = threading.active_count()
    batches = iter(stream_of(folder))
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


KILLED = """
import json, sys, time
from pathlib import Path
from mmrec.stream.loader import make_loader
from mmrec.stream.stream import ParquetStream
from mmrec.io.files import write_json

folder, out, workers = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
stream = ParquetStream(folder, batch_size=8, window=60, shuffle=True)
loader = make_loader(stream, num_workers=workers)
state = out / "state.json"
every = 3
if state.exists():
    loader.load_state_dict(json.loads(state.read_text()))
log = open(out / "rows.log", "a")
for epoch in range(loader.epoch, int(sys.argv[4])):
    loader.set_epoch(epoch)
    for batch in loader:
        done = loader.state_dict()
        print(json.dumps([epoch, done["batch"] - 1, batch["row"].tolist()]), file=log, flush=True)
        if done["batch"] % every == 0:
            write_json(state, done)
        time.sleep(0.002)
(out / "finished").touch()
"""


@pytest.mark.parametrize(("workers", "kills"), [(2, 1), thorough(0, 25), thorough(2, 25)])
def test_kill_at_random_moments(folder: Path, tmp_path: Path, workers: int, kills: int) -> None:
    """After any kill -9 the last saved state resumes with no row lost or doubled after it."""
    epochs = 2 + kills // 2
    expected = []
    for epoch in range(epochs):
        stream = stream_of(folder)
        stream.set_epoch(epoch)
        expected += [[epoch, n, rows] for n, rows in enumerate(batches_of(stream))]
    moments = random.Random(workers)
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    command = [sys.executable, str(script), str(folder), str(tmp_path), str(workers)]
    command.append(str(epochs))
    environment = {**os.environ, "PYTHONPATH": str(Path(mmrec.stream.stream.__file__).parents[2])}
    log, state = tmp_path / "rows.log", tmp_path / "state.json"
    killed = 0
    found: dict[tuple[int, int], list[int]] = {}
    while not (tmp_path / "finished").exists():
        log.unlink(missing_ok=True)
        saved = json.loads(state.read_text()) if state.exists() else {"epoch": 0, "batch": 0}
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
        while killed < kills and process.poll() is None and not (log.exists() and log.read_text()):
            time.sleep(0.001)  # until it has got through at least one batch
        if killed < kills:
            time.sleep(moments.random() * 0.9 / kills)
            process.send_signal(signal.SIGKILL)
            killed += 1
        _, complaints = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), complaints.decode()
        lines = log.read_text().split("\n")[:-1]  # the last one may be cut off
        entries = [json.loads(line) for line in lines]
        if saved["batch"] < 36:
            assert entries[0][:2] == [saved["epoch"], saved["batch"]]  # exactly where it was saved
        for epoch, batch, rows in entries:
            assert found.setdefault((epoch, batch), rows) == rows
    assert killed == kills
    assert [[*at, rows] for at, rows in sorted(found.items())] == expected


def test_order_needs_no_generator_state(folder: Path) -> None:
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    first = batches_of(stream_of(folder))
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    assert batches_of(stream_of(folder)) == first

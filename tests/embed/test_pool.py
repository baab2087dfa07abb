"""Worker processes: order, crashes, memory, and nothing left running."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
import weakref
from pathlib import Path

import psutil
import pytest
import torch
from odd_pictures import encoded, photo
from PIL import Image
from toy_encoder import ToyEncoder, write_items

import mmrec.embed.pool as pool_module
from mmrec.embed import Preprocessing, embed_items
from mmrec.embed.pool import TASK_PICTURES, DecodePool, Reading, Task
from mmrec.embed.preprocess import ReadOptions
from mmrec.io.pictures import CRASHED, Picture, StorageError

READING = Reading({"image": ReadOptions(Preprocessing(size=(8, 8)))}, {})


def _tasks(count: int) -> list[Task]:
    names = [str(i) for i in range(count)]
    return [Task(modality="image", sources=names[i : i + 5]) for i in range(0, count, 5)]


def _stand_in(culprits: set[str]):  # type: ignore[no-untyped-def]
    def read(source: str, options: ReadOptions) -> Picture[torch.Tensor]:
        if source in culprits:
            os.kill(os.getpid(), signal.SIGKILL)
        value = int(source)
        time.sleep(0.002 * (value % 3))
        return Picture("ok", source, pixels=torch.full((3, 8, 8), value % 256).to(torch.uint8))

    return read


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_order_with_their_pixels(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "read_picture", _stand_in(set()))
    with DecodePool(READING, workers=workers) as pool:
        seen = []
        for _, done in pool.run(iter(_tasks(203))):
            for picture in done.pictures:
                assert picture.pixels is not None
                assert (picture.pixels == int(picture.note) % 256).all()
                seen.append(int(picture.note))
    assert seen == list(range(203))


@pytest.mark.parametrize("culprits", [{"0"}, {"17", "18"}, {"3", "99", "202"}])
def test_a_picture_that_kills_its_decoder_costs_itself_alone(
    culprits: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "read_picture", _stand_in(culprits))
    statuses = []
    with DecodePool(READING, workers=2) as pool:
        for _, done in pool.run(iter(_tasks(203))):
            for picture in done.pictures:
                statuses.append(picture.status)
                if picture.pixels is not None:
                    assert (picture.pixels == int(picture.note) % 256).all()
    expected = [CRASHED if str(i) in culprits else "ok" for i in range(203)]
    assert statuses == expected


def test_an_error_in_a_worker_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: str, options: ReadOptions) -> Picture[torch.Tensor]:
        raise StorageError("the mount is gone")

    monkeypatch.setattr(pool_module, "read_picture", fail)
    with (
        DecodePool(READING, workers=2) as pool,
        pytest.raises(StorageError, match="mount is gone"),
    ):
        list(pool.run(_tasks(20)))


def _hold(ready: object) -> None:
    pool = DecodePool(READING, workers=2)
    assert pool._executor is not None
    ready.send(list(pool._executor._processes))  # type: ignore[attr-defined]
    time.sleep(60)


def test_workers_do_not_outlive_a_killed_parent() -> None:
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    parent = context.Process(target=_hold, args=(there,))
    parent.start()
    workers = here.recv()
    assert len(workers) == 2
    parent.kill()
    parent.join()
    deadline = time.monotonic() + 10
    while any(_runs(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_runs(worker) for worker in workers)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _measure(answer: object, arguments: dict[str, object]) -> None:
    torch.set_num_threads(1)
    embed_items(ToyEncoder().towers, **arguments)  # type: ignore[arg-type]
    answer.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)  # type: ignore[attr-defined]


def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path: Path) -> None:
    """1,000 pictures more are 1.5 GB of pixels more; nothing near that may be held, nor be lost
    in holes of the heap."""
    images = tmp_path / "images"
    images.mkdir()
    data = encoded(Image.new("RGB", (700, 700), "teal"))
    context = multiprocessing.get_context("fork")
    peaks = []
    for count in (60, 1060):
        for i in range(1, count + 1):
            # Bytes after the end of a JPEG are ignored, and make it another picture to the run.
            (images / f"{i}.jpg").write_bytes(data + str(i).encode())
        items = write_items(tmp_path / f"{count}.parquet", range(1, count + 1))
        here, there = context.Pipe()
        arguments = {
            "items": items, "images": images, "out": tmp_path / f"out{count}", "workers": 2,
            "resize": "device", "batch_size": 16, "contact_sheet": 0,
        }  # fmt: skip
        process = context.Process(target=_measure, args=(there, arguments))
        process.start()
        peaks.append(here.recv())
        process.join(60)
    assert peaks[1] - peaks[0] < 200e6


def test_pixels_in_memory_are_a_task_and_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without workers too: counted, picture by picture, as they come and go."""
    alive, peak = 0, 0
    read = pool_module.read_picture

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def counting(source: str, options: ReadOptions) -> Picture[torch.Tensor]:
        nonlocal alive, peak
        picture = read(source, options)
        weakref.finalize(picture.pixels, gone)
        alive += 1
        peak = max(peak, alive)
        return picture

    monkeypatch.setattr(pool_module, "read_picture", counting)
    for i in range(1, 201):
        (tmp_path / f"{i}.jpg").write_bytes(encoded(photo(20, 20)) + str(i).encode())
    items = write_items(tmp_path / "items.parquet", range(1, 201))
    embed_items(ToyEncoder().towers, items=items, images=tmp_path, out=tmp_path / "out", workers=0)
    assert TASK_PICTURES <= peak <= 2 * TASK_PICTURES

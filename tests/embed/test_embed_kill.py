"""`kill -9` at any moment: the same call again ends like one that was never disturbed.

Two moments for each way of running in every run, thirty in the slow one.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from slow_variants import thorough
from toy_encoder import ToyEncoder, read_output, shard_bytes

from mmrec.embed import embed_items
from mmrec.embed.shard import Shard

ITEMS, SHARD = 96, 12


class SlowEncoder(ToyEncoder):
    """Takes its time, so that there are moments in the middle to be killed at."""

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        time.sleep(0.01)
        return super().encode_image(pixels)


def _run(rank: int, world: int, barrier: object, log: Path, arguments: dict[str, object]) -> None:
    """One rank; each shard whose forward pass is done leaves a line in `log`."""
    torch.set_num_threads(1)
    finish = Shard.finish

    def noting(self: Shard) -> Callable[[], None]:
        with open(log, "a") as handle:
            handle.write(f"{self.path.name}\n")
        return finish(self)

    Shard.finish = noting  # type: ignore[method-assign]
    embed_items(
        SlowEncoder().towers, rank=rank, world_size=world, batch_size=8,
        barrier=lambda: barrier.wait(60) and None,  # type: ignore[attr-defined]
        **arguments,  # type: ignore[arg-type]
    )  # fmt: skip


def _start(world: int, log: Path, arguments: dict[str, object]):  # type: ignore[no-untyped-def]
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(world)
    ranks = [
        context.Process(target=_run, args=(rank, world, barrier, log, arguments))
        for rank in range(world)
    ]
    for rank in ranks:
        rank.start()
    return ranks


@pytest.mark.parametrize("kills", [2, thorough(30)])
@pytest.mark.parametrize(("world", "workers"), [(1, 0), (1, 2), (2, 1)])
def test_a_killed_run_ends_like_an_undisturbed_one(
    world: int, workers: int, kills: int, shop: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    items, images = shop(ITEMS)
    base = {"items": items, "images": images, "shard_size": SHARD, "contact_sheet": 0}
    arguments = {**base, "workers": workers, "out": tmp_path / "whole"}
    for rank in _start(world, tmp_path / "log", arguments):
        rank.join(120)
        assert rank.exitcode == 0
    expected = shard_bytes(tmp_path / "whole")
    draw, in_the_middle = random.Random(world * 10 + workers), 0
    for number in range(kills):
        out, log = tmp_path / f"killed{number}", tmp_path / f"log{number}"
        log.touch()
        arguments = {**base, "workers": workers, "out": out}
        ranks = _start(world, log, arguments)
        # A random number of shards, then a random moment: no stopwatch, so load does not matter.
        target, deadline = draw.randrange(len(expected)), time.monotonic() + 100
        while len(list(out.glob("*.parquet"))) < target and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(draw.uniform(0.0, 0.15))
        for rank in ranks:
            rank.kill()
        for rank in ranks:
            rank.join(60)
        kept = shard_bytes(out) if out.exists() else {}
        in_the_middle += 0 < len(kept) < len(expected)
        assert all(expected[name] == data for name, data in kept.items())
        for rank in _start(world, log, arguments):
            rank.join(120)
            assert rank.exitcode == 0
        assert shard_bytes(out) == expected
        assert read_output(out)["item_id"] == list(range(1, ITEMS + 1))
        assert not [name for name in os.listdir(out) if name.endswith(".tmp")]
        twice = [name for name, n in Counter(log.read_text().split()).items() if n > 1]
        assert len(twice) <= world, "at most one shard a rank is done twice"
    if kills >= 30:
        assert in_the_middle >= kills // 3

"""Ranks and what they tell each other; with one process everything here is a no-op.

Started by `torchrun`, each rank reads its slice of every global batch (the loader's rank and
world_size); nothing here starts processes.
"""

import importlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from inspect import signature
from io import StringIO
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mmrec.devices import resolve_device
from mmrec.errors import FailedElsewhere, require

T = TypeVar("T")
# Seconds before the other ranks follow one that fails: torchrun ends all of them as soon as any
# has left, and the one that knows why must have said it by then.
_LAST_WORDS = 3.0
_ALONE: ContextVar[bool] = ContextVar("alone", default=False)


@dataclass(frozen=True)
class World:
    """Who this process is.

    Attributes:
        rank: 0 … size - 1, over all machines.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """True in the one process that writes files and talks."""
        return self.rank == 0


def current_world() -> World:
    """This process's place; `World()` inside `alone` and where no process group was started."""
    if _ALONE.get() or not (dist.is_available() and dist.is_initialized()):
        return World()
    return World(dist.get_rank(), dist.get_world_size())


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this process is a world of its own and waits for no other."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


@contextmanager
def process_group(device: str = "auto", *, timeout: timedelta | None = None) -> Iterator[World]:
    """Join the group that `torchrun` described in the environment, leave it at the end.

    NCCL where each local rank has a GPU, else gloo. Without torchrun: one process, no group.

    Args:
        timeout: how long a rank may wait for the others; None is torch's own, 10 minutes with NCCL
            and 30 with gloo. Make it long where one rank works while the others wait: torchrun
            ends all of them as soon as one dies.

    Raises:
        InputError: more local ranks than GPUs, or no such device.
        FailedElsewhere: inside, this rank failed after another one had, which says why.
    """
    resolve_device(device)
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or "RANK" not in os.environ:
        yield World()
        return
    cuda = device != "cpu" and torch.cuda.is_available()
    if cuda:
        local = int(os.environ.get("LOCAL_RANK", 0))
        require(
            local < torch.cuda.device_count(),
            f"each local rank needs a GPU, got {torch.cuda.device_count()} GPUs "
            f"for local rank {local}; lower torchrun --nproc-per-node or use the CPU",
        )
        torch.cuda.set_device(local)
    # Its functions take the group as a default. Imported later, by DistributedDataParallel, they
    # would hold this one to the end of the process, whose threads can abort while Python leaves.
    importlib.import_module("torch.distributed.nn")
    dist.init_process_group("nccl" if cuda else "gloo", timeout=timeout)
    try:
        yield current_world()
    except Exception as error:
        if _first_to_fail():
            raise
        time.sleep(_LAST_WORDS)
        raise FailedElsewhere("another rank failed first") from error
    finally:
        dist.destroy_process_group()


def _first_to_fail() -> bool:
    """Whether no rank has failed before; asked while this one's connections still stand.

    The store needs no answer of the other ranks. Where it is gone, so is the rank that held it.
    """
    try:
        failed: int = dist.distributed_c10d._get_default_store().add("mmrec/failed", 1)
    except RuntimeError:
        return False
    return failed == 1


@contextmanager
def first_talks(world: World) -> Iterator[None]:
    """Inside, only the first rank prints on stdout."""
    with nullcontext() if world.is_first else redirect_stdout(StringIO()):
        yield


def from_first(make: Callable[[], T]) -> T:
    """What `make` gives in the first rank, on every rank; it must be a plain value.

    The others wait, as long as the `timeout` of `process_group` lets them.
    """
    world = current_world()
    if world.size == 1:
        return make()
    values: list[Any] = [make() if world.is_first else None]
    dist.broadcast_object_list(values, src=0)
    return cast(T, values[0])


def sum_over_ranks(tensor: Tensor) -> None:
    """Sum in place over all ranks."""
    if current_world().size > 1:
        dist.all_reduce(tensor)


def any_rank(*flags: bool) -> list[bool]:
    """Each flag: is it up on any rank? Waits for all of them."""
    return [any(ranks) for ranks in zip(*gather_objects(flags), strict=True)]


def gather_objects(value: T) -> list[T]:
    """The value of every rank, by rank. Only between our own processes."""
    values = [value] * current_world().size
    if len(values) > 1:
        dist.all_gather_object(values, value)
    return values


def barrier() -> None:
    """Wait for every rank."""
    if current_world().size > 1:
        dist.barrier()


def parallel(model: nn.Module, device: torch.device) -> nn.Module:
    """`model` under DistributedDataParallel where there are several ranks, else itself.

    Buffers are not broadcast each step: the item table is one, and it is the same everywhere.
    """
    if current_world().size == 1:
        return model
    wrapper = nn.parallel.DistributedDataParallel
    newer = "forward_sync_buffers" in signature(wrapper.__init__).parameters
    options: dict[str, Any] = {
        "forward_sync_buffers" if newer else "broadcast_buffers": False,
        "device_ids": [device.index] if device.type == "cuda" else None,
        "gradient_as_bucket_view": True,
    }
    return wrapper(model, **options)

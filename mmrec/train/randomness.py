"""The caller's random generators, as if nothing here had drawn or seeded them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def generators_kept(device: torch.device) -> Iterator[None]:
    """What is seeded or drawn inside of the CPU's and the device's generator is undone after."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield

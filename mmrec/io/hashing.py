"""Numbers and files as bits that look random and are the same on every machine."""

import hashlib
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Bits = TypeVar("Bits", int, NDArray[np.uint64])

GOLDEN = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio: its multiples are spread evenly
FULL = (1 << 64) - 1

_READ_BYTES = 1 << 20


def mix64(value: Bits) -> Bits:
    """64 well-mixed bits of 0..2^64 - 1: one step of splitmix64 (Steele et al. 2014).

    Takes one integer, or an array of uint64.

    >>> mix64(1), mix64(np.array([1, 2], dtype=np.uint64))
    (10451216379200822465, array([10451216379200822465, 10905525725756348110], dtype=uint64))
    """
    z: Any = (value + GOLDEN) & FULL
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & FULL
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & FULL
    mixed: Bits = z ^ (z >> 31)
    return mixed


def sha256_of(location: str, filesystem: Any = None) -> str:
    """SHA-256 of a file's bytes, hexadecimal; `filesystem` is fsspec's, None for local files."""
    digest = hashlib.sha256()
    with (open if filesystem is None else filesystem.open)(location, "rb") as handle:
        while part := handle.read(_READ_BYTES):
            digest.update(part)
    return digest.hexdigest()

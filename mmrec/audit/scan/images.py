"""Pictures of items: which are missing, which do not decode, which are the same file."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from mmrec.audit.scan.rows import chosen

DECODED = 2_000  # pictures: a share of 1 in 100 is then known to within 0.5 %
HASHED = 20_000


@dataclass(frozen=True)
class Images:
    """What the image directory holds.

    Attributes:
        items: items that should have a picture; `missing` those without a file.
        checked: pictures decoded, a random sample; `broken` those that failed, `why` by error,
            `examples` names of a few of their files. Without Pillow none is decoded.
        hashed: files compared; `repeated` those with the bytes of another item's.
    """

    items: int
    missing: int
    checked: int
    broken: int
    why: dict[str, int]
    examples: list[str]
    hashed: int
    repeated: int


def read_images(directory: Path, num_items: int, *, most: int = DECODED) -> Images:
    """List all files, decode up to `most` of them, compare about `HASHED` byte for byte."""
    sizes = _sizes(directory, num_items)
    drawn = np.random.default_rng(0).permutation(sorted(sizes))[:most].tolist()
    paths = [directory / f"{item}.jpg" for item in drawn]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        errors = dict(zip(paths, pool.map(_error, paths), strict=True)) if find_spec("PIL") else {}
    broken = {path.name: error for path, error in errors.items() if error}
    hashed, repeated = _compare(directory, sizes)
    return Images(
        items=num_items - 1,
        missing=num_items - 1 - len(sizes),
        checked=len(errors),
        broken=len(broken),
        why=dict(Counter(broken.values()).most_common()),
        examples=[*broken][:3],
        hashed=hashed,
        repeated=repeated,
    )


def _sizes(directory: Path, num_items: int) -> dict[int, int]:
    """Item to the bytes of its picture."""
    sizes: dict[int, int] = {}
    with os.scandir(directory) as entries:
        for entry in entries:
            stem, _, suffix = entry.name.rpartition(".")
            if suffix.lower() == "jpg" and stem.isdigit() and 0 < int(stem) < num_items:
                sizes[int(stem)] = entry.stat().st_size
    return sizes


def _compare(directory: Path, sizes: dict[int, int]) -> tuple[int, int]:
    """Files compared, and those with the bytes of another.

    Equal files have equal sizes: sizes are sampled, so that both of a pair are in or out.
    """
    kept = chosen(np.array([*sizes.values()]), HASHED / max(1, len(sizes)))
    some = {item: size for (item, size), keep in zip(sizes.items(), kept, strict=True) if keep}
    times = Counter(some.values())
    alike = [item for item, size in some.items() if times[size] > 1]
    digests = Counter(_digest(directory / f"{item}.jpg") for item in alike)
    return len(some), sum(count for count in digests.values() if count > 1)


def _digest(path: Path) -> bytes:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).digest()


def _error(path: Path) -> str | None:
    """The error that a picture does not decode for, or None."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.draft("RGB", (64, 64))  # all bytes are still read, but fewer pixels made
            image.convert("RGB").load()
    except Exception as error:  # decoders raise what they like; the audit counts it
        return type(error).__name__
    return None

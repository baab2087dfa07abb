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
from typing import TYPE_CHECKING

import numpy as np

from mmrec.audit.scan.rows import chosen
from mmrec.io.pictures import OK, find_pictures, read_bytes, read_picture

if TYPE_CHECKING:
    from PIL import Image

DECODED = 2_000  # pictures: a share of 1 in 100 is then known to within 0.5 %
HASHED = 20_000


@dataclass(frozen=True)
class Images:
    """What the image directory holds.

    Attributes:
        items: items that should have a picture; `missing` those without a file.
        checked: pictures decoded, a random sample; `broken` those that failed, `why` by status,
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
    found = find_pictures(directory)
    files = {item: path for item, path in found.items() if 0 < item < num_items}
    drawn = np.random.default_rng(0).permutation(sorted(files))[:most].tolist()
    paths = [files[item] for item in drawn] if find_spec("PIL") else []
    # Around all threads, each of which puts back the filters that it found.
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        warnings.simplefilter("ignore")
        statuses = [p.status for p in pool.map(lambda path: read_picture(path, _decode), paths)]
    broken = {
        os.path.basename(path): status
        for path, status in zip(paths, statuses, strict=True)
        if status != OK
    }
    hashed, repeated = _compare(files)
    return Images(
        items=num_items - 1,
        missing=num_items - 1 - len(files),
        checked=len(paths),
        broken=len(broken),
        why=dict(Counter(broken.values()).most_common()),
        examples=[*broken][:3],
        hashed=hashed,
        repeated=repeated,
    )


def _compare(files: dict[int, str]) -> tuple[int, int]:
    """Files compared, and those with the bytes of another.

    Equal files have equal sizes: sizes are sampled, so that both of a pair are in or out.
    """
    sizes = {path: _size(path) for path in files.values()}
    kept = chosen(np.array([*sizes.values()]), HASHED / max(1, len(sizes)))
    some = {path: size for (path, size), keep in zip(sizes.items(), kept, strict=True) if keep}
    times = Counter(some.values())
    alike = [path for path, size in some.items() if times[size] > 1]
    digests = Counter(filter(None, map(_digest, alike)))
    return len(some), sum(count for count in digests.values() if count > 1)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # a link to nowhere
        return 0


def _digest(path: str) -> bytes:
    content = read_bytes(path)
    return hashlib.blake2b(content, digest_size=16).digest() if isinstance(content, bytes) else b""


def _decode(image: Image.Image, _: bytes) -> None:
    image.draft("RGB", (64, 64))  # all bytes are still read, but fewer pixels made
    image.convert("RGB").load()

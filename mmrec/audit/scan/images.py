"""Pictures of items: which are missing, which do not decode, which are the same file."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mmrec.audit.scan.sample import chosen

DECODED = 2_000  # pictures: a share of 1 in 100 is then known to within 0.5 %
HASHED = 20_000


@dataclass
class Images:
    """What the image directory holds.

    Attributes:
        items: items that should have a picture; `missing` those without a file.
        checked: pictures decoded, a random sample; `broken` those that failed, `why` by error.
        hashed: files compared; `repeated` those with the bytes of another item's.
        examples: names of a few broken files.
    """

    items: int
    missing: int
    checked: int = 0
    broken: int = 0
    hashed: int = 0
    repeated: int = 0
    why: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)


def check_images(directory: Path, num_items: int, *, most: int = DECODED) -> Images:
    """List all files, decode up to `most` of them, compare up to `HASHED` byte for byte."""
    sizes: dict[int, int] = {}
    with os.scandir(directory) as entries:
        for entry in entries:
            stem, dot, suffix = entry.name.rpartition(".")
            if dot and suffix.lower() == "jpg" and stem.isdigit() and 0 < int(stem) < num_items:
                sizes[int(stem)] = entry.stat().st_size
    images = Images(items=num_items - 1, missing=num_items - 1 - len(sizes))
    if not sizes:
        return images
    _compare(images, directory, sizes)
    ids = np.array(sorted(sizes))
    drawn = np.random.default_rng(0).permutation(ids)[:most]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for item, why in zip(
            drawn, pool.map(lambda i: _broken(directory / f"{i}.jpg"), drawn), strict=True
        ):
            if why == "no Pillow":
                return images
            images.checked += 1
            if why:
                images.broken += 1
                images.why[why] += 1
                if len(images.examples) < 3:
                    images.examples.append(f"{item}.jpg")
    return images


def _compare(images: Images, directory: Path, sizes: dict[int, int]) -> None:
    """Equal files have equal sizes: sample sizes, so that both of a pair are in or out."""
    ids = np.array(list(sizes))
    size = np.array(list(sizes.values()))
    kept = ids[chosen(size, HASHED / len(ids))]
    images.hashed = len(kept)
    times = Counter(sizes[item] for item in kept.tolist())
    digests: Counter[bytes] = Counter()
    for item in kept.tolist():
        if times[sizes[item]] > 1:
            content = (directory / f"{item}.jpg").read_bytes()
            digests[hashlib.blake2b(content, digest_size=16).digest()] += 1
    images.repeated = sum(count for count in digests.values() if count > 1)


def _broken(path: Path) -> str | None:
    """Why a picture does not decode, or None."""
    try:
        from PIL import Image
    except ImportError:
        return "no Pillow"
    try:
        with Image.open(path) as image:
            image.draft("RGB", (64, 64))  # all bytes are still read, but fewer pixels made
            image.convert("RGB").load()
    except Exception as error:  # decoders raise what they like; the audit counts it
        return type(error).__name__
    return None

"""Covers and titles that show what kind an item is, for synthetic data.

A cover's kind is its colour family; a title's kind is the field its words come from. A cover also
carries a small sign of some field, so that an encoder can be trained on pairs of picture and
description (`describe`); on the items themselves that sign is drawn at random and says nothing.
"""

from __future__ import annotations

import colorsys
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from mmrec.io.parquet import write_parquet
from mmrec.io.pictures import picture_name

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

COLOURS = ("red", "yellow", "green", "blue", "purple")
_HUES = (0.0, 0.15, 0.36, 0.58, 0.80)
FIELDS: tuple[tuple[str, ...], ...] = (
    ("soup", "noodle", "recipe", "baking", "street", "spicy", "dinner", "bread", "chef", "taste"),
    ("goal", "match", "running", "gym", "league", "coach", "stadium", "score", "race", "training"),
    ("guitar", "song", "concert", "piano", "cover", "melody", "drum", "band", "singer", "dance"),
    ("island", "train", "mountain", "hotel", "beach", "map", "flight", "village", "hike", "camp"),
    ("level", "boss", "console", "quest", "pixel", "speedrun", "player", "arcade", "build", "duel"),
)
_FILLERS = ("my", "the", "best", "new", "first", "how", "to", "with", "a", "this", "day", "in")
_SIZES = ((64, 48), (96, 96), (80, 120), (128, 72), (160, 120))


def draw_title(field: int, rng: np.random.Generator) -> str:
    """A title of three to five words of the field, one or two as hashtags, and some fillers."""
    words = rng.choice(FIELDS[field], size=int(rng.integers(3, 6)), replace=False).tolist()
    hashtags = [f"#{word}" for word in words[: int(rng.integers(1, 3))]]
    body = words[len(hashtags) :] + rng.choice(_FILLERS, size=int(rng.integers(1, 4))).tolist()
    return " ".join([str(word) for word in rng.permutation(body)] + hashtags)


def describe(colour: int, field: int, rng: np.random.Generator) -> str:
    """What a person would write under the cover: its colour and words of the field of its sign."""
    return f"{COLOURS[colour]} {draw_title(field, rng)}"


def draw_cover(colour: int, sign: int, rng: np.random.Generator) -> bytes:
    """A JPEG file of varying size: of a colour family, shade and shapes at random, one sign."""
    from PIL import Image, ImageDraw

    width, height = _SIZES[int(rng.integers(len(_SIZES)))]
    picture = Image.new("RGB", (width, height), _shade(colour, rng))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(2, 6))):
        x, y = rng.integers(0, width), rng.integers(0, height)
        radius = int(rng.integers(4, max(6, min(width, height) // 4)))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_shade(colour, rng))
    _draw_sign(draw, sign, width / 2, height / 2, min(width, height) * 0.3)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=85)
    return buffer.getvalue()


def _shade(colour: int, rng: np.random.Generator) -> tuple[int, ...]:
    hue = (_HUES[colour] + rng.normal(0.0, 0.02)) % 1.0
    rgb = colorsys.hsv_to_rgb(hue, rng.uniform(0.55, 1.0), rng.uniform(0.45, 1.0))
    return tuple(int(255 * channel) for channel in rgb)


def _draw_sign(draw: ImageDraw, sign: int, x: float, y: float, r: float) -> None:
    """One white shape a field: disc, square, triangle, bar, cross."""
    white = (255, 255, 255)
    if sign == 0:
        draw.ellipse((x - r, y - r, x + r, y + r), fill=white)
    elif sign == 1:
        draw.rectangle((x - r, y - r, x + r, y + r), fill=white)
    elif sign == 2:
        draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=white)
    elif sign == 3:
        draw.rectangle((x - r, y - r / 4, x + r, y + r / 4), fill=white)
    else:
        draw.rectangle((x - r, y - r / 5, x + r, y + r / 5), fill=white)
        draw.rectangle((x - r / 5, y - r, x + r / 5, y + r), fill=white)


def write_captioned_covers(root: str | Path, *, count: int = 2_000, seed: int = 0) -> Path:
    """Pairs of cover and description to train a small encoder on: none of them is an item.

    Writes `item_feature.parquet` (item_id, item_title) and `item_images/<item_id>.jpg`.
    """
    root = Path(root)
    images = root / "item_images"
    images.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, 1])
    titles = []
    for item in range(1, count + 1):
        colour, sign = (int(kind) for kind in rng.integers(0, len(COLOURS), 2))
        titles.append(describe(colour, sign, rng))
        (images / picture_name(item)).write_bytes(draw_cover(colour, sign, rng))
    feature = {"item_id": np.arange(1, count + 1), "item_title": pa.array(titles)}
    feature["item_tags"] = pa.array([[]] * count, pa.list_(pa.int64()))
    write_parquet(root / "item_feature.parquet", pa.table(feature))
    return root

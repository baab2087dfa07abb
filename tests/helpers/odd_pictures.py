"""One of every oddity that image folders hold, with the status that each must get."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Something like a photograph: smooth colours, an edge, a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [
        np.sin(x / width * rng.uniform(2, 9) + y / height * rng.uniform(2, 9) + rng.uniform(0, 6))
        for _ in range(3)
    ]
    pixels = 127 + 90 * np.stack(waves, axis=-1)
    pixels[height // 3 :, width // 2 :] *= rng.uniform(0.3, 0.9)
    pixels += rng.normal(0, 4, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8), "RGB")


def encoded(image: Image.Image, format: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


@dataclass(frozen=True)
class Odd:
    """One oddity: what lies on disk, the status it must get, a word of its note."""

    name: str
    make: Callable[[Path], None]
    status: str
    note: str = ""


def _file(data: Callable[[], bytes]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data()) and None


def _bomb() -> bytes:
    """A valid PNG of 14,000 x 14,000 black pixels in some 25 kB."""
    return encoded(Image.new("1", (14_000, 14_000)), "PNG")


def _many_pixels() -> bytes:
    return encoded(Image.new("1", (8000, 8000)), "PNG")


def _sixteen_bit() -> bytes:
    ramp = np.linspace(0, 65535, 60 * 80).reshape(60, 80).astype(np.uint16)
    return encoded(Image.fromarray(ramp), "PNG")


def _animated() -> bytes:
    frames = [photo(60, 50, seed=i) for i in range(3)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def _exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(photo(90, 60), exif=exif)


def _corrupted() -> bytes:
    data = bytearray(encoded(photo(90, 60), "PNG"))
    middle = len(data) // 2
    data[middle:-60] = b"\xff" * (len(data) - 60 - middle)
    return bytes(data)


def _alpha() -> bytes:
    image = photo(70, 50).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize((70, 50)))
    return encoded(image, "PNG")


ODDITIES = [
    Odd("plain", _file(lambda: encoded(photo(90, 60))), "ok"),
    Odd("truncated jpeg", _file(lambda: encoded(photo(90, 60))[:900]), "truncated"),
    Odd("cut in the header", _file(lambda: encoded(photo(90, 60))[:30]), "truncated"),
    Odd("truncated png", _file(lambda: encoded(photo(90, 60), "PNG")[:5000]), "truncated"),
    Odd("png", _file(lambda: encoded(photo(90, 60), "PNG")), "ok", "PNG"),
    Odd("webp", _file(lambda: encoded(photo(90, 60), "WEBP")), "ok", "WEBP"),
    Odd("gif", _file(_animated), "ok", "first frame"),
    Odd("bmp", _file(lambda: encoded(photo(90, 60), "BMP")), "ok", "BMP"),
    Odd("cmyk", _file(lambda: encoded(photo(90, 60).convert("CMYK"))), "ok", "CMYK"),
    Odd("grey", _file(lambda: encoded(photo(90, 60).convert("L"))), "ok", "greyscale"),
    Odd("sixteen bit", _file(_sixteen_bit), "ok", "I;16"),
    Odd("palette", _file(lambda: encoded(photo(90, 60).convert("P"), "PNG")), "ok", "mode P"),
    Odd("bilevel", _file(lambda: encoded(photo(90, 60).convert("1"), "PNG")), "ok", "mode 1"),
    Odd("alpha", _file(_alpha), "ok", "RGBA"),
    Odd("exif", _file(_exif), "ok", "EXIF"),
    Odd("progressive", _file(lambda: encoded(photo(90, 60), progressive=True)), "ok"),
    Odd("one pixel", _file(lambda: encoded(photo(1, 1))), "ok"),
    Odd("strip", _file(lambda: encoded(photo(2, 4000), "PNG")), "ok", "PNG"),
    Odd("large", _file(lambda: encoded(photo(1600, 1200))), "ok"),
    Odd("zero bytes", _file(lambda: b"") , "empty"),
    Odd("text", _file(lambda: b"<html>404 Not Found</html>"), "not an image"),
    Odd("damaged", _file(_corrupted), "damaged"),
    Odd("bomb", _file(_bomb), "too large", "bomb"),
    Odd("many pixels", _file(_many_pixels), "too large", "8000 x 8000"),
    Odd("directory", lambda path: path.mkdir(), "not a file", "directory"),
    Odd("pipe", lambda path: os.mkfifo(path), "not a file"),
    Odd("broken link", lambda path: path.symlink_to("nowhere.jpg"), "broken link"),
    Odd("circle", lambda path: path.symlink_to(path.name), "broken link"),
    Odd("absent", lambda path: None, "missing"),
]  # fmt: skip

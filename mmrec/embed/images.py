"""One picture from disk to pixels, whatever image folders hold. Runs in worker processes.

Nothing here raises for a bad picture: it comes back with a status. What does raise is storage
that went away (`StorageError`), because a run must not record a lost mount as missing pictures.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmrec.embed.encoder import Preprocessing
from mmrec.embed.preprocess import STRIP, Geometry, fit, fit_pillow
from mmrec.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

OK = "ok"
NO_IMAGE_SOURCE = "no images given"
MISSING = "missing"
BROKEN_LINK = "broken link"
NO_PERMISSION = "no permission"
NOT_A_FILE = "not a file"
EMPTY = "empty"
NOT_AN_IMAGE = "not an image"
TRUNCATED = "truncated"
DAMAGED = "damaged"
TOO_LARGE = "too large"
CRASHED = "crashed the decoder"

STATUSES = (
    OK, NO_IMAGE_SOURCE, MISSING, BROKEN_LINK, NO_PERMISSION, NOT_A_FILE, EMPTY, NOT_AN_IMAGE,
    TRUNCATED, DAMAGED, TOO_LARGE, CRASHED,
)  # fmt: skip

# What a network file system or a dying disk says; retried, then the run stops.
_STORAGE = {
    errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ECONNRESET,
    errno.ECONNABORTED, errno.ECONNREFUSED, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN,
    errno.EHOSTUNREACH, errno.ENODEV, getattr(errno, "EREMOTEIO", errno.EIO),
}  # fmt: skip
_WAITS_S = (0.1, 0.5, 2.0)
_ORIENTATION = 0x0112
# How many times the encoder's size a JPEG must keep when libjpeg scales it. On film posters the
# least cosine of pixels with open_clip's was 0.9998 at 3 and 0.9985 at 2; on pure noise 0.997 at
# 3, which is why scaling is not the default.
_SPARE = 3
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*")


class StorageError(InputError):
    """The storage that holds the pictures failed; the run stops, finished shards stay."""


@dataclass(frozen=True)
class ReadOptions:
    """What decides how a picture is read, beside the encoder's preprocessing.

    Attributes:
        preprocessing: the encoder's.
        fit_here: resize on this core; else pictures up to `device_pixels` travel as they are.
        device_pixels: larger pictures are resized here in any case, to bound what is in flight.
        max_pixels: pictures with more are "too large" (a decompression bomb), before decoding.
        max_bytes: files with more are "too large", before reading.
        exif: turn pictures as their EXIF tag says. open_clip's own transform does not, so False
            agrees with it.
        draft: let libjpeg scale large JPEGs down while decoding, never below three times the
            size that the encoder sees; faster from some 12 megapixels on.
        torchvision: decode ordinary JPEGs with torchvision rather than Pillow.
    """

    preprocessing: Preprocessing
    fit_here: bool = True
    device_pixels: int = 500_000
    max_pixels: int = 50_000_000
    max_bytes: int = 64_000_000
    exif: bool = False
    draft: bool = False
    torchvision: bool = True


@dataclass(frozen=True)
class Picture:
    """What became of one picture: pixels (3, h, w) uint8 when `status` is "ok", else None.

    `note` says in words what was odd about it; `digest` is a hash of its bytes; `shape` stands
    in for the pixels while those travel through shared memory.
    """

    status: str
    note: str = ""
    digest: bytes = b""
    pixels: Tensor | None = None
    shape: tuple[int, ...] | None = None


def read_picture(source: str | bytes | None, options: ReadOptions) -> Picture:
    """Read and decode one picture: a path, its bytes, or None where there is none.

    Raises:
        StorageError: the storage failed three times in a row.
    """
    if source is None:
        return Picture(MISSING)
    if isinstance(source, str):
        read = _read_file(source, options.max_bytes)
        if isinstance(read, Picture):
            return read
        source = read
    if not source:
        return Picture(EMPTY)
    if len(source) > options.max_bytes:
        return Picture(TOO_LARGE, f"{len(source):,} bytes")
    digest = hashlib.blake2b(source, digest_size=16).digest()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of what ends as a status here
        status, note, pixels = _decode(source, options)
    return Picture(status, note, digest, pixels)


def _read_file(path: str, max_bytes: int, waits: tuple[float, ...] = _WAITS_S) -> bytes | Picture:
    try:
        return _read_once(path, max_bytes)
    except OSError as error:
        if error.errno not in _STORAGE:
            return _explain(error, path)
        if not waits:
            raise StorageError(
                f"reading images failed ({error.strerror}) at {path}; finished shards are kept, "
                f"the same command goes on from there"
            ) from None
        time.sleep(waits[0])
    return _read_file(path, max_bytes, waits[1:])


def _explain(error: OSError, path: str) -> Picture:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return Picture(BROKEN_LINK if os.path.islink(path) else MISSING)
    if error.errno == errno.ELOOP:
        return Picture(BROKEN_LINK, "links in a circle")
    if error.errno in (errno.EACCES, errno.EPERM):
        return Picture(NO_PERMISSION)
    if error.errno == errno.EISDIR:
        return Picture(NOT_A_FILE, "a directory")
    # A socket (ENXIO), a name that is too long: there is no picture there.
    return Picture(NOT_A_FILE, error.strerror or str(error))


def _read_once(path: str, max_bytes: int) -> bytes | Picture:
    # Non-blocking: opening a named pipe would otherwise wait for a writer for ever.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with open(descriptor, "rb") as handle:
        info = os.fstat(descriptor)
        if stat.S_ISDIR(info.st_mode):
            return Picture(NOT_A_FILE, "a directory")
        if not stat.S_ISREG(info.st_mode):
            return Picture(NOT_A_FILE, "neither a file nor a directory")
        if info.st_size > max_bytes:
            return Picture(TOO_LARGE, f"{info.st_size:,} bytes")
        return handle.read()


def _decode(data: bytes, options: ReadOptions) -> tuple[str, str, Tensor | None]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            if width * height > options.max_pixels:
                return TOO_LARGE, f"{width} x {height} pixels", None
            note = _describe(image, options)
            return OK, note, _pixels(image, data, options)
    except Image.DecompressionBombError:
        return TOO_LARGE, "a decompression bomb", None
    except UnidentifiedImageError:
        known = data.startswith(_MAGIC) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")
        if known:
            return TRUNCATED, "the header is cut off or damaged", None
        return NOT_AN_IMAGE, "", None
    except MemoryError:
        return TOO_LARGE, "out of memory", None
    # Pillow's decoders raise many kinds of errors for damaged data, SyntaxError among them.
    except Exception as error:
        text = " ".join(str(error).split())[:120]
        cut = any(word in text.lower() for word in ("truncated", "unexpected end", "incomplete"))
        return (TRUNCATED if cut else DAMAGED), text, None


def _pixels(image: Image.Image, data: bytes, options: ReadOptions) -> Tensor:
    """The decoded picture, resized here unless it may travel to the device as it is."""
    turned = options.exif and _is_turned(image)
    plain = image.format == "JPEG" and image.mode in ("RGB", "L") and not turned
    original = image.size
    if plain and options.draft and _draft(image, options.preprocessing):
        return _tensor(fit_pillow(image, options.preprocessing, original=original))
    if plain and options.torchvision:
        pixels = _torchvision(data)
        if pixels is not None:
            small = pixels.shape[1] * pixels.shape[2] <= options.device_pixels
            if small and not options.fit_here:
                return pixels
            return fit(pixels, options.preprocessing)
    if turned:
        from PIL import ImageOps

        image = ImageOps.exif_transpose(image)
    fitted = fit_pillow(image, options.preprocessing)
    return _tensor(fitted)


def _torchvision(data: bytes) -> Tensor | None:
    """(3, h, w) uint8, or None where torchvision is missing or does not take the file."""
    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except ImportError:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            encoded = torch.frombuffer(data, dtype=torch.uint8)
        pixels: Tensor = decode_jpeg(encoded, mode=ImageReadMode.RGB)
    except RuntimeError:
        return None  # Pillow has the last word, as in open_clip
    return pixels


def _tensor(image: Image.Image) -> Tensor:
    width, height = image.size
    flat = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return flat.view(height, width, 3).permute(2, 0, 1)


def _draft(image: Image.Image, preprocessing: Preprocessing) -> bool:
    """Ask libjpeg to decode at 1/2, 1/4 or 1/8; True where it will."""
    width, height = before = image.size
    if max(before) > STRIP * min(before):
        return False
    plan = Geometry.of(height, width, preprocessing)
    image.draft("RGB", (_SPARE * plan.width, _SPARE * plan.height))
    return image.size != before


def _describe(image: Image.Image, options: ReadOptions) -> str:
    """What a person should know about a picture that could be read all the same."""
    notes = []
    if image.format != "JPEG":
        notes.append(f"{image.format} file")
    if image.mode not in ("RGB", "L"):
        notes.append(f"mode {image.mode}")
    elif image.mode == "L":
        notes.append("greyscale")
    if getattr(image, "n_frames", 1) > 1:
        notes.append("first frame of several")
    if _is_turned(image):
        notes.append("turned by EXIF" if options.exif else "EXIF rotation ignored")
    return ", ".join(notes)


def _is_turned(image: Image.Image) -> bool:
    """Whether EXIF says that the picture lies on its side or is mirrored."""
    if image.format not in ("JPEG", "MPO", "WEBP"):
        return False  # of a PNG, Pillow would decode all pixels to look, and swallow their errors
    try:
        return bool(image.getexif().get(_ORIENTATION, 1) != 1)
    except Exception:  # damaged metadata says nothing about the pixels
        return False

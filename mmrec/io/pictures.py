"""The one way to read a picture, whatever image folders hold.

In comes a path or the bytes of a file, out goes a `Picture`: a status, what was odd about it, and
what the caller made of it while it was open (pixels, a thumbnail, nothing). Nothing here raises for
a bad picture. What does raise is storage that went away (`StorageError`), because a run must not
record a lost mount as missing pictures.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import stat
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mmrec.errors import InputError, require

if TYPE_CHECKING:
    from PIL import Image

PLAIN_NAMES = "{id}"  # of the pictures of items that have one
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

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
MAX_PIXELS = 50_000_000
MAX_BYTES = 64_000_000

# What a network file system or a dying disk says; retried, then the run stops.
_STORAGE = {
    errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ECONNRESET,
    errno.ECONNABORTED, errno.ECONNREFUSED, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN,
    errno.EHOSTUNREACH, errno.ENODEV, getattr(errno, "EREMOTEIO", errno.EIO),
}  # fmt: skip
_PROBLEMS = {
    errno.ELOOP: (BROKEN_LINK, "links in a circle"),
    errno.EACCES: (NO_PERMISSION, ""),
    errno.EPERM: (NO_PERMISSION, ""),
}
_WAITS_S = (0.1, 0.5, 2.0)
_ORIENTATION = 0x0112
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*")

T = TypeVar("T")


class StorageError(InputError):
    """The storage that holds the pictures failed; the run stops."""


@dataclass(frozen=True)
class Picture(Generic[T]):
    """What became of one picture.

    Attributes:
        status: one of `STATUSES`.
        note: in words, what was odd about it.
        pixels: what was made of it when `status` is "ok", else None.
        digest: a hash of its bytes, empty where they were not read.
    """

    status: str
    note: str = ""
    pixels: T | None = None
    digest: bytes = b""


def picture_name(item_id: int) -> str:
    """The file that holds an item's picture, as data sets here name it.

    >>> picture_name(7)
    '7.jpg'
    """
    return f"{item_id}{SUFFIXES[0]}"


def find_pictures(folder: str | os.PathLike[str]) -> dict[int, str]:
    """Item id -> path, for all `<id>.jpg` in `folder`; see `find_several`."""
    return {item_id: paths[0] for item_id, paths in find_several(folder).items()}


def find_several(folder: str | os.PathLike[str], names: str = PLAIN_NAMES) -> dict[int, list[str]]:
    """Item id -> paths of its pictures, of those in `folder`, or in an `item_images` inside it.

    Other suffixes than .jpg are found too, in the order of `SUFFIXES` where a name has several;
    numbers may begin with zeros. One listing of the folder, not one look-up an item. Where there
    is no picture in it, its sub-folders are searched.

    Args:
        names: a template of the names without their suffix: `{id}`, and `{n}` where an item has
            several, which come in the order of that number.

    Raises:
        InputError: the folder cannot be listed, or the template is none.
    """
    pattern = _pattern(names)
    nested = Path(folder) / "item_images"
    try:
        place = nested if nested.is_dir() else folder
        found = _named(place, os.listdir(place), pattern)
    except OSError as error:
        raise InputError(
            f"the images folder cannot be listed ({error.strerror}): {folder}"
        ) from None
    if not found:
        for below, _, files in sorted(os.walk(place)):
            found = _named(below, files, pattern) | found  # of two, the first folder's
    several: dict[int, list[str]] = {}
    for (item_id, _), (_, path) in sorted(found.items()):
        several.setdefault(item_id, []).append(path)
    return several


def listing(folder: str | os.PathLike[str], most: int = 4) -> str:
    """A few names of what a folder holds, for messages."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name + "/" * entry.is_dir() for entry in entries)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more if names else "nothing"


def _pattern(names: str) -> re.Pattern[str]:
    """What a name without its suffix must be, with the groups id and, where there is one, n."""
    parts = re.split(r"(\{id\}|\{n\})", names)
    numbers, between = parts[1::2], parts[2:-1:2]
    plain = "".join(parts[::2])
    require(
        numbers in (["{id}"], ["{id}", "{n}"], ["{n}", "{id}"])
        and not any(letter in plain for letter in "{}/\\")
        and all(text and not text[0].isdigit() and not text[-1].isdigit() for text in between),
        "a template of picture names holds {id}, and {n} where an item has several, with letters "
        f"or signs between them and no suffix, such as {{id}}_{{n}}, got {names!r}",
    )
    groups = {"{id}": "(?P<id>[0-9]+)", "{n}": "(?P<n>[0-9]+)"}
    return re.compile("".join(groups.get(part, re.escape(part)) for part in parts))


def _named(
    folder: str | os.PathLike[str], names: Iterable[str], pattern: re.Pattern[str]
) -> dict[tuple[int, int], tuple[int, str]]:
    """(item id, n or 0) -> (place of its suffix in `SUFFIXES`, path)."""
    found: dict[tuple[int, int], tuple[int, str]] = {}
    for name in names:
        stem, suffix = os.path.splitext(name)
        match = pattern.fullmatch(stem)
        if suffix.lower() in SUFFIXES and match is not None:
            entry = (SUFFIXES.index(suffix.lower()), os.path.join(folder, name))
            which = int(match["id"]), int(match.groupdict().get("n", 0))
            found[which] = min(entry, found.get(which, entry))
    return found


def read_picture(
    source: str | bytes | None,
    use: Callable[[Image.Image, bytes], T],
    *,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    exif: bool = False,
) -> Picture[T]:
    """Read and decode one picture: a path, the bytes of a file, or None where there is none.

    Args:
        use: makes `pixels` of the open image and the file's bytes. The image is decoded only now,
            so what this raises is a status too.
        max_pixels: pictures with more are "too large" (a decompression bomb), before decoding.
        max_bytes: files with more are "too large", before reading.
        exif: turn pictures as their EXIF tag says.

    Raises:
        StorageError: the storage failed four times in a row.
    """
    if source is None:
        return Picture(MISSING)
    data = read_bytes(source, max_bytes) if isinstance(source, str) else source
    if isinstance(data, Picture):
        return data
    if not data:
        return Picture(EMPTY)
    if len(data) > max_bytes:
        return Picture(TOO_LARGE, f"{len(data):,} bytes")
    digest = hashlib.blake2b(data, digest_size=16).digest()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of what ends as a status here
        return Picture(*_decode(data, use, max_pixels, exif), digest)


def read_bytes(
    path: str, max_bytes: int = MAX_BYTES, waits: tuple[float, ...] = _WAITS_S
) -> bytes | Picture[Any]:
    """The bytes of a file, or the status that says why there are none."""
    try:
        return _read_once(path, max_bytes)
    except OSError as error:
        if error.errno not in _STORAGE:
            return _explain(error, path)
        if not waits:
            raise StorageError(
                f"the storage of the pictures failed ({error.strerror}) at {path}, "
                f"{len(_WAITS_S) + 1} times; once it is back, run the same command again"
            ) from None
        time.sleep(waits[0])
    return read_bytes(path, max_bytes, waits[1:])


def _read_once(path: str, max_bytes: int) -> bytes | Picture[Any]:
    # Non-blocking: opening a named pipe would otherwise wait for a writer for ever.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            directory = stat.S_ISDIR(info.st_mode)
            return Picture(
                NOT_A_FILE, "a directory" if directory else "neither a file nor a directory"
            )
        if info.st_size > max_bytes:
            return Picture(TOO_LARGE, f"{info.st_size:,} bytes")
        with open(descriptor, "rb", closefd=False) as handle:
            return handle.read(info.st_size)
    finally:
        os.close(descriptor)


def _explain(error: OSError, path: str) -> Picture[Any]:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return Picture(BROKEN_LINK if os.path.islink(path) else MISSING)
    # A socket (ENXIO), a name that is too long: there is no picture there.
    other = (NOT_A_FILE, error.strerror or str(error))
    return Picture(*_PROBLEMS.get(error.errno or 0, other))


def _decode(
    data: bytes, use: Callable[[Image.Image, bytes], T], max_pixels: int, exif: bool
) -> tuple[str, str, T | None]:
    """(status, note, what `use` made of it)."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            if width * height > max_pixels:
                return TOO_LARGE, f"{width} x {height} pixels", None
            turned = _is_turned(image)
            note = _describe(image, turned, exif)
            return OK, note, use(ImageOps.exif_transpose(image) if turned and exif else image, data)
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


def _describe(image: Image.Image, turned: bool, exif: bool) -> str:
    """What a person should know about a picture that could be read all the same."""
    notes = {
        f"{image.format} file": image.format != "JPEG",
        f"mode {image.mode}": image.mode not in ("RGB", "L"),
        "greyscale": image.mode == "L",
        "first frame of several": getattr(image, "n_frames", 1) > 1,
        "turned by EXIF" if exif else "EXIF rotation ignored": turned,
    }
    return ", ".join(note for note, holds in notes.items() if holds)


def _is_turned(image: Image.Image) -> bool:
    """Whether EXIF says that the picture lies on its side or is mirrored."""
    if image.format not in ("JPEG", "MPO", "WEBP"):
        return False  # of a PNG, Pillow would decode all pixels to look, and swallow their errors
    try:
        return bool(image.getexif().get(_ORIENTATION, 1) != 1)
    except Exception:  # damaged metadata says nothing about the pixels
        return False

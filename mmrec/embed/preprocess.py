"""A picture of any size to the encoder's input, as open_clip does it, on a core or on the device.

`read_picture` runs in worker processes and gives pixels that are decoded and, as a rule, resized;
`resize_batch` resizes on the device what came over as it was; `normalise` makes floats of them.

Shapes: B rows of a batch, h and w a picture's size, H and W the encoder's input size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from mmrec.embed.encoder import Preprocessing
from mmrec.io import pictures
from mmrec.io.pictures import MAX_PIXELS, Picture

if TYPE_CHECKING:
    from PIL import Image

# Beyond this ratio of the edges, the part of a picture that the crop keeps is cut out before it
# is resized: a strip of 1 x 10,000 pixels would otherwise be blown up to 224 x 2,240,000.
STRIP = 8
# How many times the encoder's size a JPEG must keep when libjpeg scales it. On film posters the
# least cosine of pixels with open_clip's was 0.9998 at 3 and 0.9985 at 2; on pure noise 0.997 at
# 3, which is why scaling is not the default.
_SPARE = 3


@dataclass(frozen=True)
class ReadOptions:
    """What decides how a picture becomes pixels, beside the encoder's preprocessing.

    Attributes:
        preprocessing: the encoder's.
        resize_here: resize on this core; else pictures up to `device_pixels` travel as they are.
        device_pixels: larger pictures are resized here in any case, to bound what is in flight.
        max_pixels: pictures with more are "too large" (a decompression bomb), before decoding.
        exif: turn pictures as their EXIF tag says. open_clip's own transform does not, so False
            agrees with it.
        draft: let libjpeg scale large JPEGs down while decoding, never below three times the
            size that the encoder sees; faster from some 12 megapixels on.
        torchvision: decode ordinary JPEGs with torchvision rather than Pillow.
    """

    preprocessing: Preprocessing
    resize_here: bool = True
    device_pixels: int = 500_000
    max_pixels: int = MAX_PIXELS
    exif: bool = False
    draft: bool = False
    torchvision: bool = True


def read_picture(source: str | bytes | None, options: ReadOptions) -> Picture[Tensor]:
    """One picture's pixels (3, h, w) uint8, or why there are none; see `mmrec.io.pictures`.

    Raises:
        StorageError: the storage failed four times in a row.
    """
    use = partial(_pixels, options=options)
    return pictures.read_picture(source, use, max_pixels=options.max_pixels, exif=options.exif)


def _pixels(image: Image.Image, data: bytes, options: ReadOptions) -> Tensor:
    """The decoded picture, resized here unless it may travel to the device as it is."""
    preprocessing, original = options.preprocessing, image.size
    if image.format == "JPEG" and image.mode in ("RGB", "L"):
        if options.draft and _draft(image, preprocessing):
            return _tensor(resize_pillow(image, preprocessing, original=original))
        pixels = _torchvision(data) if options.torchvision else None
        if pixels is not None:
            if not options.resize_here and pixels[0].numel() <= options.device_pixels:
                return pixels
            return resize(pixels[None], preprocessing)[0]
    return _tensor(resize_pillow(image, preprocessing))


def _torchvision(data: bytes) -> Tensor | None:
    """(3, h, w) uint8, or None where torchvision is missing or does not take the file."""
    try:
        from torchvision.io import ImageReadMode, decode_jpeg

        pixels: Tensor = decode_jpeg(
            torch.frombuffer(data, dtype=torch.uint8), mode=ImageReadMode.RGB
        )
    except (ImportError, RuntimeError):
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


@dataclass(frozen=True)
class Geometry:
    """Where the pixels of one picture go: (h, w) -> resized (height, width) -> crop or pad."""

    height: int
    width: int
    top: int
    left: int

    @classmethod
    def of(cls, h: int, w: int, preprocessing: Preprocessing) -> Geometry:
        """The geometry that open_clip's transform gives a picture of h x w pixels.

        >>> Geometry.of(450, 300, Preprocessing(size=(224, 224)))
        Geometry(height=336, width=224, top=56, left=0)
        """
        target_h, target_w = preprocessing.size
        if preprocessing.resize_mode == "squash":
            height, width = target_h, target_w
        elif preprocessing.resize_mode == "shortest" and target_h == target_w:
            short = target_h
            # torchvision's rounding: the long edge is cut down to an int
            height, width = (short, int(short * w / h)) if h <= w else (int(short * h / w), short)
        else:
            pick = max if preprocessing.resize_mode == "longest" else min
            ratio = pick(h / target_h, w / target_w)
            height, width = max(1, round(h / ratio)), max(1, round(w / ratio))
        # round(), as torchvision's centre crop: halves go to even
        top, left = round((height - target_h) / 2.0), round((width - target_w) / 2.0)
        return cls(height=height, width=width, top=top, left=left)


def resize(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """(B, 3, h, w) uint8 -> (B, 3, H, W) uint8: resize, then crop or pad. Any device.

    Agrees with Pillow's resize to one or two grey levels: on the CPU through torch's integer
    kernel, elsewhere in floating point with Pillow's rounding between its two passes.
    """
    rows, columns, plan = _kept(pixels.shape[-2], pixels.shape[-1], preprocessing)
    pixels = pixels[..., rows, columns]
    if pixels.shape[-2:] != (plan.height, plan.width):
        pixels = _interpolate(pixels, plan.height, plan.width, preprocessing.interpolation)
    return _crop_or_pad(pixels, plan, preprocessing)


def resize_pillow(
    image: Image.Image, preprocessing: Preprocessing, *, original: tuple[int, int] | None = None
) -> Image.Image:
    """The same for a Pillow image, in its own mode, as open_clip does it; returns RGB.

    Args:
        image: the picture.
        original: (width, height) of the picture where libjpeg scaled it down while decoding.
    """
    from PIL import Image

    w, h = original or image.size
    rows, columns, plan = _kept(h, w, preprocessing)
    target_h, target_w = preprocessing.size
    bicubic = preprocessing.interpolation == "bicubic"
    method = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
    kept = (columns.start, rows.start, columns.stop, rows.stop)
    if kept != (0, 0, w, h):
        image = image.crop(kept)
    if original is not None:
        # libjpeg rounds sizes up: 449 pixels at a quarter are 113, of which 112.25 are picture.
        scale = round(w / image.size[0])
        picture = (0.0, 0.0, min(w / scale, image.size[0]), min(h / scale, image.size[1]))
        image = image.resize((plan.width, plan.height), method, box=picture)
    elif image.size != (plan.width, plan.height):
        image = image.resize((plan.width, plan.height), method)
    box = (plan.left, plan.top, plan.left + target_w, plan.top + target_h)
    if plan.top >= 0 and plan.left >= 0:
        return image.crop(box).convert("RGB")
    canvas = Image.new("RGB", (target_w, target_h), (preprocessing.fill,) * 3)
    # open_clip pads the smaller half first
    canvas.paste(
        image.convert("RGB"),
        (max(0, (target_w - plan.width) // 2), max(0, (target_h - plan.height) // 2)),
    )
    return canvas


def normalise(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """(B, 3, H, W) uint8 -> (B, 3, H, W) float32, (x / 255 - mean) / std."""
    mean, std = _statistics(preprocessing, pixels.device)
    return pixels.float().div_(255).sub_(mean).div_(std)


@lru_cache(maxsize=16)
def _statistics(preprocessing: Preprocessing, device: torch.device) -> tuple[Tensor, Tensor]:
    # Kept: making a tensor on a CUDA device waits for everything that is under way there.
    with torch.inference_mode(False):
        mean = torch.tensor(preprocessing.mean, device=device).view(3, 1, 1)
        return mean, torch.tensor(preprocessing.std, device=device).view(3, 1, 1)


def resize_batch(pictures: Sequence[Tensor], preprocessing: Preprocessing) -> Tensor:
    """B pictures (3, h, w) uint8 of any sizes, on one device -> (B, 3, H, W) uint8.

    On CUDA pictures of one size are resized together, so that a batch costs as many kernel
    launches as it has different sizes; on the CPU laying them end to end would cost more.
    """
    device = pictures[0].device
    groups: dict[torch.Size | int, list[int]] = {}
    for index, picture in enumerate(pictures):
        groups.setdefault(index if device.type == "cpu" else picture.shape, []).append(index)
    result = torch.empty((len(pictures), 3, *preprocessing.size), dtype=torch.uint8, device=device)
    for indices in groups.values():
        resized = resize(torch.stack([pictures[i] for i in indices]), preprocessing)
        # One copy per picture, by plain slices: an index tensor would have to travel first.
        for index, picture in zip(indices, resized, strict=True):
            result[index].copy_(picture)
    return result


def _interpolate(pixels: Tensor, height: int, width: int, method: str) -> Tensor:
    def interpolate(x: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(x, size, mode=method, antialias=True, align_corners=False)

    if _integer_kernel(pixels):
        return interpolate(pixels, (height, width))
    # Pillow resizes rows, rounds to 8 bits, then resizes columns.
    x = pixels.float()
    if pixels.shape[-1] != width:
        x = interpolate(x, (x.shape[-2], width)).round_().clamp_(0, 255)
    if pixels.shape[-2] != height:
        x = interpolate(x, (height, width)).round_().clamp_(0, 255)
    return x.to(torch.uint8)


def _integer_kernel(pixels: Tensor) -> bool:
    """Whether torch resizes 8-bit integers there, as Pillow does."""
    return pixels.device.type == "cpu"


def _crop_or_pad(pixels: Tensor, plan: Geometry, preprocessing: Preprocessing) -> Tensor:
    height, width = preprocessing.size
    across, down = max(0, width - plan.width), max(0, height - plan.height)
    if across or down:
        pad = (across // 2, across - across // 2, down // 2, down - down // 2)
        pixels = F.pad(pixels, pad, value=preprocessing.fill)
    top, left = max(0, plan.top), max(0, plan.left)
    return pixels[..., top : top + height, left : left + width]


def _kept(h: int, w: int, preprocessing: Preprocessing) -> tuple[slice, slice, Geometry]:
    """Rows and columns to resize, and the geometry from there: all, but of a strip."""
    plan = Geometry.of(h, w, preprocessing)
    if max(h, w) <= STRIP * min(h, w) or preprocessing.resize_mode != "shortest":
        return slice(0, h), slice(0, w), plan
    rows = _span(h, plan.height, plan.top, preprocessing.size[0])
    columns = _span(w, plan.width, plan.left, preprocessing.size[1])
    down, across = plan.height / h, plan.width / w  # the scale stays, the crop moves
    moved = Geometry(
        height=max(1, round((rows.stop - rows.start) * down)),
        width=max(1, round((columns.stop - columns.start) * across)),
        top=round(plan.top - rows.start * down),
        left=round(plan.left - columns.start * across),
    )
    return rows, columns, moved


def _span(source: int, resized: int, start: int, length: int) -> slice:
    """The source pixels that can reach `length` resized ones from `start` on, with a margin."""
    scale = source / resized
    start = max(0, start)
    margin = 4 * max(1.0, scale) + 1  # a cubic filter reaches two output or input pixels
    first = max(0, int(start * scale - margin))
    return slice(first, min(source, int((start + length) * scale + margin) + 1))

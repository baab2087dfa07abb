"""Resize, crop and normalise as open_clip does, on the decoder's core or on the device.

Shapes: B rows of a batch, h and w a picture's size, H and W the encoder's input size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from mmrec.embed.encoder import Preprocessing

if TYPE_CHECKING:
    from PIL import Image

# Beyond this ratio of the edges, the part of a picture that the crop keeps is cut out before it
# is resized: a strip of 1 x 10,000 pixels would otherwise be blown up to 224 x 2,240,000.
STRIP = 8


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


def fit(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """(3, h, w) uint8 -> (3, H, W) uint8: resize, then crop or pad. Any device.

    Agrees with Pillow's resize to one or two grey levels: on the CPU through torch's integer
    kernel, elsewhere in floating point with Pillow's rounding between its two passes.
    """
    return fit_many(pixels[None], preprocessing)[0]


def fit_many(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """(B, 3, h, w) uint8, all of one size -> (B, 3, H, W) uint8."""
    h, w = pixels.shape[-2:]
    plan = Geometry.of(h, w, preprocessing)
    target_h, target_w = preprocessing.size
    if max(h, w) > STRIP * min(h, w) and preprocessing.resize_mode == "shortest":
        pixels, plan = _cut_strip(pixels, plan, target_h, target_w)
        h, w = pixels.shape[-2:]
    if (h, w) != (plan.height, plan.width):
        pixels = _resize(pixels, plan.height, plan.width, preprocessing.interpolation)
    return _crop_or_pad(pixels, plan, target_h, target_w, preprocessing.fill)


def fit_pillow(
    image: Image.Image, preprocessing: Preprocessing, *, original: tuple[int, int] | None = None
) -> Image.Image:
    """The same for a Pillow image, in its own mode, as open_clip does it; returns RGB.

    Args:
        image: the picture.
        original: (width, height) of the picture where libjpeg scaled it down while decoding.
    """
    from PIL import Image

    w, h = original or image.size
    plan = Geometry.of(h, w, preprocessing)
    target_h, target_w = preprocessing.size
    bicubic = preprocessing.interpolation == "bicubic"
    method = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
    if max(h, w) > STRIP * min(h, w) and preprocessing.resize_mode == "shortest":
        top, bottom, left, right = _kept(h, w, plan, target_h, target_w)
        image = image.crop((left, top, right, bottom))
        plan = _after_cut(plan, h, w, top, bottom, left, right)
        w, h = image.size
    if original is not None:
        # libjpeg rounds sizes up: 449 pixels at a quarter are 113, of which 112.25 are picture.
        scale = round(w / image.size[0])
        picture = (0.0, 0.0, min(w / scale, image.size[0]), min(h / scale, image.size[1]))
        image = image.resize((plan.width, plan.height), method, box=picture)
    elif (h, w) != (plan.height, plan.width):
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


def fit_batch(pictures: Sequence[Tensor], preprocessing: Preprocessing) -> Tensor:
    """B pictures (3, h, w) uint8 of any sizes, on one device -> (B, 3, H, W) uint8.

    Pictures of one size are resized together, so that a batch costs as many kernel launches as
    it has different sizes.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for index, picture in enumerate(pictures):
        groups.setdefault((picture.shape[1], picture.shape[2]), []).append(index)
    height, width = preprocessing.size
    result = torch.empty(
        (len(pictures), 3, height, width), dtype=torch.uint8, device=pictures[0].device
    )
    for indices in groups.values():
        stacked = torch.stack([pictures[i] for i in indices])
        # One copy per picture, by plain slices: an index tensor would have to travel first.
        for row, index in enumerate(fit_many(stacked, preprocessing)):
            result[indices[row]].copy_(index)
    return result


def _resize(pixels: Tensor, height: int, width: int, interpolation: str) -> Tensor:
    def interpolate(x: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(x, size, mode=interpolation, antialias=True, align_corners=False)

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


def _crop_or_pad(pixels: Tensor, plan: Geometry, height: int, width: int, fill: int) -> Tensor:
    if plan.height < height or plan.width < width:
        across, down = max(0, width - plan.width), max(0, height - plan.height)
        pad = (across // 2, across - across // 2, down // 2, down - down // 2)
        pixels = F.pad(pixels, pad, value=fill)
    top, left = max(0, plan.top), max(0, plan.left)
    return pixels[..., top : top + height, left : left + width]


def _kept(
    h: int, w: int, plan: Geometry, target_h: int, target_w: int
) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of the source pixels that can reach the crop, with a margin."""

    def span(source: int, resized: int, start: int, length: int) -> tuple[int, int]:
        scale = source / resized
        margin = 4 * max(1.0, scale) + 1  # a cubic filter reaches two output or input pixels
        first = max(0, int(start * scale - margin))
        return first, min(source, int((start + length) * scale + margin) + 1)

    top, bottom = span(h, plan.height, max(0, plan.top), target_h)
    left, right = span(w, plan.width, max(0, plan.left), target_w)
    return top, bottom, left, right


def _after_cut(
    plan: Geometry, h: int, w: int, top: int, bottom: int, left: int, right: int
) -> Geometry:
    """`plan` for the cut-out source: the same scale, the crop moved by what was cut away."""
    down, across = plan.height / h, plan.width / w
    return Geometry(
        height=max(1, round((bottom - top) * down)),
        width=max(1, round((right - left) * across)),
        top=round(plan.top - top * down),
        left=round(plan.left - left * across),
    )


def _cut_strip(
    pixels: Tensor, plan: Geometry, target_h: int, target_w: int
) -> tuple[Tensor, Geometry]:
    h, w = pixels.shape[-2:]
    top, bottom, left, right = _kept(h, w, plan, target_h, target_w)
    cut = pixels[..., top:bottom, left:right]
    return cut, _after_cut(plan, h, w, top, bottom, left, right)

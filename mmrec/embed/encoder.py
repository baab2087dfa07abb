"""The seam: what extraction asks of an encoder, whatever stands behind it.

Shapes: B rows of a batch, H and W the encoder's input size, T tokens of a caption.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from mmrec.errors import InputError

RESIZE_MODES = ("shortest", "longest", "squash")
INTERPOLATIONS = ("bicubic", "bilinear")


@dataclass(frozen=True)
class Preprocessing:
    """From a picture of any size to the encoder's input, in open_clip's terms.

    Attributes:
        size: (height, width) of the encoder's input.
        resize_mode: `shortest` (short edge to size, then centre crop), `longest` (long edge to
            size, then pad) or `squash` (both edges, aspect ratio lost).
        interpolation: `bicubic` or `bilinear`, both antialiased.
        mean, std: per channel, of pixels in [0, 1].
        fill: grey level of padding, 0..255.

    >>> Preprocessing(size=(224, 224)).size
    (224, 224)
    """

    size: tuple[int, int] = (224, 224)
    resize_mode: str = "shortest"
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    fill: int = 0

    def __post_init__(self) -> None:
        if self.resize_mode not in RESIZE_MODES:
            raise InputError(f"resize_mode is one of {RESIZE_MODES}, got {self.resize_mode!r}")
        if self.interpolation not in INTERPOLATIONS:
            raise InputError(
                f"interpolation is one of {INTERPOLATIONS}, got {self.interpolation!r}"
            )
        if len(self.size) != 2 or min(self.size) < 1:
            raise InputError(f"size is (height, width) of at least 1, got {self.size}")

    def fingerprint(self) -> dict[str, Any]:
        """What must stay equal for pictures to stay equal."""
        return asdict(self)


@runtime_checkable
class Encoder(Protocol):
    """A frozen pair of encoders for pictures and captions.

    `mmrec.embed.OpenClipEncoder` is one; a pair such as a timm backbone and a sentence encoder is
    another class with these members. `tokenize` runs in worker processes: it must not touch the
    device. The two `encode_*` run in the main process under `torch.inference_mode()` and may
    return before the device is done.

    Attributes:
        name: for people, in reports.
        image_dim, text_dim: widths of the two vectors; they may differ.
        device: where `encode_image` expects its pixels.
        threads: how many threads torch is given while it runs beside the decoders, None for as
            many as it has. Never a matter of timings: their number can change the last bit.
        preprocessing: how pictures are brought to `encode_image`'s input.
    """

    name: str
    image_dim: int
    text_dim: int
    device: torch.device
    threads: int | None
    preprocessing: Preprocessing

    def fingerprint(self) -> dict[str, Any]:
        """JSON-able; equal exactly when the vectors are meant to be equal."""

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) float32, normalised, on `device` -> (B, image_dim)."""

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """B captions -> (B, T) int64 on the CPU."""

    def encode_text(self, tokens: Tensor) -> Tensor:
        """(B, T) int64 from `tokenize`, on the CPU -> (B, text_dim)."""

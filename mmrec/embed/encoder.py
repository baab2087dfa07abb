"""The seam: what extraction asks of an encoder, whatever stands behind it.

Shapes: B rows of a batch, H and W the encoder's input size.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

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
    """A frozen encoder of one modality: a `PictureEncoder` or a `ValueEncoder`.

    `encode` runs in the main process under `torch.inference_mode()` and may return before the
    device is done.

    Attributes:
        name: for people, in reports.
        out_dim: width of the vectors.
        device: where it runs.
        threads: how many threads torch is given while it runs beside the decoders, None for as
            many as it has. Never a matter of timings: their number can change the last bit.
    """

    name: str
    out_dim: int
    device: torch.device
    threads: int | None

    def fingerprint(self) -> dict[str, Any]:
        """JSON-able; equal exactly when the vectors are meant to be equal."""

    def encode(self, batch: Tensor) -> Tensor:
        """A batch of B, as the two kinds of encoder say -> (B, out_dim)."""


@runtime_checkable
class PictureEncoder(Encoder, Protocol):
    """Of pictures: `encode` takes (B, 3, H, W) float32, normalised, on `device`.

    Attributes:
        preprocessing: how pictures are brought to that.
    """

    preprocessing: Preprocessing


@runtime_checkable
class ValueEncoder(Encoder, Protocol):
    """Of captions, or of the values of any column: `encode` takes what `prepare` gives, on the CPU.

    Attributes:
        column: of the items file; None = the captions. An item whose value is null has no vector.
    """

    column: str | None

    def prepare(self, values: Sequence[Any]) -> Tensor:
        """B values -> (B, …) on the CPU. It runs in worker processes, away from the device."""


def hash_weights(model: nn.Module) -> str:
    """A hash of every tensor, whatever file it came from: what a fingerprint says of weights."""
    state = hashlib.sha256()
    for key, tensor in sorted(model.state_dict().items()):
        state.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        state.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return state.hexdigest()


class Pair(Protocol):
    """Two encoders that were trained together, as `OpenClipEncoder` holds them."""

    name: str
    image_dim: int
    text_dim: int
    device: torch.device
    threads: int | None
    preprocessing: Preprocessing

    def fingerprint(self) -> dict[str, Any]: ...
    def encode_image(self, pixels: Tensor) -> Tensor: ...
    def tokenize(self, captions: Sequence[str]) -> Tensor: ...
    def encode_text(self, tokens: Tensor) -> Tensor: ...


def towers(pair: Pair) -> dict[str, Encoder]:
    """The modalities image and text of a pair."""
    return {"image": _PictureTower(pair), "text": _CaptionTower(pair)}


class _PictureTower:
    def __init__(self, pair: Pair) -> None:
        self.name, self.out_dim, self.device = pair.name, pair.image_dim, pair.device
        self.threads, self.preprocessing = pair.threads, pair.preprocessing
        self.fingerprint, self.encode = pair.fingerprint, pair.encode_image


class _CaptionTower:
    column = None

    def __init__(self, pair: Pair) -> None:
        self.name, self.out_dim, self.device = pair.name, pair.text_dim, pair.device
        self.threads, self.fingerprint = pair.threads, pair.fingerprint
        self.prepare, self.encode = pair.tokenize, pair.encode_text

"""What a fusion is, and what the variants share.

… any leading dims, Di image width, Dt text width, D out_dim.
"""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from mmrec.errors import InputError, positive

ABSENT_STD = 0.02


@runtime_checkable
class Fusion(Protocol):
    """Image (..., Di), text (..., Dt), has_image (...) and has_text (...) bool -> (..., out_dim).

    What stands in the vector of an absent modality must not change the output.
    """

    out_dim: int

    def __call__(
        self, image: Tensor, text: Tensor, has_image: Tensor, has_text: Tensor
    ) -> Tensor: ...


@runtime_checkable
class ConditionedFusion(Fusion, Protocol):
    """A fusion that can also be changed by what surrounds the target (its context vector)."""

    context_dim: int

    def condition(self, fused: Tensor, context: Tensor) -> Tensor:
        """Fused (B, out_dim) and context (B, context_dim) -> (B, out_dim)."""


@runtime_checkable
class EstimatedFusion(Fusion, Protocol):
    """A fusion that looks at all items once before use, without labels."""

    @property
    def estimated(self) -> bool: ...

    def estimate(self, image: Tensor, text: Tensor, has_image: Tensor, has_text: Tensor) -> None:
        """Image (N, Di), text (N, Dt), has_image (N,), has_text (N,)."""


class Estimated(nn.Module):
    """A part whose buffers `estimate` fills, or a checkpoint; before, one of them holds NaN.

    `estimated` is looked up when they change, since at every use it would wait for the device.
    """

    estimated = False

    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_post_hook(Estimated.look)  # type: ignore[no-untyped-call]

    def look(self, _: Any = None) -> None:
        """Set `estimated`."""
        self.estimated = all(bool(buffer.isfinite().all()) for buffer in self.buffers())


class TwoModalFusion(nn.Module):
    """Base of the variants: fuse(x_image, x_text), where x_m is a learned a_m if m is absent.

    A variant of one's own sets `out_dim` and writes `fuse(image, text)`; it never sees the content
    of an absent modality.
    Parameters: Di + Dt, the absent vectors.
    """

    def __init__(self, *, image_dim: int, text_dim: int, out_dim: int) -> None:
        super().__init__()
        positive(image_dim=image_dim, text_dim=text_dim, out_dim=out_dim)
        self.image_dim, self.text_dim, self.out_dim = image_dim, text_dim, out_dim
        widths = {"image": image_dim, "text": text_dim}
        self.absent = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(width) * ABSENT_STD) for name, width in widths.items()}
        )

    def forward(self, image: Tensor, text: Tensor, has_image: Tensor, has_text: Tensor) -> Tensor:
        check_modalities(image, text, has_image, has_text)
        check_width("image", image, self.image_dim)
        check_width("text", text, self.text_dim)
        image = fill(image, has_image, self.absent["image"])
        return self.fuse(image, fill(text, has_text, self.absent["text"]))

    def fuse(self, image: Tensor, text: Tensor) -> Tensor:
        """(..., Di) and (..., Dt), both filled -> (..., out_dim)."""
        raise NotImplementedError(f"{type(self).__name__} must define fuse(image, text)")


def fill(x: Tensor, present: Tensor, vector: Tensor) -> Tensor:
    """(..., W), with `vector` (W,) where `present` (...) is False."""
    return torch.where(present.unsqueeze(-1), x, vector.to(x.dtype))


def check_modalities(image: Tensor, text: Tensor, has_image: Tensor, has_text: Tensor) -> None:
    """Raise unless all four share their leading dims and the masks are bool."""
    lead = image.shape[:-1]
    if text.shape[:-1] != lead:
        raise InputError(
            "image and text must share leading dims, "
            f"got {tuple(image.shape)} and {tuple(text.shape)}"
        )
    for name, mask in (("has_image", has_image), ("has_text", has_text)):
        if mask.shape != lead or mask.dtype != torch.bool:
            raise InputError(
                f"{name} must be bool of shape {tuple(lead)}, "
                f"got {mask.dtype} of shape {tuple(mask.shape)}"
            )


def check_width(name: str, x: Tensor, width: int) -> None:
    """Raise unless x is (..., width)."""
    if x.shape[-1] != width:
        raise InputError(f"{name} must be {width} wide, as the fusion was built, got {x.shape[-1]}")

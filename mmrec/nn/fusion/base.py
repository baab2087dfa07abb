"""What a fusion is, and what the variants share.

… any leading dims, M modalities, D_m width of modality m, X their sum, D out_dim.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from mmrec.errors import InputError, modality_names, positive, require

ABSENT_STD = 0.02

Vectors = Mapping[str, Tensor]
"""Name of a modality -> (..., D_m)."""
Present = Mapping[str, Tensor]
"""Name of a modality -> (...) bool."""


@runtime_checkable
class Fusion(Protocol):
    """Vectors (..., D_m) and presence (...) bool by name of the modality -> (..., out_dim).

    What stands in the vector of an absent modality must not change the output, nor must the order
    of the mappings; modalities that the fusion was not built for are not looked at.
    """

    out_dim: int

    def __call__(self, vectors: Vectors, present: Present) -> Tensor: ...


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

    def estimate(self, vectors: Vectors, present: Present) -> None:
        """Vectors (N, D_m) and presence (N,)."""


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


class ModalFusion(nn.Module):
    """Base of the variants: fuse(x), where x_m is a learned a_m if m is absent.

    A variant of one's own sets `out_dim` and writes `fuse(x)`; it never sees the content of an
    absent modality, and x comes in the order of `dims`.
    Parameters: X, the absent vectors.

    Args:
        dims: name of each modality -> D_m; kept in the order of the names, so that weights do not
            hang on that of the mapping.
    """

    def __init__(self, *, dims: Mapping[str, int], out_dim: int) -> None:
        super().__init__()
        self.dims = checked_dims(dims)
        positive(out_dim=out_dim)
        self.out_dim = out_dim
        self.absent = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(dim) * ABSENT_STD) for name, dim in self.dims.items()}
        )

    @property
    def width(self) -> int:
        """X."""
        return sum(self.dims.values())

    def forward(self, vectors: Vectors, present: Present) -> Tensor:
        check_modalities(self.dims, vectors, present)
        return self.fuse(
            {name: fill(vectors[name], present[name], self.absent[name]) for name in self.dims}
        )

    def fuse(self, x: dict[str, Tensor]) -> Tensor:
        """Name -> (..., D_m), all filled -> (..., out_dim)."""
        raise NotImplementedError(f"{type(self).__name__} must define fuse(x)")


def checked_dims(dims: Mapping[str, int]) -> dict[str, int]:
    """The widths in the order of the names.

    Raises:
        InputError: there are none, one is no positive number, or a name that none can have.
    """
    require(isinstance(dims, Mapping), f"dims maps names of modalities to widths, got {dims!r}")
    modality_names(dims)
    require(dims, "a fusion needs the width of a modality or more, dims has none")
    for name, width in dims.items():
        positive(**{f"dims[{name!r}]": width})
    return dict(sorted(dims.items()))


def joined(x: Mapping[str, Tensor]) -> Tensor:
    """(..., X): all of them side by side."""
    return torch.cat(list(x.values()), dim=-1)


def fill(x: Tensor, present: Tensor, vector: Tensor) -> Tensor:
    """(..., W), with `vector` (W,) where `present` (...) is False."""
    return torch.where(present.unsqueeze(-1), x, vector.to(x.dtype))


def check_modalities(dims: Mapping[str, int], vectors: Vectors, present: Present) -> None:
    """Raise unless all are there, as wide as told, share leading dims, and masks are bool."""
    if not isinstance(vectors, Mapping) or not isinstance(present, Mapping):
        raise InputError(
            "a fusion takes vectors and presence by name of the modality, got "
            f"{type(vectors).__name__} and {type(present).__name__}"
        )
    lead = None
    for name, width in dims.items():
        if vectors.get(name) is None or present.get(name) is None:
            raise InputError(
                f"the fusion was built for {', '.join(dims)}, got vectors of "
                f"{', '.join(vectors) or 'none'} and presence of {', '.join(present) or 'none'}"
            )
        shape, mask = vectors[name].shape, present[name]
        if shape[-1:] != (width,):
            raise InputError(
                f"{name} must be {width} wide, as the fusion was built, got shape {tuple(shape)}"
            )
        lead = shape[:-1] if lead is None else lead
        if shape[:-1] != lead:
            raise InputError(
                "modalities must share leading dims, "
                f"got {', '.join(f'{n} {tuple(vectors[n].shape)}' for n in dims)}"
            )
        if mask.shape != lead or mask.dtype != torch.bool:
            raise InputError(
                f"presence of {name} must be bool of shape {tuple(lead)}, "
                f"got {mask.dtype} of shape {tuple(mask.shape)}"
            )

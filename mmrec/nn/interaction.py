"""How the parts of a row meet: crosses beside an MLP.

B rows, X width of the input.
"""

from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from mmrec.errors import positive, require


@runtime_checkable
class Interaction(Protocol):
    """(B, in_dim) -> (B, out_dim)."""

    in_dim: int
    out_dim: int

    def __call__(self, x: Tensor) -> Tensor: ...


@runtime_checkable
class Enterable(Protocol):
    """A module that reads x by a linear map at first, and may be given what that gave."""

    @property
    def entry(self) -> nn.Linear: ...
    def entered(self, x: Tensor, first: Tensor) -> Tensor: ...


class CrossAndDeep(nn.Module):
    """[cross(z); deep(z)], z = x, or z = LayerNorm(W x + b) with `bottleneck`.

    The parallel form of DCN-V2 (arXiv:2008.13535). A bottleneck is what makes the crosses cheap:
    full-rank ones grow with the square of their width.

    Args:
        in_dim: X.
        cross, deep: modules with `in_dim` and `out_dim`; either may be None.
        bottleneck: width of z; None = no bottleneck.

    >>> from mmrec.nn.cross import CrossNetV2
    >>> from mmrec.nn.mlp import MLP
    >>> both = CrossAndDeep(
    ...     in_dim=9,
    ...     cross=CrossNetV2(dim=4, depth=1),
    ...     deep=MLP(in_dim=4, hidden=[3]),
    ...     bottleneck=4,
    ... )
    >>> both(torch.ones(2, 9)).shape
    torch.Size([2, 7])
    """

    def __init__(
        self,
        *,
        in_dim: int,
        cross: Interaction | None,
        deep: Interaction | None,
        bottleneck: int | None = None,
    ) -> None:
        super().__init__()
        positive(in_dim=in_dim)
        parts = [part for part in (cross, deep) if part is not None]
        require(parts, "cross or deep must be given, got neither")
        width = in_dim if bottleneck is None else bottleneck
        for part in parts:
            require(
                part.in_dim == width,
                f"{type(part).__name__} must take what comes in, {width} wide, got {part.in_dim}",
            )
        self.in_dim, self.out_dim = in_dim, sum(part.out_dim for part in parts)
        self.parts = nn.ModuleList(cast(nn.Module, part) for part in parts)
        self.squeeze = (
            None
            if bottleneck is None
            else nn.Sequential(nn.Linear(in_dim, bottleneck), nn.LayerNorm(bottleneck))
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.squeeze is not None:
            x = self.squeeze(x)
        return torch.cat([part(x) for part in self.parts], dim=-1)

    def entry(self) -> tuple[Tensor, Tensor] | None:
        """What reads x at first as one map, (E, X) and (E,); None where a part begins otherwise.

        Who knows x in pieces (of a user, of an item) maps each piece once and adds the maps up.
        """
        if self.squeeze is not None:
            layers = [cast(nn.Linear, self.squeeze[0])]
        else:
            layers = [
                part.entry
                for part in self.parts
                if isinstance(part, Enterable) and one_class(type(part), "forward", "entered")
            ]
            if len(layers) < len(self.parts):
                return None
        weight = torch.cat([layer.weight.detach() for layer in layers])
        return weight, torch.cat([layer.bias.detach() for layer in layers])

    def entered(self, x: Tensor, first: Tensor) -> Tensor:
        """`forward(x)`, given first = W x + b, (…, E), of `entry`."""
        if self.squeeze is not None:
            z = self.squeeze[1](first)
            return torch.cat([part(z) for part in self.parts], dim=-1)
        parts = [cast(Enterable, part) for part in self.parts]
        each = torch.split(first, [part.entry.out_features for part in parts], dim=-1)
        return torch.cat([part.entered(x, one) for part, one in zip(parts, each, strict=True)], -1)


def one_class(kind: type, *names: str) -> bool:
    """Whether one class has defined these: who overrides `forward` alone enters as no one knows."""
    return len({next(k for k in kind.__mro__ if name in vars(k)) for name in names}) == 1

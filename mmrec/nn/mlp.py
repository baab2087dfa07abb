"""A stack of Linear → activation → dropout."""

from collections.abc import Callable, Sequence
from typing import cast

from torch import Tensor, nn

from mmrec.errors import positive, probability


class MLP(nn.Module):
    """h_{l+1} = dropout(activation(W_l h_l + b_l)) over (..., in_dim).

    Args:
        in_dim: width of the input.
        hidden: one width a layer.
        dropout: chance of dropping a unit after each layer.
        activation: makes the activation of each layer.
        out_dim: width of one more Linear with nothing behind it; None = none.

    >>> import torch
    >>> MLP(in_dim=5, hidden=(7, 3), dropout=0.1, out_dim=1)(torch.ones(2, 5)).shape
    torch.Size([2, 1])
    """

    def __init__(
        self,
        *,
        in_dim: int,
        hidden: Sequence[int],
        dropout: float = 0.0,
        activation: Callable[[], nn.Module] = nn.ReLU,
        out_dim: int | None = None,
    ) -> None:
        super().__init__()
        positive(in_dim=in_dim, **{f"hidden[{i}]": width for i, width in enumerate(hidden)})
        probability(dropout=dropout)
        layers: list[nn.Module] = []
        width = in_dim
        for size in hidden:
            layers += [nn.Linear(width, size), activation()]
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
            width = size
        if out_dim is not None:
            positive(out_dim=out_dim)
            layers.append(nn.Linear(width, out_dim))
            width = out_dim
        self.layers = nn.Sequential(*layers)
        self.in_dim, self.out_dim = in_dim, width

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.layers(x))

    @property
    def entry(self) -> nn.Linear:
        """The map that reads x at first."""
        return cast(nn.Linear, self.layers[0])

    def entered(self, x: Tensor, first: Tensor) -> Tensor:
        """`forward(x)`, given first = entry(x)."""
        for layer in list(self.layers)[1:]:  # a slice of a Sequential is a new module each time
            first = layer(first)
        return first

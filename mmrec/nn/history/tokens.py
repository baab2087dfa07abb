"""Which positions of a batch of histories are computed: all of them, or only the real items.

B rows, L history, T tokens (B · L, or the number of real items), W width.
"""

from typing import cast

import torch
from torch import Tensor

# Measured on an H100 (docs/measurements/gpu.md): at 1,024 rows of 100 positions a Transformer gains
# 1.5-fold and a narrow one loses 1.1-fold; at twice as many 1.7- and 1.3-fold; at 128 both lose.
MANY = 100_000


class Tokens:
    """Positions of a (B, L) batch as one list of T tokens.

    Args:
        valid: (B, L) bool, True = a real item.
        compact: keep the real items alone, where there is padding. Histories are mostly padding,
            so everything that works token by token gets cheaper by as much; finding them waits for
            the device (see `compact_here`).
    """

    def __init__(self, valid: Tensor, *, compact: bool) -> None:
        self.valid = valid
        self.batch, self.length = valid.shape
        self.place: Tensor | None = None
        if compact:
            place = valid.flatten().nonzero().squeeze(1)
            # Without padding there is nothing to leave out, and gathering all would only copy.
            self.place = None if len(place) == valid.numel() else place

    def take(self, padded: Tensor) -> Tensor:
        """(B, L, W) -> (T, W)."""
        flat = padded.reshape(self.batch * self.length, padded.shape[-1])
        return flat if self.place is None else flat.index_select(0, self.place)

    def repeat(self, rows: Tensor) -> Tensor:
        """(B, W) -> (T, W), each row once for every token of its own."""
        if self.place is None:
            return rows.unsqueeze(1).expand(-1, self.length, -1).reshape(-1, rows.shape[-1])
        return rows.index_select(0, self.place.div(self.length, rounding_mode="floor"))

    def spread(self, tokens: Tensor) -> Tensor:
        """(T, W) -> (B, L, W), zero at padding when compact, else whatever the token holds."""
        if self.place is not None:
            empty = tokens.new_zeros(self.batch * self.length, tokens.shape[-1])
            tokens = empty.index_copy(0, self.place, tokens)
        return tokens.view(self.batch, self.length, tokens.shape[-1])


def distinct(ids: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Ids (…) in 0 … size - 1 -> each of them once, ascending, and where each id stands in that.

    As `torch.unique` with its inverse, without sorting where the ids are many for their range.

    >>> distinct(torch.tensor([5, 2, 2, 9]), 10)
    (tensor([2, 5, 9]), tensor([1, 0, 0, 2]))
    """
    if size > 8 * ids.numel():
        return cast(tuple[Tensor, Tensor], torch.unique(ids, return_inverse=True))
    flat = ids.reshape(-1)
    there = torch.zeros(size, dtype=torch.int64, device=ids.device).index_fill_(0, flat, 1)
    place = (there.cumsum(0) - 1).index_select(0, flat).view(ids.shape)
    return there.nonzero().squeeze(1), place


def compact_here(choice: bool | None, tensor: Tensor) -> bool:
    """Resolve a flag whose None means: where it pays, by the (B, L) `tensor` of positions.

    That is on the CPU always, and elsewhere from `MANY` positions on, as finding what to leave out
    waits for the device. Never where the graph is recorded: what is left out depends on the batch
    at hand, and a trace or an export would leave it out for good.
    """
    if recorded():
        return False
    return tensor.device.type == "cpu" or tensor.numel() >= MANY if choice is None else choice


def recorded() -> bool:
    """Whether torch.compile, torch.export or torch.jit.trace is recording what runs."""
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None


def exported() -> bool:
    """Whether torch.export is recording a program, which must hold for batches of every size."""
    # Older releases do not tell it from torch.compile.
    ask = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    return bool(ask())


def first_filled(history: Tensor) -> int:
    """The first column of (B, L) that is not padding in every row; at most L - 1.

    >>> first_filled(torch.tensor([[0, 0, 0, 4], [0, 0, 3, 5]]))
    2
    """
    filled = (history != 0).any(0).nonzero()
    return int(filled[0]) if len(filled) else max(0, history.shape[1] - 1)

"""Mixed precision: autocast, and float16's loss scale kept wholly on the device."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from mmrec.errors import require

_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_precision(name: str, device: torch.device) -> torch.dtype:
    """ "auto": bfloat16 on CUDA where the card has it, else float16; float32 on the CPU."""
    if name == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    require(name in _TYPES, f"precision must be auto or one of {sorted(_TYPES)}, got {name!r}")
    require(
        name != "float16" or device.type == "cuda",
        f"float16 needs CUDA, got device {device}; try bfloat16",
    )
    return _TYPES[name]


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """The context a forward pass runs in; does nothing for float32."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype)


class LossScale(nn.Module):
    """The factor on the loss that keeps float16 gradients from vanishing; 1 for other types.

    Halved after an overflow, doubled after `patience` steps without one, by tensor operations
    alone: the host never waits for it.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device, *, patience: int = 2000) -> None:
        super().__init__()
        self.enabled = dtype == torch.float16
        self.patience = patience
        # The loss is summed over the batch, not averaged, so the usual 2**16 would overflow.
        self.scale = nn.Buffer(torch.tensor(2.0**10 if self.enabled else 1.0, device=device))
        self.streak = nn.Buffer(torch.zeros((), dtype=torch.int32, device=device))

    def update(self, overflow: Tensor) -> None:
        """`overflow` is 1.0 where the step just taken was skipped, else 0.0."""
        if self.enabled:
            torch._amp_update_scale_(self.scale, self.streak, overflow, 2.0, 0.5, self.patience)
            self.scale.clamp_(2.0**-14, 2.0**24)

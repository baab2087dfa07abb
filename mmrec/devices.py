"""Which device a name means."""

import torch

from mmrec.errors import InputError, require


def resolve_device(name: str | torch.device) -> torch.device:
    """ "auto" is the current CUDA device where there is one, else the CPU.

    Raises:
        InputError: CUDA was asked for and there is none, or the name is not that of a device here.
    """
    if name == "auto":
        name = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}") from error
    require(
        device.type != "cuda" or torch.cuda.is_available(),
        f"device {name} was asked for, but torch finds no CUDA device here",
    )
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        line = str(error).strip().splitlines()[0]
        raise InputError(f"device {str(name)!r} cannot be used: {line}") from None
    return device

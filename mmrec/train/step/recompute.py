"""Activation checkpointing: memory for time, chosen by module names."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from mmrec.errors import require


def matching_modules(model: nn.Module, patterns: Sequence[str]) -> list[nn.Module]:
    """The modules whose names match a pattern (`fnmatch`); of nested ones the outermost.

    Raises:
        InputError: a pattern matches no module.
    """
    found: dict[str, nn.Module] = {}
    unused = set(patterns)
    for name, module in model.named_modules():  # a module comes before what it holds
        matched = {pattern for pattern in patterns if fnmatchcase(name, pattern)}
        unused -= matched
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if name and matched and not inside:
            found[name] = module
    require(not unused, f"no module of the model matches {sorted(unused)}")
    return list(found.values())


@contextmanager
def recomputing(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, the forward pass of each module keeps its inputs alone.

    What lies between is computed again in the backward pass, with the same dropout. Only calls
    are changed, and only inside: names, weights and evaluation stay as they are.
    """
    before = [module.__dict__.get("forward") for module in modules]
    for module in modules:
        module.__dict__["forward"] = partial(checkpoint, module.forward, use_reentrant=False)
    try:
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            if own is None:
                del module.__dict__["forward"]
            else:
                module.__dict__["forward"] = own

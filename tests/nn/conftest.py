"""Shared by the layer tests: comparison in float64, and modules with every parameter moved."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn


@pytest.fixture
def stirred() -> Callable[[nn.Module], nn.Module]:
    """A module in float64 and evaluation mode whose every parameter is random.

    Zero-initialised biases would hide a forgotten one.
    """

    def stir(module: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(7)
        module = module.double().eval()
        with torch.no_grad():
            for parameter in module.parameters():
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.copy_(0.5 * noise)
        return module

    return stir

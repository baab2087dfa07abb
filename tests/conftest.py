"""Shared by all tests: the scalar reference code importable, one torch thread, fixed seeds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path[:0] = [str(Path(__file__).parent / "helpers"), str(Path(__file__).parent)]


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)

"""What a caller may rely on, whatever was called in between."""

from __future__ import annotations

import os
import random
import signal
import warnings
from typing import Any

import numpy as np
import torch


def world() -> dict[str, Any]:
    """What a caller may rely on."""
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),  # noqa: NPY002
        "python": random.getstate(),
        "threads": torch.get_num_threads(),
        "handlers": [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)],
        "warnings": list(warnings.filters),
        "grad": torch.is_grad_enabled(),
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }

"""Where the host waits for the device: refused on CUDA, told from the operations on a CPU."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmrec.nn.item_encoder import ItemEncoder

# Operations that hand a value, or a size that depends on values, to the host. `lift_fresh` is a
# tensor made of Python numbers, which on CUDA would be copied from memory that is not pinned.
WAITS = [
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "equal",
    "is_nonzero",
    "repeat_interleave",
    "lift_fresh",
]
INDEXED = ("index", "index_put", "index_put_", "_index_put_impl_")


class _Refuse(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func._schema.name.removeprefix("aten::")
        masked = name in INDEXED and any(
            place is not None and place.dtype == torch.bool for place in args[1]
        )
        if name in WAITS or masked:
            raise AssertionError(f"{name} waits for the device")
        return func(*args, **(kwargs or {}))


@contextmanager
def no_waiting(device: torch.device) -> Iterator[None]:
    """Inside, an operation that would make the host wait raises."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says that it may not see all of them
            torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return
    # Ids are looked at on the CPU alone.
    with mock.patch.object(ItemEncoder, "check", return_value=None), _Refuse():
        yield

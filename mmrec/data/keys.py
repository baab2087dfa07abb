"""Whose vectors these are, and what made them: keys of items, and what an embedding left beside.

N items with the padding.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mmrec.errors import InputError
from mmrec.io.identity import EMBEDDED
from mmrec.io.parquet import Column, Ints, first_repeat


class Keys:
    """Keys of some items, as they come, and at the end in the order of ids."""

    def __init__(self) -> None:
        self._ids: list[Ints] = []
        self._keys: list[pa.Array] = []

    def add(self, items: Ints, column: Column) -> None:
        """Take in rows of these items; what stands beside the padding is left out."""
        real = items > 0
        nothing = column.array.is_null().to_numpy(zero_copy_only=False)
        column.refuse_where(real & nothing, "every item has a key")
        kind = pa.int64() if pa.types.is_integer(column.array.type) else pa.large_string()
        self._ids.append(items[real])
        self._keys.append(column.array.filter(pa.array(real)).cast(kind))

    def of_items(self, path: Path, name: str) -> pa.Array:
        """(N,), row 0 of which stands for nothing."""
        keys = pa.concat_arrays(self._keys)
        order = np.argsort(np.concatenate(self._ids))
        nothing = pa.array([0 if pa.types.is_integer(keys.type) else ""], keys.type)
        again = first_repeat(np.asarray(keys.to_numpy(zero_copy_only=False)))
        if again is not None:
            raise InputError(
                f"each key stands for one item, got {keys[again]} twice in {path}, column {name}"
            )
        return pa.concat_arrays([nothing, keys.take(pa.array(order))])


def read_origin(features: Path, modalities: Iterable[str]) -> dict[str, Any] | None:
    """What an embedding's folder says of these modalities' encoders and of captions.

    None where it says nothing.

    Vectors of another precision are the same up to rounding.
    """
    try:
        made = json.loads((features / EMBEDDED).read_text())
        encoders = {
            modality: {
                name: value
                for name, value in made["encoders"][modality].items()
                if name != "precision"
            }
            for modality in sorted(modalities)
        }
        return {"encoders": encoders, "captions": made["captions"], "several": made["several"]}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None

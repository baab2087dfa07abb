"""Values of one split looked for in another: users, pairs of user and item, whole rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrec.audit.scan.chunk import Chunk
from mmrec.audit.scan.sample import pair_keys

Array = NDArray[Any]
Ints = NDArray[np.int64]


@dataclass
class Watch:
    """What of an evaluation split train is searched for, and what of it was found."""

    users: Ints
    pairs: NDArray[np.uint64]
    keys: NDArray[np.uint64]
    user_found: NDArray[np.bool_]
    pair_found: NDArray[np.bool_]
    key_found: NDArray[np.bool_]

    @classmethod
    def of(cls, sample: dict[str, Array]) -> Watch:
        """Watch for the users, (user, item) pairs and whole rows of a sample."""
        sought = [
            np.unique(sample["user"]),
            np.unique(pair_keys(sample["user"], sample["item"])),
            np.unique(sample["key"]),
        ]
        return cls(*sought, *(np.zeros(len(values), dtype=np.bool_) for values in sought))

    def look(self, chunk: Chunk, keys: NDArray[np.uint64]) -> None:
        """Note which of the watched values stand in these rows."""
        known = _find(self.users, chunk.user, self.user_found)
        if known.any():
            pairs = pair_keys(chunk.user[known], chunk.target[known])
            _find(self.pairs, pairs, self.pair_found)
            _find(self.keys, keys[known], self.key_found)


def _find(sought: Array, values: Array, found: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if not len(sought):
        return np.zeros(len(values), dtype=np.bool_)
    place = np.minimum(np.searchsorted(sought, values), len(sought) - 1)
    match: NDArray[np.bool_] = sought[place] == values
    found[place[match]] = True
    return match

"""Which items a ranker has vectors for, by their own names, and what their features were.

It travels in the checkpoint. Next: `carry.py`, which moves rows of tables by it.

N items of the catalogue at hand, M of a former one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from mmrec.errors import require
from mmrec.models.sketch import HasFeatures, share_unlike, sketch
from mmrec.nn.categorical import mixed
from mmrec.schema import ABSENT

PREFIX = "catalogue."  # of its names in a ranker's state
IDLE = "idle_"  # of its names of what has not been shown lately
SKETCH = "sketch_"  # of its names of the modalities' sketches
# Share of items whose vectors may be others. A shop changes pictures; where the encoder is known to
# be the same, many may. Where it is not, they are what tells it from others.
CHANGED_BY_SAME_ENCODER, CHANGED = 0.1, 0.01


class CatalogueLike(HasFeatures, Protocol):
    """What a catalogue asks of an item table: `mmrec.data.items.ItemTable`."""

    @property
    def keys(self) -> pa.Array | None: ...
    @property
    def tags(self) -> Tensor: ...
    @property
    def categorical(self) -> Tensor: ...
    @property
    def numeric(self) -> Tensor: ...
    @property
    def widths(self) -> tuple[int, ...]: ...


class Catalogue(nn.Module):
    """Keys of N items and a sketch of each one's vectors, as buffers; row 0 is the padding.

    Args:
        keys: (N,) integers or strings; None = ids are the keys, and then `rows` tells whether they
            still stand for the same items.
        rows: (N,) int64, a hash of each item's tags, categories and numbers.
        sketch: modality -> (N,), see `mmrec.models.sketch`.
        trained: (N,) bool, the items that training has shown.
        idle: name -> (K,) how many trainings ago each of K users or values was last shown; what is
            not told was shown by the last.
    """

    rows: Tensor
    trained: Tensor

    def __init__(
        self,
        *,
        keys: pa.Array | None,
        rows: Tensor,
        sketch: Mapping[str, Tensor],
        trained: Tensor,
        idle: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        for name, trainings in (idle or {}).items():
            self.register_buffer(IDLE + name, trainings)
        for name, cosines in sketch.items():
            self.register_buffer(SKETCH + name, cosines)
        self.register_buffer("rows", rows)
        self.register_buffer("trained", trained)
        for name, tensor in _packed(keys).items():
            self.register_buffer(name, tensor)

    @classmethod
    def of(
        cls,
        items: CatalogueLike,
        trained: Tensor | None = None,
        idle: Mapping[str, Tensor] | None = None,
    ) -> Catalogue:
        """Of an item table; `trained` None = training shows all."""
        every = torch.ones(len(items.tags), dtype=torch.bool)
        return cls(
            keys=items.keys,
            rows=hashed_rows(items),
            sketch=sketch(items),
            trained=every if trained is None else trained.cpu().clone(),
            idle=idle,
        )

    @classmethod
    def of_state(cls, state: Mapping[str, Tensor]) -> Catalogue | None:
        """From a ranker's state; None where it was built without one."""
        own = {k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)}
        if not own:
            return None
        return cls(
            keys=_unpacked(own),
            rows=own["rows"],
            trained=own["trained"],
            sketch=_named(SKETCH, own),
            idle=_named(IDLE, own),
        )

    def __len__(self) -> int:
        return len(self.rows)

    def digest(self) -> str:
        """Of keys and rows: equal where ids stand for the same items."""
        found = hashlib.sha256()
        for name, buffer in self.named_buffers():
            if name != "trained" and not name.startswith((IDLE, SKETCH)):
                found.update(buffer.cpu().numpy().tobytes())
        return found.hexdigest()

    @property
    def idle(self) -> dict[str, Tensor]:
        """See the class."""
        return _named(IDLE, dict(self.named_buffers()))

    @property
    def sketch(self) -> dict[str, Tensor]:
        """See the class."""
        return _named(SKETCH, dict(self.named_buffers()))

    @property
    def keys(self) -> pa.Array | None:
        """(N,) keys; None = ids."""
        return _unpacked(dict(self.named_buffers()))

    def places_in(self, former: Catalogue) -> Tensor:
        """(N,) the row that each item had in a former catalogue, -1 = none; padding stays.

        Raises:
            InputError: keys of another kind; without keys, ids that stand for other items.
        """
        own, known = self.keys, former.keys
        if known is None:
            return self._grown(former)
        require(
            own is not None and own.type == known.type,
            "a catalogue is matched by the keys that the ranker was trained with, "
            f"{_kind(known)}, got {_kind(own)}: name their column in the schema (items.key)",
        )
        found = pc.index_in(cast(pa.Array, own)[1:], value_set=known[1:])
        places = torch.from_numpy(pc.fill_null(found, -2).to_numpy().astype(np.int64)) + 1
        return torch.cat([torch.zeros(1, dtype=torch.int64), places])

    def _grown(self, former: Catalogue) -> Tensor:
        """Ids are the keys: the same items, and perhaps more at the end."""
        shown = min(len(self), len(former))
        unlike = (self.rows[:shown] != former.rows[:shown]).nonzero().flatten()
        remedy = "name a column of keys in the schema (items.key) and train again"
        require(
            len(self) >= len(former),
            "without keys a catalogue may only grow at its end, the ranker was trained on items up "
            f"to {len(former) - 1}, got items up to {len(self) - 1}: {remedy}",
        )
        require(
            not len(unlike),
            "without keys a catalogue may only grow at its end, and item "
            f"{int(unlike[0]) if len(unlike) else 0} has other tags, categories or numbers than "
            f"the ranker was trained on: {remedy}",
        )
        places = torch.arange(len(self))
        return torch.where(places < len(former), places, -1)

    def check_vectors(self, former: Catalogue, places: Tensor, *, same_encoder: bool) -> None:
        """Require that items which the former training showed have the vectors of then.

        Args:
            places: see `places_in`.
            same_encoder: both are known to come from the same one.
        """
        now, then = sorted(self.sketch), sorted(former.sketch)
        require(
            now or not then,
            f"no features were given; the ranker was trained on those of {', '.join(then)}: give "
            "the same (--features)",
        )
        require(
            now == then,
            "the items' vectors are not those that the ranker was trained on, of "
            f"{', '.join(then) or 'no modality'}, got those of {', '.join(now) or 'none'}: name "
            "the columns of the same modalities in the schema (items.modalities)",
        )
        share = self.share_of_other_vectors(former, places)
        require(
            share <= (CHANGED_BY_SAME_ENCODER if same_encoder else CHANGED),
            "the items' vectors are not those that the ranker was trained on, "
            f"{share:.1%} of these items have others: give the features of the same encoder (of "
            "a two-stage run, its fused vectors, or what they were made from)",
        )

    def shows(self, former: Catalogue, places: Tensor) -> bool:
        """Whether an item here was shown by the former training."""
        return bool(((places > 0) & former.trained[places.clamp(min=0)]).any())

    def share_of_other_vectors(self, former: Catalogue, places: Tensor) -> float:
        """Of the items here that the former training showed, in modalities of both."""
        kept = (places > 0) & former.trained[places.clamp(min=0)]
        own, known = self.sketch, former.sketch
        both = own.keys() & known.keys()
        if not both:
            return float(bool(own or known))
        return share_unlike(
            {name: known[name][places[kept]] for name in both},
            {name: own[name][kept] for name in both},
        )


def hashed_rows(items: CatalogueLike) -> Tensor:
    """(N,) int64: a hash of each item's tags, categories and numbers, whatever the padding."""
    total = torch.zeros(len(items.tags), dtype=torch.int64)
    columns = [(items.tags, 0)]
    columns += [(part, ABSENT) for part in torch.split(items.categorical, list(items.widths), 1)]
    for number, (values, absent) in enumerate(columns):
        width = values.shape[1]
        for place in range(width):  # from the right, where lists begin to be filled
            value = values[:, width - 1 - place].cpu()
            salted = mixed(value + mixed(torch.tensor(1000 * number + place)))
            total += torch.where(value == absent, 0, salted)
    for number, column in enumerate(items.numeric.cpu().unbind(1)):
        bits = torch.where(column.isnan(), 0.0, column).view(torch.int32).long()
        bits = torch.where(column.isnan(), 1 << 40, bits)
        total += mixed(bits + mixed(torch.tensor(-1 - number)))
    return total


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What stands under names with this prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _kind(keys: pa.Array | None) -> str:
    return "none" if keys is None else "integers" if pa.types.is_integer(keys.type) else "strings"


def _packed(keys: pa.Array | None) -> dict[str, Tensor]:
    """Integers as they are; strings as their bytes and where each ends."""
    if keys is None:
        return {}
    if pa.types.is_integer(keys.type):
        return {"numbers": torch.from_numpy(keys.cast(pa.int64()).to_numpy().copy())}
    # Taken anew, since a slice's buffers are those of the whole.
    strings = keys.cast(pa.large_string()).take(pa.array(np.arange(len(keys))))
    _, ends, text = strings.buffers()
    ends = np.frombuffer(ends, np.int64)[: len(keys) + 1].copy()
    text = np.frombuffer(text, np.uint8)[: ends[-1]].copy() if ends[-1] else np.zeros(0, np.uint8)
    return {"ends": torch.from_numpy(ends), "text": torch.from_numpy(text)}


def _unpacked(tensors: Mapping[str, Tensor]) -> pa.Array | None:
    if "numbers" in tensors:
        return pa.array(tensors["numbers"].cpu().numpy())
    if "ends" not in tensors:
        return None
    ends, text = (pa.py_buffer(tensors[name].cpu().numpy()) for name in ("ends", "text"))
    return pa.LargeStringArray.from_buffers(len(tensors["ends"]) - 1, ends, text)

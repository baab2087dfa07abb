"""Items that no training has seen, by their vectors and tags.

An item encoder without its items comes in; what goes out is one over the new items, for `rows.py`.

n new items, D_m width of a modality.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import cast

import torch
from torch import Tensor, nn

from mmrec.errors import require
from mmrec.nn.features import FrozenFeatures
from mmrec.nn.item_encoder import ItemEncoder
from mmrec.nn.twin import twin
from mmrec.schema import ABSENT


class Newcomers:
    """A copy of an encoder's trained parts, without its tables of items."""

    def __init__(self, items: ItemEncoder) -> None:
        nobody = {name: (_raw(features)[:1], None) for name, features in _features(items).items()}
        self._encoder = copy.deepcopy(_over(items, nobody, rows=1))

    @property
    def widths(self) -> dict[str, int]:
        """Modality -> width of its vectors."""
        found = _features(self._encoder)
        return {name: _raw(features).shape[1] for name, features in found.items()}

    def encoder(
        self, vectors: Mapping[str, Tensor], tags: Sequence[Sequence[int]] | None = None
    ) -> ItemEncoder:
        """Over the padding and n items without id, categories and numbers of their own.

        Args:
            vectors: modality -> (n, D_m); a row of NaN alone is an item without that modality, as
                are all of a modality that is left out.
            tags: of each item; None = no item has any.

        Raises:
            InputError: another modality, width or tag, or numbers that are not finite.
        """
        widths, sizes = self.widths, {name: len(value) for name, value in vectors.items()}
        unknown = sorted(set(vectors) - set(widths))
        require(not unknown, f"modalities are {', '.join(widths)}, got {', '.join(unknown)}")
        require(
            len(set(sizes.values())) == 1,
            f"new items need vectors, of each modality as many, got {sizes or 'none'}",
        )
        rows = 1 + next(iter(sizes.values()))
        table = self._tags([()] * (rows - 1) if tags is None else tags, rows)
        found = {}
        for name, width in widths.items():
            given = vectors.get(name, torch.full((rows - 1, width), torch.nan))
            require(
                given.ndim == 2 and given.shape[1] == width,
                f"vectors of {name} must be (n, {width}), got {tuple(given.shape)}",
            )
            nothing = given.isnan().all(1)
            require(
                (given.isfinite().all(1) | nothing).all(),
                f"vectors of {name} must be finite, or NaN throughout where an item has none",
            )
            filled = torch.where(nothing.unsqueeze(1), 0, given)
            there = torch.cat([torch.zeros(1, dtype=torch.bool), ~nothing.cpu()])
            found[name] = torch.cat([filled.new_zeros(1, width), filled]), there
        return _over(self._encoder, found, rows=rows, tags=table)

    def _tags(self, tags: Sequence[Sequence[int]], rows: int) -> Tensor:
        """(1 + n, G), the padding first."""
        require(
            len(tags) == rows - 1,
            f"tags are a list of each of the {rows - 1} new items, got {len(tags)} of them",
        )
        size = 0 if self._encoder.tag is None else self._encoder.tag.num_embeddings
        for row, some in enumerate(tags):
            bad = [tag for tag in some if not isinstance(tag, Integral) or not 0 < tag < size]
            require(not bad, f"tags lie in 1 … {size - 1}, new item {row} has {bad[:1]}")
        table = torch.zeros(rows, max([1, *map(len, tags)]), dtype=torch.int64)
        for row, some in enumerate(tags, start=1):
            table[row, : len(some)] = torch.tensor(list(some), dtype=torch.int64)
        return table


def _over(
    items: ItemEncoder,
    vectors: Mapping[str, tuple[Tensor, Tensor | None]],
    *,
    rows: int,
    tags: Tensor | None = None,
) -> ItemEncoder:
    """A twin over items of which vectors and tags are all that is known; None = nobody has any."""
    other = twin(items)
    other.num_items = rows
    tags = items.tags.new_zeros(rows, 1) if tags is None else tags.to(items.tags)
    nobody = torch.zeros(rows, dtype=torch.bool, device=tags.device)
    _replace(other, tags=tags)
    if items.categorical is not None:
        shape = rows, items.categories.shape[1]
        other.categories = torch.full(shape, ABSENT, device=items.tags.device)
    if items.numeric is not None:
        other.numbers = torch.full_like(items.numbers[:1].expand(rows, -1), torch.nan)
    if items.ids is not None:
        # The learned unknown stands in for these, and where there is none, zero.
        nothing = items.ids.weight.detach()[:1].mul(0).expand(rows, -1).clone()
        other.ids = nn.Embedding(rows, nothing.shape[1], padding_idx=0, _weight=nothing)
    if items.known is not None:
        _replace(other, known=nobody)
    if items.tag_sets is not None:
        other.tag_sets = items.tag_sets.over(tags)
    modalities = twin(items.modalities)
    for name, features in _features(items).items():
        raw, there = vectors[name]
        there = torch.zeros(rows, dtype=torch.bool) if there is None else there
        modalities[name] = features.over(raw, there)
    other.modalities = modalities
    return other


def _replace(module: nn.Module, **buffers: Tensor) -> None:
    for name, value in buffers.items():
        setattr(module, name, value)


def _features(items: ItemEncoder) -> dict[str, FrozenFeatures]:
    return {name: cast(FrozenFeatures, one) for name, one in items.modalities.items()}


def _raw(features: FrozenFeatures) -> Tensor:
    return features.vectors if features.pca is None else features.raw

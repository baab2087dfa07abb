"""What a ranker is told of its data: vocabularies, moments, known users and items.

Made from the training rows' counts, or again from what a checkpoint holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mmrec.models.catalogue import Catalogue, CatalogueLike
from mmrec.models.sketch import HasFeatures
from mmrec.nn.categorical import Vocabulary
from mmrec.schema import ABSENT, Categorical, Schema


class ItemTableLike(HasFeatures, Protocol):
    """What a ranker needs of an item table; row 0 is padding."""

    @property
    def tags(self) -> Tensor: ...
    @property
    def categorical(self) -> Tensor: ...
    @property
    def numeric(self) -> Tensor: ...
    @property
    def widths(self) -> tuple[int, ...]: ...
    @property
    def num_tags(self) -> int: ...


class OriginalItems(ItemTableLike, CatalogueLike, Protocol):
    """An item table as it was read: with keys, and what its features were made by."""

    @property
    def origin(self) -> Mapping[str, Any] | None: ...
    def with_vectors(
        self, vectors: Tensor, origin: Mapping[str, Any] | None = None
    ) -> OriginalItems: ...


class DataLike(Protocol):
    """An opened data set: `mmrec.data.clicks.ClickData`."""

    @property
    def schema(self) -> Schema: ...
    @property
    def widths(self) -> Mapping[str, int]: ...


class CountsLike(Protocol):
    """What the training rows show: `mmrec.data.counts.ClickCounts`."""

    @property
    def values(self) -> Mapping[str, Any]: ...
    @property
    def moments(self) -> Mapping[str, Any]: ...
    @property
    def known_items(self) -> Tensor: ...


@dataclass(frozen=True)
class Numbers:
    """Mean and standard deviation of each numeric column."""

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclass(frozen=True)
class Inputs:
    """One value for each role that a ranker reads.

    Attributes:
        schema: what the columns are called; None where there is no data set.
        tasks: names of the labels.
        categorical, numeric: of the row.
        history_categorical, history_numeric: of each history item.
        item_categorical, item_numeric: of an item.
        features: what the items' vectors were made by, where an embedding says so.
        catalogue: which items there are; None = ids are all that is known of them.
        start: digest of the checkpoint whose training goes on; None = from scratch.
        known_users: user ids of train; None = users are told apart by their histories alone.
        known_items: (N,) bool, items that train shows; None = all.
    """

    schema: Schema | None = None
    tasks: tuple[str, ...] = ("label",)
    categorical: tuple[Vocabulary, ...] = ()
    numeric: Numbers = Numbers()
    history_categorical: tuple[Vocabulary, ...] = ()
    history_numeric: Numbers = Numbers()
    item_categorical: tuple[Vocabulary, ...] = ()
    item_numeric: Numbers = Numbers()
    features: Mapping[str, Any] | None = None
    catalogue: Catalogue | None = None
    start: str | None = None
    known_users: Tensor | None = None
    known_items: Tensor | None = None

    @classmethod
    def of(
        cls,
        data: DataLike,
        counts: CountsLike,
        items: OriginalItems,
        *,
        known_users: Tensor | None = None,
    ) -> Inputs:
        """As the training rows show them.

        Args:
            data: an opened data set.
            counts: of its training rows.
            items: what items are; their values and moments are those of the items that train shows.
        """
        schema, clicks, places = data.schema, data.schema.clicks, data.widths

        def vocabularies(columns: Sequence[Categorical], listed: bool) -> tuple[Vocabulary, ...]:
            return tuple(
                _vocabulary(
                    c,
                    counts.values[c.name].known(c.min_count),
                    places.get(c.name, 1) if listed else 1,
                )
                for c in columns
            )

        def numbers(names: Sequence[str]) -> Numbers:
            moments = [counts.moments[name] for name in names]
            return Numbers(tuple(m.mean for m in moments), tuple(m.std for m in moments))

        known = counts.known_items
        return cls(
            schema=schema,
            tasks=clicks.labels,
            categorical=vocabularies(clicks.categorical, True),
            numeric=numbers(clicks.numeric),
            history_categorical=vocabularies(clicks.history_categorical, False),
            history_numeric=numbers(clicks.history_numeric),
            item_categorical=_of_items(schema.items.categorical, items, known),
            item_numeric=_moments(items.numeric[known]),
            features=items.origin,
            catalogue=Catalogue.of(items, known),
            known_users=known_users,
            known_items=known,
        )

    def sizes(self) -> dict[str, Any]:
        """What a checkpoint's JSON needs, so that its tensors can be taken in."""
        return {
            "schema": None if self.schema is None else self.schema.to_dict(),
            "tasks": list(self.tasks),
            "features": self.features,
            "catalogue": None if self.catalogue is None else self.catalogue.digest(),
            "start": self.start,
            "numeric": [
                len(self.numeric.mean),
                len(self.history_numeric.mean),
                len(self.item_numeric.mean),
            ],
            **{
                role: [[len(v.known), v.hash_size, v.places] for v in getattr(self, role)]
                for role in ("categorical", "history_categorical", "item_categorical")
            },
        }

    @classmethod
    def restored(
        cls,
        sizes: Mapping[str, Any],
        *,
        known_users: Tensor | None,
        widths: Mapping[str, int] | None = None,
        item_widths: Sequence[int] = (),
    ) -> Inputs:
        """From `sizes`, with values that the checkpoint's tensors then take the place of.

        Args:
            widths, item_widths: the longest lists of the data at hand, where they are not those
                of training; no weight depends on them.
        """
        schema = None if sizes["schema"] is None else Schema.from_dict(sizes["schema"])
        names = [c.name for c in schema.clicks.categorical] if schema is not None else []
        here = {"categorical": [(widths or {}).get(name) for name in names]}
        here["item_categorical"] = list(item_widths)

        def vocabularies(role: str) -> tuple[Vocabulary, ...]:
            own = here.get(role) or [None] * len(sizes[role])
            return tuple(
                Vocabulary(torch.arange(known), hash_size, now or places)
                for (known, hash_size, places), now in zip(sizes[role], own, strict=True)
            )

        own, history, item = (Numbers((0.0,) * n, (1.0,) * n) for n in sizes["numeric"])
        return cls(
            schema=schema,
            tasks=tuple(sizes["tasks"]),
            categorical=vocabularies("categorical"),
            numeric=own,
            history_categorical=vocabularies("history_categorical"),
            history_numeric=history,
            item_categorical=vocabularies("item_categorical"),
            item_numeric=item,
            known_users=known_users,
        )


def _vocabulary(column: Categorical, known: Any, places: int) -> Vocabulary:
    values = torch.as_tensor(np.asarray(known, dtype=np.int64))
    return Vocabulary(values if column.hash_size is None else values[:0], column.hash_size, places)


def _of_items(
    columns: Sequence[Categorical], items: ItemTableLike, known: Tensor
) -> tuple[Vocabulary, ...]:
    found = []
    parts = torch.split(items.categorical[known], list(items.widths), dim=1) if columns else ()
    for column, part in zip(columns, parts, strict=True):
        values, counts = np.unique(part[part != ABSENT].numpy(), return_counts=True)
        found.append(_vocabulary(column, values[counts >= column.min_count], part.shape[1]))
    return tuple(found)


def _moments(values: Tensor) -> Numbers:
    """Of the columns of (N, F), NaN left out; 0 and 1 where there is nothing, or nothing varies."""
    there = ~values.isnan()
    count = there.sum(0).clamp(min=1)
    filled = torch.where(there, values, 0).double()
    mean = filled.sum(0) / count
    square = torch.where(there, (filled - mean).square(), 0).sum(0)
    std = (square / count).sqrt()
    std = torch.where(std > 1e-12 * mean.abs().clamp(min=1), std, 1)
    return Numbers(tuple(mean.tolist()), tuple(std.tolist()))

"""Categories to vectors: any number of columns in one table, also values never seen in training.

… any leading dims, C columns, P places (a column of lists has several), V table rows, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from mmrec.errors import InputError, positive
from mmrec.nn.search import place_in
from mmrec.nn.users import EMBEDDING_STD

ABSENT = -(2**63)  # no value; the same number as in `mmrec.schema`
_LEAST, _MOST = -(2**63), 2**63 - 1  # of int64
_DENSE = 4  # a column is looked up directly where its values span at most that times their number


@dataclass(frozen=True)
class Vocabulary:
    """What is known of one column.

    Attributes:
        known: (K,) int64, ascending: values with a vector of their own. Empty with `hash_size`.
        hash_size: values are spread over so many vectors instead.
        places: how many values a row holds at most.
    """

    known: Tensor
    hash_size: int | None = None
    places: int = 1

    def __len__(self) -> int:
        """Vectors of the column, without the one of unknown values."""
        return len(self.known) if self.hash_size is None else self.hash_size


class CategoricalEncoder(nn.Module):
    """e_c = table[offset_c + place_c(v)], the mean of them where a column holds several values.

    One table for all columns: its rows of column c are the unknown value, then each known one. The
    unknown row starts at zero; values that training has not seen, or too rarely, read it. With
    `hash_size` a value's row is its hash (splitmix64) modulo that.

    Args:
        columns: what is known of each.
        dim: D.
        total: add the columns' vectors up (… , D) instead of putting them side by side (…, C · D).

    The known values are part of the state; in a new model their number must be right.

    >>> hours = Vocabulary(torch.tensor([0, 9, 18]))
    >>> encoder = CategoricalEncoder(columns=[hours], dim=2)
    >>> encoder(torch.tensor([[9], [7]])).shape, encoder(torch.tensor([[7]])).tolist()
    (torch.Size([2, 2]), [[0.0, 0.0]])
    """

    known: Tensor
    _lookup: Tensor
    _low: Tensor
    _high: Tensor
    _shift: Tensor
    _column: Tensor

    def __init__(self, *, columns: Sequence[Vocabulary], dim: int, total: bool = False) -> None:
        super().__init__()
        positive(dim=dim)
        if not columns:
            raise InputError("an encoder of categories needs a column, got none")
        self.sizes = [len(column.known) for column in columns]
        self.hashes = [column.hash_size for column in columns]
        self.places = [column.places for column in columns]
        self.total, self.dim = total, dim
        self.out_dim = dim if total else dim * len(columns)
        self.register_buffer("known", torch.cat([column.known.long() for column in columns]))
        rows, places = torch.tensor([1 + len(column) for column in columns]), self._repeats()
        first = rows.cumsum(0) - rows
        self.table = nn.Embedding(int(rows.sum()), dim)
        nn.init.normal_(self.table.weight, std=EMBEDDING_STD)
        with torch.no_grad():
            self.table.weight[first] = 0
        self._first: list[int] = first.tolist()
        self._keep("_column", torch.arange(len(columns)).repeat_interleave(places))
        self._index()
        self.register_load_state_dict_post_hook(_index_again)  # type: ignore[no-untyped-call]

    def _repeats(self) -> Tensor:
        return torch.tensor(self.places)

    def _keep(self, name: str, value: Tensor) -> None:
        """A buffer that follows from the others."""
        self.register_buffer(name, value.to(self.known.device), persistent=False)

    def _index(self) -> None:
        """Where each known value stands: by direct lookup where values lie close together."""
        lookups, low, high, shift, self.sparse = [], [], [], [], []
        begin = 0
        for column, known in enumerate(torch.split(self.known.cpu(), self.sizes)):
            first = int(known[0]) if len(known) else 0
            width = int(known[-1]) - first + 1 if len(known) else 0
            dense = 0 < width <= _DENSE * len(known) + 1024
            # One place on either side, for all that is lower or higher.
            lookup = torch.zeros(2 + (width if dense else 0), dtype=torch.int64)
            if dense:
                lookup[1 + known - first] = torch.arange(1, len(known) + 1)
            elif self.hashes[column] is not None or len(known):
                self.sparse.append(column)
            lookups.append(lookup + self._first[column])
            low.append(max(first - 1, _LEAST))
            high.append(min(first + len(lookup) - 2, _MOST))
            # Modulo 2^64, as the sum that it goes into.
            shift.append((begin + 1 - first - _LEAST) % 2**64 + _LEAST)
            begin += len(lookup)
        self._keep("_lookup", torch.cat(lookups))
        for name, values in (("_low", low), ("_high", high), ("_shift", shift)):
            self._keep(name, torch.tensor(values).repeat_interleave(self._repeats()))

    def forward(self, values: Tensor) -> Tensor:
        """values (…, P) int64 -> (…, out_dim)."""
        places = len(self._column)
        if values.shape[-1] != places:
            raise InputError(f"categories must hold {places} places, got {values.shape[-1]}")
        vectors = cast(Tensor, self.table(self.rows(values)))  # (…, P, D)
        if places > len(self.places):
            vectors = self._means(vectors, values != ABSENT)
        return vectors.sum(-2) if self.total and places > 1 else vectors.flatten(-2)

    def rows(self, values: Tensor) -> Tensor:
        """(…, P) rows of the table."""
        place = torch.minimum(torch.maximum(values, self._low), self._high) + self._shift
        rows = self._lookup.take(place)  # indexing takes several times as long for a few
        return self._search(values, rows) if self.sparse else rows

    def _search(self, values: Tensor, rows: Tensor) -> Tensor:
        """Rows, with those of columns whose values lie far apart, or are hashed."""
        parts = list(torch.split(rows, self.places, dim=-1))
        known = torch.split(self.known, self.sizes)
        given = torch.split(values, self.places, dim=-1)
        for column in self.sparse:
            own = given[column]
            size = self.hashes[column]
            if size is not None:
                parts[column] = self._first[column] + 1 + mixed(own) % size
                continue
            found = place_in(known[column], own)
            place = torch.where(known[column][found] == own, found + 1, 0)
            parts[column] = self._first[column] + place
        return torch.cat(parts, dim=-1)

    def _means(self, vectors: Tensor, there: Tensor) -> Tensor:
        """(…, P, D) -> (…, C, D), over the values that are there; a row without any is unknown."""
        weight = there.to(vectors.dtype)
        shape = (*vectors.shape[:-2], len(self.places), vectors.shape[-1])
        total = vectors.new_zeros(shape).index_add(-2, self._column, vectors * weight.unsqueeze(-1))
        count = weight.new_zeros(shape[:-1]).index_add(-1, self._column, weight)
        means: Tensor = total / count.clamp(min=1).unsqueeze(-1)
        return means


def mixed(values: Tensor) -> Tensor:
    """splitmix64 of int64 values as bits, without the sign bit; as `mmrec.io.hashing.mix64`."""
    values = values + (0x9E3779B97F4A7C15 - 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values = (values ^ _shifted(values, shift)) * (factor - 2**64)
    return (values ^ _shifted(values, 31)) & (2**63 - 1)


def _shifted(values: Tensor, bits: int) -> Tensor:
    """A right shift of the bits, zeros coming in (`>>` would repeat the sign)."""
    return cast(Tensor, (values >> bits) & (2 ** (64 - bits) - 1))


def _index_again(module: nn.Module, _: Any) -> None:
    cast(CategoricalEncoder, module)._index()

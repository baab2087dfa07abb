"""Frozen vectors of items, one modality at a time, as fusions and similarities take them.

N items, … any leading dims, X width of the vectors, W width that goes out, B rows, L history.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmrec.errors import InputError, not_negative, positive, require
from mmrec.nn.categorical import mixed
from mmrec.nn.fusion.pca import PCA
from mmrec.nn.twin import twin


class FrozenFeatures(nn.Module):
    """ids (…) -> z (…, W), present (…): z = (x - mean) / std, or its principal components.

    A linear map of what never changes is computed once: with `components` the items' own are kept,
    (N, W) as directions and lengths, instead of being made of X numbers at every use.

    Args:
        vectors: (N, X), kept as float16.
        present: (N,) bool.
        shown: (N,) bool, the items that moments and components are of; None = all.
        standardize: mean and std are of each dimension over those items; else 0 and 1.
        components: W, at most X; 0 = the vectors themselves, W = X.
        estimate: whether components are estimated here. False where a checkpoint brings them.

    The vectors are no part of a checkpoint (the data holds them); moments and components are.
    """

    vectors: Tensor
    unit: Tensor
    length: Tensor

    def __init__(
        self,
        *,
        vectors: Tensor,
        present: Tensor,
        shown: Tensor | None = None,
        standardize: bool = False,
        components: int = 0,
        estimate: bool = True,
    ) -> None:
        super().__init__()
        not_negative(components=components)
        # A module starts on the CPU, wherever its data lie; `.to(device)` moves all of it.
        raw = vectors.cpu().to(torch.float16)
        self.present = nn.Buffer(present.cpu().clone(), persistent=False)
        _require_finite(raw, self.present)
        rows = self.present if shown is None else self.present & shown.cpu()
        self.moments = nn.Buffer(_moments(raw, rows, standardize))
        width = min(components, raw.shape[1])
        self.out_dim, self.pca = width or raw.shape[1], None
        if not width:
            self.register_buffer("vectors", raw, persistent=False)
            return
        self.raw = raw
        self.pca = PCA(in_dim=raw.shape[1], out_dim=width)
        for name, shape in (("unit", (len(raw), width)), ("length", (len(raw),))):
            self.register_buffer(name, torch.zeros(shape), persistent=False)
        if estimate:
            self._estimate(self.pca, rows)
        self.register_load_state_dict_post_hook(_compress_again)  # type: ignore[no-untyped-call]

    def _estimate(self, pca: PCA, rows: Tensor) -> None:
        some = rows.nonzero().flatten()
        if len(some) > 1:
            pca.estimate(_scaled(self.raw[some], self.moments))
        else:  # nobody has this modality
            pca.components.zero_()
            pca.look()
        self._compress(pca)

    @torch.no_grad()
    def _compress(self, pca: PCA) -> None:
        """Fill `unit` and `length` with the components of all items."""
        moments, step = self.moments.cpu(), 8192
        mean, axes = pca.mean.cpu(), pca.components.cpu()
        for at in range(0, len(self.raw), step):
            scaled = _scaled(self.raw[at : at + step], moments)
            there = self.present[at : at + step].cpu().unsqueeze(1)
            found = torch.where(there, (scaled - mean) @ axes, 0.0)
            length = torch.linalg.vector_norm(found, dim=1)
            self.length[at : at + step] = length
            self.unit[at : at + step] = found / length.clamp(min=1e-12).unsqueeze(1)

    def over(self, vectors: Tensor, present: Tensor) -> FrozenFeatures:
        """The same map over other items: vectors (N', X), present (N',) bool."""
        other = twin(self)
        other.register_buffer("present", present.to(self.present.device), persistent=False)
        raw = vectors.to("cpu", torch.float16)
        if self.pca is None:
            other.vectors = raw.to(self.vectors.device)
            return other
        other.raw, rows = raw, len(raw)
        other.unit = self.unit.new_zeros(rows, self.out_dim)
        other.length = self.length.new_zeros(rows)
        other._compress(self.pca)
        return other

    @property
    def item_buffers(self) -> tuple[str, ...]:
        """Names of the buffers that hold a row an item."""
        return ("vectors", "present") if self.pca is None else ("unit", "length", "present")

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        if self.pca is None:
            return _scaled(of_rows(self.vectors, ids), self.moments), of_rows(self.present, ids)
        self._check()
        vectors = F.embedding(ids, self.unit) * of_rows(self.length, ids).unsqueeze(-1)
        return vectors, of_rows(self.present, ids)

    def cosine(self, history: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """history (B, L), target (B,) ids -> cosine of components (B, L), both there (B, L)."""
        self._check()
        return _cosine(self.unit, self.present, history, target)

    def _check(self) -> None:
        require(
            self.pca is not None and self.pca.estimated,
            "similarities need components, estimated or loaded from a checkpoint, there are none",
        )


class TagSets(nn.Module):
    """Items as the sets of their tags, whose cosine is |A ∩ B| / √(|A| |B|).

    Tags from `width` on share places with others, each with a sign by its hash, so that the cosine
    is right on average (arXiv:0902.2206).

    Args:
        tags: (N, G) int64, 0 = no tag.
    """

    def __init__(self, *, tags: Tensor, width: int = 64) -> None:
        super().__init__()
        positive(width=width)
        unit, present = _tag_vectors(tags.cpu(), min(width, int(tags.max()) + 1))
        self.unit = nn.Buffer(unit, persistent=False)
        self.present = nn.Buffer(present, persistent=False)

    item_buffers = ("unit", "present")

    def over(self, tags: Tensor) -> TagSets:
        """The same places over other items, (n, G)."""
        other = twin(self)
        unit, present = _tag_vectors(tags.cpu(), self.unit.shape[1])
        other.unit = nn.Buffer(unit.to(self.unit), persistent=False)
        other.present = nn.Buffer(present.to(self.present.device), persistent=False)
        return other

    def cosine(self, history: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """See `FrozenFeatures.cosine`."""
        return _cosine(self.unit, self.present, history, target)


def _tag_vectors(tags: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """(N, width) unit vectors, and (N,) which items have tags."""
    hashed, exact = mixed(tags), tags < width
    place = torch.where(exact, tags, hashed % width)
    sign = torch.where(exact, 1.0, 1.0 - 2.0 * (hashed // width % 2)) * (tags > 0)
    table = torch.zeros(len(tags), width).scatter_add(1, place, sign)
    return F.normalize(table, dim=1), (tags > 0).any(1)


def of_rows(table: Tensor, ids: Tensor) -> Tensor:
    """table[ids], several times as fast on a CPU."""
    return table.index_select(0, ids.reshape(-1)).view(*ids.shape, *table.shape[1:])


def _cosine(
    unit: Tensor, present: Tensor, history: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    product = (F.embedding(history, unit) * F.embedding(target, unit).unsqueeze(1)).sum(-1)
    return product, of_rows(present, history) & of_rows(present, target).unsqueeze(1)


def _compress_again(module: FrozenFeatures, _: object) -> None:
    if module.pca is not None and module.pca.estimated:
        module._compress(module.pca)


def _require_finite(x: Tensor, present: Tensor) -> None:
    """Raise where a present row of (N, X) holds NaN or infinity, a slice of rows at a time."""
    for at in range(0, len(x) if x.shape[1] else 0, 65536):
        # The largest of a row is NaN where one is: a quarter of the time of asking each number.
        largest = x[at : at + 65536].abs().amax(dim=1)
        bad = present[at : at + 65536] & ~largest.isfinite()
        if bad.any():
            row = at + int(bad.nonzero()[0])
            raise InputError(
                "vectors that are present hold finite numbers up to 65504 (float16), got NaN or "
                f"more in row {row}: mark it absent"
            )


def _moments(x: Tensor, present: Tensor, standardize: bool) -> Tensor:
    """(2, X) float32: mean and 1/std over present rows; 0 and 1 without `standardize`."""
    moments = torch.stack([torch.zeros(x.shape[1]), torch.ones(x.shape[1])])
    rows = x[present].float()
    if standardize and len(rows) > 1:
        std = rows.std(0, unbiased=False)
        # A dimension that never varies carries nothing: it becomes 0, not noise blown up.
        moments[0] = rows.mean(0)
        moments[1] = torch.where(std > 1e-6, 1 / std.clamp(min=1e-6), 0.0)
    return moments


def _scaled(x: Tensor, moments: Tensor) -> Tensor:
    """(x - mean) / std in one pass over x, which may be half as wide as the result."""
    return torch.addcmul(-moments[0] * moments[1], x, moments[1])

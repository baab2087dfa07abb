"""Item ids to item vectors: id ‖ tags ‖ categories ‖ numbers ‖ content.

N items, … any leading dims, G tags an item, Di image width, Dt text width.
"""

from typing import cast

import torch
from torch import Tensor, nn

from mmrec.errors import InputError, not_negative, probability, require
from mmrec.nn.categorical import CategoricalEncoder
from mmrec.nn.fusion.base import EstimatedFusion, Fusion
from mmrec.nn.fusion.modality_dropout import drop_modality
from mmrec.nn.numeric import NumericEncoder
from mmrec.nn.tokens import recorded
from mmrec.nn.users import EMBEDDING_STD


class ItemEncoder(nn.Module):
    """ids (...) int64 -> [id embedding; mean of tag embeddings; categories; numbers; fusion].

    Args:
        tags: (N, G) int64, 0 = no tag.
        image, text: (N, Di), (N, Dt) frozen features; kept as float16, cast on use.
        has_image, has_text: (N,) bool.
        num_tags: size of the tag vocabulary, 0 included; None = read from `tags`.
        id_dim, tag_dim: widths; 0 leaves the part out.
        categorical, numeric: (N, P) int64 and (N, F) float32 of each item, with the encoders
            that read them; None = there are none.
        fusion: of image and text; None leaves content out.
        unknown: the model has a learned vector for items without an id of their own.
        id_dropout: in training, the chance that an item's id is replaced by that vector, so that
            content learns to speak for items never seen. Needs `unknown`.
        known: (N,) bool, the items that training shows. All others always use that vector, never
            the random one they started with, where there is `unknown`. None = all are known.
            Moments and estimates are of these, and tags of no such item start at zero.
        modality_dropout: in training, the chance that an item loses one of two present modalities
            (image or text, evenly), so that the model does not break where one is missing.
        standardize: features become (x - mean) / std, both per dimension over the present rows.
        estimate: a fusion that is estimated rather than trained (principal components, codes) and
            is not yet, is estimated on the known items. False where a checkpoint brings the
            estimate.

    The features are no part of a checkpoint (the data holds them); mean, std and `known` are.
    """

    categories: Tensor
    numbers: Tensor

    def __init__(
        self,
        *,
        tags: Tensor,
        image: Tensor,
        text: Tensor,
        has_image: Tensor,
        has_text: Tensor,
        num_tags: int | None = None,
        id_dim: int = 64,
        tag_dim: int = 64,
        categorical: tuple[Tensor, CategoricalEncoder] | None = None,
        numeric: tuple[Tensor, NumericEncoder] | None = None,
        fusion: Fusion | None = None,
        unknown: bool = False,
        id_dropout: float = 0.0,
        known: Tensor | None = None,
        modality_dropout: float = 0.0,
        standardize: bool = False,
        estimate: bool = True,
    ) -> None:
        super().__init__()
        not_negative(id_dim=id_dim, tag_dim=tag_dim)
        probability(id_dropout=id_dropout, modality_dropout=modality_dropout)
        _check_tables(2, len(tags), tags=tags, image=image, text=text)
        _check_tables(1, len(tags), has_image=has_image, has_text=has_text, known=known)
        require(
            (unknown and id_dim) or id_dropout == 0,
            "items that lose their id need unknown=True and an id_dim of at least 1",
        )
        self.num_items = len(tags)
        self.id_dropout, self.modality_dropout = id_dropout, modality_dropout
        self.content_dim = 0 if fusion is None else fusion.out_dim
        self.categorical = None if categorical is None else categorical[1]
        self.numeric = None if numeric is None else cast(nn.Module, numeric[1])
        own = [part[1].out_dim for part in (categorical, numeric) if part is not None]
        self.out_dim = id_dim + tag_dim + sum(own) + self.content_dim
        require(self.out_dim, "an item needs an id_dim, a tag_dim or a fusion, got none of them")
        for name, part in (("categories", categorical), ("numbers", numeric)):
            table = None if part is None else part[0].cpu().clone()
            self.register_buffer(name, table, persistent=False)

        # A module starts on the CPU, wherever its data lie; `.to(device)` moves all of it.
        self.tags = nn.Buffer(tags.cpu().clone(), persistent=False)
        self.has_image = nn.Buffer(has_image.cpu().clone(), persistent=False)
        self.has_text = nn.Buffer(has_text.cpu().clone(), persistent=False)
        self.image = nn.Buffer(image.cpu().to(torch.float16), persistent=False)
        self.text = nn.Buffer(text.cpu().to(torch.float16), persistent=False)
        shown = torch.ones(len(tags), dtype=torch.bool) if known is None else known.cpu()
        self.image_moments = nn.Buffer(_moments(self.image, self.has_image & shown, standardize))
        self.text_moments = nn.Buffer(_moments(self.text, self.has_text & shown, standardize))

        self.ids = nn.Embedding(self.num_items, id_dim, padding_idx=0) if id_dim else None
        self.unknown = nn.Parameter(torch.randn(id_dim) * EMBEDDING_STD) if unknown else None
        self.known = nn.Buffer(shown.clone()) if unknown else None
        size = int(tags.max()) + 1 if num_tags is None else num_tags
        self.tag = (
            nn.EmbeddingBag(max(size, 1), tag_dim, mode="mean", padding_idx=0) if tag_dim else None
        )
        for embedding in (self.ids, self.tag):
            if embedding is not None:
                nn.init.normal_(embedding.weight, std=EMBEDDING_STD)
                with torch.no_grad():
                    embedding.weight[0].zero_()
        if self.tag is not None:
            unseen = torch.ones(len(self.tag.weight), dtype=torch.bool)
            unseen[self.tags[shown].flatten()] = False
            with torch.no_grad():
                self.tag.weight[unseen] = 0
        # Registered last, so that content comes last in the vector and in the parameter order.
        self.fusion = cast("nn.Module | None", fusion)
        if estimate and isinstance(fusion, EstimatedFusion) and not fusion.estimated:
            rows = shown.nonzero().flatten()
            fusion.estimate(*self.features(rows[rows > 0]))

    def item_tables(self) -> list[nn.Embedding]:
        """The embeddings that hold a row an item (see `mmrec.analysis.HasItemTables`)."""
        return [] if self.ids is None else [self.ids]

    def item_starts(self) -> list[nn.Parameter | None]:
        """For each of `item_tables`, the vector of items without a row of their own; None = 0."""
        return [] if self.ids is None else [self.unknown]

    def tag_tables(self) -> list[nn.EmbeddingBag]:
        """The embeddings that hold a row a tag."""
        return [] if self.tag is None else [self.tag]

    def forward(self, ids: Tensor) -> Tensor:
        """ids (...) int64 -> (..., out_dim).

        Raises:
            InputError: an id outside 0 … N - 1. Looked for on the CPU alone: a GPU would have to
                be waited for, and stops with an assertion of its own.
        """
        self._check(ids)
        parts = []
        if self.ids is not None:
            parts.append(self._id_vector(ids))
        if self.tag is not None:
            bags = self.tags[ids.reshape(-1)]
            vectors = self.tag(bags)
            parts.append(vectors.view(*ids.shape, vectors.shape[-1]))
        if self.categorical is not None:
            parts.append(self.categorical(self.categories[ids]))
        if self.numeric is not None:
            parts.append(self.numeric(self.numbers[ids]))
        if self.fusion is not None:
            parts.append(self._content(ids))
        return torch.cat(parts, dim=-1)

    def content(self, ids: Tensor) -> Tensor:
        """The fused vectors alone: ids (...) -> (..., content_dim)."""
        self._check(ids)
        return self._content(ids)

    def _content(self, ids: Tensor) -> Tensor:
        if self.fusion is None:
            raise InputError("content needs a fusion, and this item encoder has none")
        image, text, has_image, has_text = self.features(ids)
        if self.training and self.modality_dropout > 0:
            has_image, has_text = drop_modality(has_image, has_text, self.modality_dropout)
        return cast(Tensor, self.fusion(image, text, has_image, has_text))

    def features(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """image (..., Di), text (..., Dt), has_image (...), has_text (...), ready for a fusion."""
        image = _scaled(self.image[ids], self.image_moments)
        text = _scaled(self.text[ids], self.text_moments)
        return image, text, self.has_image[ids], self.has_text[ids]

    @torch.no_grad()
    def content_table(self, *, rows: int = 8192) -> Tensor:
        """(N, content_dim) float32 on the CPU: every item's fused vector, as in evaluation."""
        before = self.training
        self.eval()
        try:
            every = torch.arange(self.num_items, device=self.tags.device)
            return torch.cat(
                [self.content(some).float().cpu() for some in torch.split(every, rows)]
            )
        finally:
            self.train(before)

    def _check(self, ids: Tensor) -> None:
        if ids.device.type != "cpu" or not ids.numel() or recorded():
            return
        low, high = (int(end) for end in ids.aminmax())
        if low < 0 or high >= self.num_items:
            raise InputError(
                f"item ids lie in 0 … {self.num_items - 1}, got {low if low < 0 else high}"
            )

    def _id_vector(self, ids: Tensor) -> Tensor:
        vector = cast(Tensor, cast(nn.Embedding, self.ids)(ids))
        if self.unknown is None:
            return vector
        own = cast(Tensor, self.known)[ids]
        if self.training and self.id_dropout > 0:
            own = own & (torch.rand(ids.shape, device=ids.device) >= self.id_dropout)
        return torch.where(own.unsqueeze(-1), vector, self.unknown)


def _moments(x: Tensor, present: Tensor, standardize: bool) -> Tensor:
    """(2, W) float32: mean and 1/std over present rows; 0 and 1 without `standardize`."""
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


def _check_tables(ndim: int, rows: int, **tables: Tensor | None) -> None:
    """Raise unless each table that is there has so many dims, and one row per item."""
    for name, table in tables.items():
        shape = (rows,) * ndim if table is None else tuple(table.shape)
        require(
            len(shape) == ndim and shape[0] == rows,
            f"{name} must have {ndim} dims and one row for each of the {rows} items, "
            f"got shape {shape}",
        )

"""Item ids to item vectors: id ‖ tags ‖ categories ‖ numbers ‖ content.

N items, … any leading dims, G tags an item, D_m width of modality m.
"""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from mmrec.errors import InputError, modality_names, not_negative, positive, probability, require
from mmrec.nn.categorical import CategoricalEncoder
from mmrec.nn.features import FrozenFeatures, TagSets, of_rows
from mmrec.nn.fusion.base import ConditionedFusion, EstimatedFusion, Fusion, Present, Vectors
from mmrec.nn.fusion.modality_dropout import drop_modality
from mmrec.nn.history.tokens import recorded
from mmrec.nn.numeric import NumericEncoder
from mmrec.nn.users import EMBEDDING_STD


class ItemEncoder(nn.Module):
    """ids (...) int64 -> [id embedding; mean of tag embeddings; categories; numbers; fusion].

    Args:
        tags: (N, G) int64, 0 = no tag.
        vectors: name of a modality -> (N, D_m) frozen features; kept as float16, cast on use.
        present: the same names -> (N,) bool.
        num_tags: size of the tag vocabulary, 0 included; None = read from `tags`.
        id_dim, tag_dim: widths; 0 leaves the part out.
        categorical, numeric: (N, P) int64 and (N, F) float32 of each item, with the encoders
            that read them; None = there are none.
        fusion: of the modalities; None leaves content out.
        unknown: the model has a learned vector for items without an id of their own.
        id_dropout: in training, the chance that an item's id is replaced by that vector, so that
            content learns to speak for items never seen. Needs `unknown`.
        known: (N,) bool, the items that training shows. All others always use that vector, never
            the random one they started with, where there is `unknown`. None = all are known.
            Moments and estimates are of these, and tags of no such item start at zero.
        modality_dropout: in training, the chance that an item loses one of several present
            modalities, so that the model does not break where one is missing.
        standardize, components: see `FrozenFeatures`; a fusion takes what comes out of it.
        content_width: a trained linear map brings the fused vector to that width; None = no map,
            which is what a conditioned fusion needs.
        similar_tags: whether tags are a space of `similarities`.
        estimate: what is estimated rather than trained (components, and a fusion of components or
            codes) is estimated on the known items. False where a checkpoint brings it.

    The features are no part of a checkpoint (the data holds them); mean, std and `known` are.
    """

    categories: Tensor
    numbers: Tensor

    def __init__(
        self,
        *,
        tags: Tensor,
        vectors: Vectors,
        present: Present,
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
        components: int = 0,
        content_width: int | None = None,
        similar_tags: bool = True,
        estimate: bool = True,
    ) -> None:
        super().__init__()
        not_negative(id_dim=id_dim, tag_dim=tag_dim)
        probability(id_dropout=id_dropout, modality_dropout=modality_dropout)
        modality_names(vectors)
        require(
            set(vectors) == set(present),
            f"vectors and presence are of the same modalities, got {', '.join(vectors) or 'none'} "
            f"and {', '.join(present) or 'none'}",
        )
        _check_tables(
            2, len(tags), {"tags": tags} | {f"{m} vectors": x for m, x in vectors.items()}
        )
        masks = {f"presence of {name}": mask for name, mask in present.items()}
        _check_tables(1, len(tags), masks | {"known": known})
        for name, mask in masks.items():
            require(mask.dtype == torch.bool, f"{name} must be bool, got {mask.dtype}")
        require(
            (unknown and id_dim) or id_dropout == 0,
            "items that lose their id need unknown=True and an id_dim of at least 1",
        )
        self.num_items = len(tags)
        self.id_dropout, self.modality_dropout = id_dropout, modality_dropout
        self.fused_dim = self.content_dim = 0 if fusion is None else fusion.out_dim
        if fusion is not None and content_width is not None:
            positive(content_width=content_width)
            require(
                not isinstance(fusion, ConditionedFusion),
                f"{type(fusion).__name__} changes the fused vector of the target by its row, so no "
                f"map may come between: content_width must be None, got {content_width}",
            )
            self.content_dim = content_width
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
        shown = torch.ones(len(tags), dtype=torch.bool) if known is None else known.cpu()
        self.modalities = nn.ModuleDict(
            {
                name: FrozenFeatures(
                    vectors=vectors[name],
                    present=present[name],
                    shown=shown,
                    standardize=standardize,
                    components=components,
                    estimate=estimate,
                )
                for name in sorted(vectors)
            }
        )
        self.tag_sets = TagSets(tags=tags) if similar_tags else None

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
        narrow = fusion is not None and content_width is not None
        self.narrow = nn.Linear(self.fused_dim, self.content_dim) if narrow else None
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

    def forward(self, ids: Tensor, *, content: bool = True) -> Tensor:
        """ids (...) int64 -> (..., out_dim); without the last `content_dim` if not `content`.

        Raises:
            InputError: an id outside 0 … N - 1. Looked for on the CPU alone: a GPU would have to
                be waited for, and stops with an assertion of its own.
        """
        self.check(ids)
        parts = []
        if self.ids is not None:
            parts.append(self._id_vector(ids))
        if self.tag is not None:
            bags = self.tags.index_select(0, ids.reshape(-1))
            vectors = self.tag(bags)
            parts.append(vectors.view(*ids.shape, vectors.shape[-1]))
        if self.categorical is not None:
            parts.append(self.categorical(of_rows(self.categories, ids)))
        if self.numeric is not None:
            parts.append(self.numeric(of_rows(self.numbers, ids)))
        if self.fusion is not None and content:
            fused = self._content(ids)
            parts.append(fused if self.narrow is None else self.narrow(fused))
        if not parts:
            return self.tags.new_zeros((*ids.shape, 0), dtype=torch.float32)
        return torch.cat(parts, dim=-1)

    def similarities(self, history: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """history (B, L), target (B,) -> cosine (B, M, L), both there (B, M, L).

        The M spaces are those of `spaces`. Nothing in them is trained.
        """
        found = [space.cosine(history, target) for space in self.spaces]
        cosines, there = zip(*found, strict=True)
        return torch.stack(cosines, dim=1), torch.stack(there, dim=1)

    @property
    def spaces(self) -> list[FrozenFeatures | TagSets]:
        """Where items are alike or not: modalities with components, if there is a fusion; tags."""
        features = [cast(FrozenFeatures, m) for m in self.modalities.values()]
        kept = [m for m in features if m.pca is not None and self.fusion is not None]
        return [*kept, *([] if self.tag_sets is None else [self.tag_sets])]

    def content(self, ids: Tensor) -> Tensor:
        """The fused vectors alone: ids (...) -> (..., fused_dim)."""
        self.check(ids)
        return self._content(ids)

    def _content(self, ids: Tensor) -> Tensor:
        if self.fusion is None:
            raise InputError("content needs a fusion, and this item encoder has none")
        vectors, present = self.features(ids)
        if self.training and self.modality_dropout > 0:
            present = drop_modality(present, self.modality_dropout)
        return cast(Tensor, self.fusion(vectors, present))

    def features(self, ids: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Vectors (..., D_m) and presence (...) by name of the modality, ready for a fusion."""
        found = {name: part(ids) for name, part in self.modalities.items()}
        return {m: pair[0] for m, pair in found.items()}, {m: pair[1] for m, pair in found.items()}

    @torch.no_grad()
    def content_table(self, *, rows: int = 8192) -> Tensor:
        """(N, fused_dim) float32 on the CPU: every item's fused vector, as in evaluation."""
        before = self.training
        self.eval()
        try:
            every = torch.arange(self.num_items, device=self.tags.device)
            return torch.cat(
                [self.content(some).float().cpu() for some in torch.split(every, rows)]
            )
        finally:
            self.train(before)

    def check(self, ids: Tensor) -> None:
        """Raise unless all are ids of items; on a CPU alone."""
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
        own = of_rows(cast(Tensor, self.known), ids)
        if self.training and self.id_dropout > 0:
            own = own & (torch.rand(ids.shape, device=ids.device) >= self.id_dropout)
        return torch.where(own.unsqueeze(-1), vector, self.unknown)


def _check_tables(ndim: int, rows: int, tables: Mapping[str, Tensor | None]) -> None:
    """Raise unless each table that is there has so many dims, and one row per item."""
    for name, table in tables.items():
        shape = (rows,) * ndim if table is None else tuple(table.shape)
        require(
            len(shape) == ndim and shape[0] == rows,
            f"{name} must have {ndim} dims and one row for each of the {rows} items, "
            f"got shape {shape}",
        )

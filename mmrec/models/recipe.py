"""A recipe: everything that makes a ranker, as plain data. Next: `recipes.py`, `build.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from mmrec.config import TrainConfig
from mmrec.errors import finite, not_negative, positive, probability, require
from mmrec.io.plain import changed, to_plain
from mmrec.nn.part import Part


@dataclass(frozen=True)
class ItemsRecipe:
    """How an item becomes a vector: id ‖ tags ‖ content. A width of 0 leaves the part out.

    Attributes:
        id_dim, tag_dim, content_dim: widths.
        categorical_dim: width of each categorical column of the items.
        numeric: encoder of the numeric columns of the items, as for those of the rows.
        fusion: of the modalities, a name in `mmrec.nn.FUSIONS`; None = no content.
        content_width: what the fused vector is brought to inside the ranker; None = as it is.
        components: width to which the frozen vectors of each modality are brought by principal
            components before the fusion; 0 = they go in as they are.
        pretrain_epochs: the fusion is trained so long before the ranker and without clicks, and
            the ranker takes its vectors as they are (two stages); 0 = it is trained on clicks.
        standardize, unknown_id, id_dropout, modality_dropout: see `ItemEncoder`.
        alignment: weight of the InfoNCE that pulls ids and content together.
    """

    id_dim: int = 16
    tag_dim: int = 8
    categorical_dim: int = 8
    numeric: Part | None = field(default_factory=partial(Part, "linear"))
    content_dim: int = 128
    content_width: int | None = None
    components: int = 0
    fusion: Part | None = field(default_factory=partial(Part, "attention"))
    pretrain_epochs: int = 0
    standardize: bool = True
    unknown_id: bool = True
    id_dropout: float = 0.1
    modality_dropout: float = 0.0
    alignment: float = 0.0

    def __post_init__(self) -> None:
        not_negative(id_dim=self.id_dim, tag_dim=self.tag_dim, content_dim=self.content_dim)
        not_negative(components=self.components)
        not_negative(categorical_dim=self.categorical_dim, pretrain_epochs=self.pretrain_epochs)
        probability(id_dropout=self.id_dropout, modality_dropout=self.modality_dropout)
        finite(alignment=self.alignment)
        require(
            self.fusion is None or self.content_dim >= 1,
            "items.content_dim must be at least 1 where there is an items.fusion, got 0: leave "
            "the content out by items.fusion=none",
        )


@dataclass(frozen=True)
class HistoryRecipe:
    """How a history and a target become one vector.

    Attributes:
        encoder: a name in `mmrec.models.SEQUENCES`; "none" ranks without the history.
        newest: items of a history that are read; None = all.
        encoded: how many of these, the newest, the encoder reads; None = all. What compares frozen
            content is cheap, and reads all.
        features: whether what is known of the moment of each history item is added to its vector.
        content: whether the history items' vectors hold their content.
        tiers: similarity tiers of the frozen features (`SimTier`); 0 = none.
        affinity: heads of signed target attention in each space of `ItemEncoder.similarities`
            (`Affinity`); 0 = none. Signs are the values of the history's categories whose schema
            gives a `limit` of at most 8, all but the first.
        similar_tags: whether tags are one of these spaces.
        recency: horizons over which the shares of the same signs are taken, the newest items first
            in weight (`Recency`); 0 = none.
    """

    encoder: Part = field(default_factory=partial(Part, "mean"))
    newest: int | None = 30
    encoded: int | None = None
    features: bool = True
    content: bool = True
    tiers: int = 0
    affinity: int = 0
    similar_tags: bool = True
    recency: int = 0

    def __post_init__(self) -> None:
        not_negative(tiers=self.tiers, affinity=self.affinity, recency=self.recency)


@dataclass(frozen=True)
class InteractionRecipe:
    """Crosses beside an MLP, and the head that reads both.

    Attributes:
        bottleneck: width that both see; None = all of it.
        cross: a name in `mmrec.models.CROSSES`; None = no crosses.
        mlp: hidden widths; empty = no MLP.
        dropout: of the MLP.
        head: hidden widths before the logit.
    """

    bottleneck: int | None = None
    cross: Part | None = field(default_factory=partial(Part, "full", {"depth": 2}))
    mlp: tuple[int, ...] = (128, 64)
    dropout: float = 0.2
    head: tuple[int, ...] = (32,)


@dataclass(frozen=True)
class ContextRecipe:
    """What else is known of a row.

    Attributes:
        dim: width of each categorical column's embedding; 0 leaves the columns out.
        numeric: encoder of the numeric columns, a name in `mmrec.models.NUMBERS`; None leaves
            them out.
        user_dim: width of a user's vector, where the ids of users are known; 0 = none.
        user_dropout: chance, in training, that a user counts as unknown.
        wide: biases of items and users, added to the logit.
    """

    dim: int = 8
    numeric: Part | None = field(default_factory=partial(Part, "linear"))
    user_dim: int = 16
    user_dropout: float = 0.1
    wide: bool = True


@dataclass(frozen=True)
class Recipe:
    """A ranker and its training. A variant: `recipe.changed({"items.fusion": "gmu"})`.

    As plain data for JSON, and back: `mmrec.io.plain.to_plain` and `from_plain`.

    Attributes:
        batch_size: rows of a global batch; None = the largest that the device takes.
    """

    items: ItemsRecipe = field(default_factory=ItemsRecipe)
    history: HistoryRecipe = field(default_factory=HistoryRecipe)
    interaction: InteractionRecipe = field(default_factory=InteractionRecipe)
    context: ContextRecipe = field(default_factory=ContextRecipe)
    training: TrainConfig = field(default_factory=TrainConfig)
    batch_size: int | None = 512

    def __post_init__(self) -> None:
        if self.batch_size is not None:
            positive(batch_size=self.batch_size)

    def changed(self, settings: Mapping[str, Any]) -> Recipe:
        """A copy with other values under dotted names; see `mmrec.io.plain.changed`."""
        return changed(self, settings)

    @property
    def two_stage(self) -> bool:
        """Whether a fusion is to be trained before the ranker."""
        return self.items.fusion is not None and self.items.pretrain_epochs > 0

    @property
    def ready_vectors(self) -> bool:
        """Whether it is a second stage, whose content is fused already."""
        return self.items.fusion is not None and self.items.fusion.name == "precomputed"

    def with_ready_vectors(self) -> Recipe:
        """The second stage: an item's fused vector is taken as it is."""
        ready = Part("precomputed", {"learn_absent": False})
        return self.changed(
            {"items.fusion": ready, "items.pretrain_epochs": 0, "items.components": 0}
        )

    def with_fused_width(self, width: int) -> Recipe:
        """The fusion gives `width`; inside the ranker the content stays as wide as it was."""
        items = self.items
        inner = items.content_dim if items.content_width is None else items.content_width
        return self.changed(
            {"items.content_dim": width, "items.content_width": None if inner == width else inner}
        )

    def without_content(self) -> Recipe:
        """The same ranker with ids and tags alone."""
        return self.changed(
            {
                "items.fusion": None,
                "items.alignment": 0.0,
                "items.modality_dropout": 0.0,
                "items.content_width": None,
                "history.tiers": 0,
            }
        )

    def binding(self) -> dict[str, Any]:
        """What a checkpoint stores to build the ranker again; `fit` compares it on a resume.

        The training's settings are compared by `fit` itself, those of speed not at all.
        """
        names = ("items", "history", "interaction", "context")
        return {name: to_plain(getattr(self, name)) for name in names}

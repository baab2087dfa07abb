"""Recipes: all sizes of a ranker as plain data, and the functions that build one from it.

Names become modules here and nowhere deeper.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from mmrec.errors import InputError
from mmrec.models.parts import ContentAlignment, Wide
from mmrec.models.ranker import Ranker, input_dim
from mmrec.nn.cross import CrossNetLowRank, CrossNetMix, CrossNetV2
from mmrec.nn.fusion.registry import build_fusion
from mmrec.nn.interaction import CrossAndDeep, Interaction
from mmrec.nn.item_encoder import ItemEncoder
from mmrec.nn.mlp import MLP
from mmrec.nn.sequence import (
    DINAttention,
    MeanPool,
    NoHistory,
    ParallelSequences,
    ReluAttention,
    SequenceEncoder,
)
from mmrec.nn.simtier import SimTier
from mmrec.nn.transformer import TargetTransformer
from mmrec.nn.users import UserEncoder, UserIndex


class ItemTableLike(Protocol):
    """What a ranker needs of an item table; row 0 is padding."""

    @property
    def tags(self) -> Tensor: ...
    @property
    def image(self) -> Tensor: ...
    @property
    def text(self) -> Tensor: ...
    @property
    def has_image(self) -> Tensor: ...
    @property
    def has_text(self) -> Tensor: ...
    @property
    def num_tags(self) -> int: ...


@dataclass(frozen=True)
class Recipe:
    """All sizes of a ranker. A variant is `dataclasses.replace(recipe, ...)`.

    Widths of 0 leave a part out: `id_dim=0` is content only, `fusion="none"` is no content,
    `sequence="none"` is target only.
    """

    id_dim: int = 16
    tag_dim: int = 8
    content_dim: int = 128
    fusion: str = "attention"  # a name in mmrec.nn.FUSIONS, or "none"
    fusion_options: Mapping[str, Any] = field(default_factory=dict)
    standardize: bool = True
    unknown_id: bool = True
    id_dropout: float = 0.1
    modality_dropout: float = 0.0
    alignment: float = 0.0  # weight of the id-content InfoNCE
    tiers: int = 0

    sequence: str = "transformer+mean"  # a name in SEQUENCES
    newest: int | None = 30  # items of a history that are read; None = all
    layers: int = 1
    heads: int = 2
    ff_dim: int = 64
    sequence_dropout: float = 0.2
    pre_norm: bool = False
    last: int = 0
    pool: bool = True
    positions: int = 0
    width: int | None = 64

    cross: str = "full"  # full, low_rank, mix, none
    cross_depth: int = 2
    cross_rank: int = 32
    cross_experts: int = 4
    bottleneck: int | None = None
    mlp: tuple[int, ...] = (128, 64)
    mlp_dropout: float = 0.2
    head: tuple[int, ...] = (32,)

    context_sizes: tuple[int, ...] = (11, 11)
    context_dim: int = 8
    user_dim: int = 16  # used where the ids of users are known
    user_dropout: float = 0.1
    wide: bool = True

    deduplicate: bool | None = None
    compact: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts, numbers and strings, for JSON."""
        values = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Back from `to_dict`; a name that no recipe has is an `InputError`."""
        known = {f.name for f in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise InputError(f"a recipe holds {', '.join(sorted(known))}; got {name!r}")
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**plain)


def reference() -> Recipe:
    """The challenge winner's widths: 267,882,497 parameters on its 91,718 items and 11,740 tags.

    Its content is a ready 128-d vector an item, which stands in the image's place.
    """
    return Recipe(
        id_dim=64,
        tag_dim=64,
        content_dim=128,
        fusion="precomputed",
        fusion_options={"learn_absent": False},
        standardize=False,
        unknown_id=False,
        id_dropout=0.0,
        sequence="transformer",
        layers=2,
        heads=1,
        ff_dim=256,
        newest=None,
        last=16,
        width=None,
        cross_depth=3,
        bottleneck=None,
        mlp=(1024, 512, 256),
        head=(64, 32),
        context_dim=64,
        user_dim=0,
        wide=False,
    )


def reference_fused() -> Recipe:
    """The reference's widths with raw image and text features, the fusion trained on clicks."""
    return dataclasses.replace(reference(), fusion="attention", fusion_options={})


def light() -> Recipe:
    """The reference's item vectors with a twentieth of its weights.

    The history goes out pooled instead of flattened, and the crosses run behind a bottleneck.
    """
    return dataclasses.replace(
        reference_fused(),
        standardize=True,
        unknown_id=True,
        id_dropout=0.1,
        last=0,
        width=256,
        bottleneck=512,
        mlp=(512, 256),
        wide=True,
    )


def small() -> Recipe:
    """Trains in a minute on two cores; the default of the demo.

    The crosses see the plain mean of the history beside the Transformer's output: products of
    it with the target are what small data learn first.
    """
    return Recipe()


RECIPES: dict[str, Callable[[], Recipe]] = {
    "light": light,
    "reference": reference,
    "reference-fused": reference_fused,
    "small": small,
}


def get_recipe(name: str) -> Recipe:
    """The recipe of that name, one of `RECIPES`."""
    if name not in RECIPES:
        raise InputError(f"recipe must be one of {', '.join(sorted(RECIPES))}, got {name!r}")
    return RECIPES[name]()


def build_ranker(
    recipe: Recipe,
    items: ItemTableLike,
    *,
    known_users: Tensor | None = None,
    known_items: Tensor | None = None,
    estimate: bool = True,
) -> Ranker:
    """A ranker with fresh weights.

    Args:
        known_users: user ids of the training rows. None = users are told apart by their
            histories alone: no user vectors, and `wide` has item biases only.
        known_items: (N,) bool, items that the training rows show (as target or in a history).
        estimate: see `ItemEncoder`.
    """
    encoder = build_items(recipe, items, known_items=known_items, estimate=estimate)
    users = None
    if recipe.user_dim and known_users is not None:
        users = UserEncoder(
            index=UserIndex(known=known_users), dim=recipe.user_dim, dropout=recipe.user_dropout
        )
    wide = None
    if recipe.wide:
        # An index of its own: safetensors refuses two names for one tensor.
        index = None if known_users is None else UserIndex(known=known_users)
        wide = Wide(num_items=encoder.num_items, users=index)
    tiers = SimTier(tiers=recipe.tiers) if recipe.tiers else None
    sequence = build_sequence(recipe, dim=encoder.out_dim)
    width = input_dim(
        items=encoder,
        sequence=sequence,
        context_sizes=recipe.context_sizes,
        context_dim=recipe.context_dim,
        users=users,
        tiers=tiers,
    )
    return Ranker(
        items=encoder,
        sequence=sequence,
        interaction=build_interaction(recipe, in_dim=width),
        head=recipe.head,
        context_sizes=recipe.context_sizes,
        context_dim=recipe.context_dim,
        users=users,
        wide=wide,
        tiers=tiers,
        alignment=(
            ContentAlignment(items=encoder, weight=recipe.alignment) if recipe.alignment else None
        ),
        newest=recipe.newest,
        deduplicate=recipe.deduplicate,
    )


def ranker_from_state(recipe: Recipe, items: ItemTableLike, state: Mapping[str, Tensor]) -> Ranker:
    """A ranker with the weights of `state`; which users are known is read from it."""
    users = [value for name, value in state.items() if name.endswith("index.known")]
    ranker = build_ranker(recipe, items, known_users=users[0] if users else None, estimate=False)
    ranker.load_state_dict(dict(state))
    return ranker


def build_items(
    recipe: Recipe,
    items: ItemTableLike,
    *,
    known_items: Tensor | None = None,
    estimate: bool = True,
) -> ItemEncoder:
    """The item encoder of a recipe."""
    options = dict(recipe.fusion_options)
    if recipe.fusion == "film":
        options.setdefault("context_dim", recipe.context_dim * len(recipe.context_sizes))
    fusion = None
    if recipe.fusion != "none":
        fusion = build_fusion(
            recipe.fusion,
            image_dim=items.image.shape[1],
            text_dim=items.text.shape[1],
            out_dim=recipe.content_dim,
            **options,
        )
    unknown = recipe.unknown_id and recipe.id_dim > 0
    return ItemEncoder(
        tags=items.tags,
        image=items.image,
        text=items.text,
        has_image=items.has_image,
        has_text=items.has_text,
        num_tags=items.num_tags,
        id_dim=recipe.id_dim,
        tag_dim=recipe.tag_dim,
        fusion=fusion,
        unknown=unknown,
        id_dropout=recipe.id_dropout if unknown else 0.0,
        known=known_items if unknown else None,
        modality_dropout=recipe.modality_dropout,
        standardize=recipe.standardize,
        estimate=estimate,
    )


def _transformer(recipe: Recipe, dim: int) -> SequenceEncoder:
    return TargetTransformer(
        dim=dim,
        layers=recipe.layers,
        heads=recipe.heads,
        ff_dim=recipe.ff_dim,
        dropout=recipe.sequence_dropout,
        pre_norm=recipe.pre_norm,
        last=recipe.last,
        pool=recipe.pool,
        positions=recipe.positions,
        width=recipe.width,
        compact=recipe.compact,
    )


def _din(recipe: Recipe, dim: int) -> SequenceEncoder:
    return DINAttention(dim=dim, hidden=(recipe.ff_dim,), compact=recipe.compact)


def _relu(recipe: Recipe, dim: int) -> SequenceEncoder:
    return ReluAttention(dim=dim, heads=recipe.heads, width=recipe.width, compact=recipe.compact)


SEQUENCES: dict[str, Callable[[Recipe, int], SequenceEncoder]] = {
    "transformer": _transformer,
    "transformer+mean": lambda recipe, dim: ParallelSequences(
        encoders=[_transformer(recipe, dim), MeanPool(dim=dim)]
    ),
    "din": _din,
    "relu": _relu,
    "mean": lambda recipe, dim: MeanPool(dim=dim),
    "none": lambda recipe, dim: NoHistory(),
}
"""Name -> a function of recipe and item width."""


def build_sequence(recipe: Recipe, *, dim: int) -> SequenceEncoder:
    """The sequence encoder of a recipe, for items `dim` wide."""
    if recipe.sequence not in SEQUENCES:
        raise InputError(
            f"sequence must be one of {', '.join(sorted(SEQUENCES))}, got {recipe.sequence!r}"
        )
    return SEQUENCES[recipe.sequence](recipe, dim)


def build_interaction(recipe: Recipe, *, in_dim: int) -> CrossAndDeep:
    """Crosses beside an MLP, behind the recipe's bottleneck."""
    width = in_dim if recipe.bottleneck is None else recipe.bottleneck
    depth, rank = recipe.cross_depth, recipe.cross_rank
    crosses: dict[str, Callable[[], Interaction | None]] = {
        "full": lambda: CrossNetV2(dim=width, depth=depth),
        "low_rank": lambda: CrossNetLowRank(dim=width, depth=depth, rank=rank),
        "mix": lambda: CrossNetMix(
            dim=width, depth=depth, num_experts=recipe.cross_experts, rank=rank
        ),
        "none": lambda: None,
    }
    if recipe.cross not in crosses:
        raise InputError(f"cross must be one of {', '.join(sorted(crosses))}, got {recipe.cross!r}")
    deep = None
    if recipe.mlp:
        deep = MLP(in_dim=width, hidden=recipe.mlp, dropout=recipe.mlp_dropout)
    return CrossAndDeep(
        in_dim=in_dim, cross=crosses[recipe.cross](), deep=deep, bottleneck=recipe.bottleneck
    )

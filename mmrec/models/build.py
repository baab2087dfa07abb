"""From a recipe to a ranker: names become modules here, and nowhere deeper."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

from torch import Tensor

from mmrec.models.parts import ContentAlignment, Wide
from mmrec.models.ranker import Ranker
from mmrec.models.recipe import InteractionRecipe, Recipe
from mmrec.nn.cross import CrossNetLowRank, CrossNetMix, CrossNetV2
from mmrec.nn.fusion import FUSIONS
from mmrec.nn.interaction import CrossAndDeep, Interaction
from mmrec.nn.item_encoder import ItemEncoder
from mmrec.nn.mlp import MLP
from mmrec.nn.part import Part, Registry
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


def _parallel(
    *, dim: int, encoders: Sequence[Any], compact: bool | None = None
) -> ParallelSequences:
    parts = [Part.from_plain(encoder, "history.encoder") for encoder in encoders]
    return ParallelSequences(
        encoders=[SEQUENCES.build(part, offered={"compact": compact}, dim=dim) for part in parts]
    )


SEQUENCES: Registry[SequenceEncoder] = Registry(
    "sequence",
    {
        "din": DINAttention,
        "mean": MeanPool,
        "none": lambda *, dim: NoHistory(),
        "parallel": _parallel,
        "relu": ReluAttention,
        "transformer": TargetTransformer,
    },
)
"""Name -> a callable with the keyword `dim`, the width of an item, and options of its own."""

CROSSES: Registry[Interaction] = Registry(
    "cross", {"full": CrossNetV2, "low_rank": CrossNetLowRank, "mix": CrossNetMix}
)
"""Name -> a callable with the keyword `dim`, the width that comes in, and options of its own."""


def check_parts(recipe: Recipe) -> Recipe:
    """The recipe, if each of its parts exists and has the options that are set.

    Raises:
        InputError: see `Registry.check`. What the values of options are is seen by `build_ranker`.
    """
    if recipe.items.fusion is not None:
        FUSIONS.check(recipe.items.fusion, ("image_dim", "text_dim", "out_dim"))
    if recipe.interaction.cross is not None:
        CROSSES.check(recipe.interaction.cross, ("dim",))
    encoders = [recipe.history.encoder]
    while encoders:
        part = encoders.pop()
        SEQUENCES.check(part, ("dim",))
        inner = part.options.get("encoders", ())
        encoders += [Part.from_plain(one, "history.encoder.encoders") for one in inner]
    return recipe


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
        known_users: user ids of the training rows, of a trained ranker `state[Ranker.KNOWN_USERS]`.
            None = users are told apart by their histories alone: no user vectors, and `wide` has
            item biases only.
        known_items: (N,) bool, items that the training rows show (as target or in a history).
        estimate: see `ItemEncoder`.
    """
    context, history, speed = recipe.context, recipe.history, recipe.training.speed
    encoder = build_items(recipe, items, known_items=known_items, estimate=estimate)
    index = users = wide = alignment = None
    if known_users is not None and (context.user_dim or context.wide):
        index = UserIndex(known=known_users)
    if index is not None and context.user_dim:
        users = UserEncoder(
            num_users=len(index), dim=context.user_dim, dropout=context.user_dropout
        )
    if context.wide:
        wide = Wide(num_items=encoder.num_items, num_users=0 if index is None else len(index))
    if recipe.items.alignment:
        alignment = ContentAlignment(items=encoder, weight=recipe.items.alignment)
    return Ranker(
        items=encoder,
        sequence=SEQUENCES.build(
            history.encoder, offered={"compact": speed.compact}, dim=encoder.out_dim
        ),
        interaction=partial(build_interaction, recipe.interaction),
        head=recipe.interaction.head,
        context_sizes=context.sizes,
        context_dim=context.dim,
        user_index=index,
        users=users,
        wide=wide,
        tiers=SimTier(tiers=history.tiers) if history.tiers else None,
        alignment=alignment,
        newest=history.newest,
        deduplicate=speed.deduplicate,
    )


def build_items(
    recipe: Recipe,
    items: ItemTableLike,
    *,
    known_items: Tensor | None = None,
    estimate: bool = True,
) -> ItemEncoder:
    """The item encoder of a recipe."""
    own = recipe.items
    fusion = None
    if own.fusion is not None:
        fusion = FUSIONS.build(
            own.fusion,
            offered={"context_dim": recipe.context.dim * len(recipe.context.sizes)},
            image_dim=items.image.shape[1],
            text_dim=items.text.shape[1],
            out_dim=own.content_dim,
        )
    unknown = own.unknown_id and own.id_dim > 0
    return ItemEncoder(
        tags=items.tags,
        image=items.image,
        text=items.text,
        has_image=items.has_image,
        has_text=items.has_text,
        num_tags=items.num_tags,
        id_dim=own.id_dim,
        tag_dim=own.tag_dim,
        fusion=fusion,
        unknown=unknown,
        id_dropout=own.id_dropout if unknown else 0.0,
        known=known_items if unknown else None,
        modality_dropout=own.modality_dropout,
        standardize=own.standardize,
        estimate=estimate,
    )


def build_interaction(recipe: InteractionRecipe, in_dim: int) -> CrossAndDeep:
    """Crosses beside an MLP, behind the recipe's bottleneck."""
    width = in_dim if recipe.bottleneck is None else recipe.bottleneck
    cross = None if recipe.cross is None else CROSSES.build(recipe.cross, dim=width)
    dropout = recipe.dropout
    deep = MLP(in_dim=width, hidden=recipe.mlp, dropout=dropout) if recipe.mlp else None
    return CrossAndDeep(in_dim=in_dim, cross=cross, deep=deep, bottleneck=recipe.bottleneck)

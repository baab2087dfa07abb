"""From a recipe to a ranker: names become modules here, and nowhere deeper."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from mmrec.errors import require
from mmrec.io.plain import from_plain
from mmrec.models.catalogue import Catalogue
from mmrec.models.inputs import Inputs, ItemTableLike, Numbers
from mmrec.models.parts import ContentAlignment, HistoryFeatures, Wide
from mmrec.models.ranker import Ranker
from mmrec.models.recipe import HistoryRecipe, InteractionRecipe, Recipe
from mmrec.nn.categorical import CategoricalEncoder, Vocabulary
from mmrec.nn.cross import CrossNetLowRank, CrossNetMix, CrossNetV2
from mmrec.nn.fusion import FUSIONS
from mmrec.nn.history.affinity import Affinity
from mmrec.nn.history.recency import Recency
from mmrec.nn.history.sequence import (
    DINAttention,
    MeanPool,
    NoHistory,
    ParallelSequences,
    ReluAttention,
    SequenceEncoder,
)
from mmrec.nn.history.signs import Signs
from mmrec.nn.history.simtier import SimTier
from mmrec.nn.history.transformer import TargetTransformer
from mmrec.nn.interaction import CrossAndDeep, Interaction
from mmrec.nn.item_encoder import ItemEncoder
from mmrec.nn.mlp import MLP
from mmrec.nn.numeric import LinearNumbers, NumericEncoder, PeriodicNumbers
from mmrec.nn.part import Part, Registry
from mmrec.nn.users import UserEncoder, UserIndex

_SIGNS = 8  # values of a history's category, at most, that are signs


def _parallel(
    *, dim: int, encoders: Sequence[Any], compact: bool | None = None
) -> ParallelSequences:
    parts = [Part.from_plain(encoder, "history.encoder") for encoder in encoders]
    return ParallelSequences(
        encoders=[SEQUENCES.build(part, offered={"compact": compact}, dim=dim) for part in parts]
    )


SEQUENCES: Registry[SequenceEncoder] = Registry(
    "history.encoder",
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

NUMBERS: Registry[NumericEncoder] = Registry(
    "context.numeric or items.numeric", {"linear": LinearNumbers, "periodic": PeriodicNumbers}
)
"""Name -> a callable with the keywords `mean` and `std` of the columns, and options of its own."""

CROSSES: Registry[Interaction] = Registry(
    "interaction.cross", {"full": CrossNetV2, "low_rank": CrossNetLowRank, "mix": CrossNetMix}
)
"""Name -> a callable with the keyword `dim`, the width that comes in, and options of its own."""


def check_parts(recipe: Recipe) -> Recipe:
    """The recipe, if each of its parts exists and has the options that are set.

    Raises:
        InputError: see `Registry.check`. What the values of options are is seen by `build_ranker`.
    """
    if recipe.items.fusion is not None:
        FUSIONS.check(recipe.items.fusion, ("dims", "out_dim"))
    if recipe.interaction.cross is not None:
        CROSSES.check(recipe.interaction.cross, ("dim",))
    for numeric in (recipe.items.numeric, recipe.context.numeric):
        if numeric is not None:
            NUMBERS.check(numeric, ("mean", "std", "total"))
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
    inputs: Inputs | None = None,
    *,
    estimate: bool = True,
) -> Ranker:
    """A ranker with fresh weights.

    Args:
        inputs: vocabularies, moments, known users and items; None = one task, and nothing of the
            rows but history and target.
        estimate: see `ItemEncoder`.
    """
    inputs = inputs or Inputs()
    context, history, speed = recipe.context, recipe.history, recipe.training.speed
    encoder = build_items(recipe, items, inputs, estimate=estimate)
    width = encoder.out_dim if history.content else encoder.out_dim - encoder.content_dim
    index = users = wide = alignment = None
    if inputs.known_users is not None and (context.user_dim or context.wide):
        index = UserIndex(known=inputs.known_users)
    num_users = 0 if index is None else len(index)
    if index is not None and context.user_dim:
        users = UserEncoder(num_users=num_users, dim=context.user_dim, dropout=context.user_dropout)
    if context.wide:
        wide = Wide(num_items=encoder.num_items, num_users=num_users, tasks=len(inputs.tasks))
    if recipe.items.alignment:
        alignment = ContentAlignment(items=encoder, weight=recipe.items.alignment)
    signs = _signs(inputs)
    affinity = _affinity(history, signs, spaces=len(encoder.spaces))
    recency = _recency(history, signs)
    return Ranker(
        items=encoder,
        sequence=SEQUENCES.build(history.encoder, offered={"compact": speed.compact}, dim=width),
        interaction=partial(build_interaction, recipe.interaction),
        head=recipe.interaction.head,
        tasks=inputs.tasks,
        categorical=_categorical(inputs.categorical, context.dim),
        numeric=_numeric(context.numeric, inputs.numeric),
        history_features=_history_features(history, inputs, dim=width),
        user_index=index,
        users=users,
        wide=wide,
        tiers=SimTier(tiers=history.tiers) if history.tiers else None,
        signs=None if affinity is None and recency is None else signs,
        affinity=affinity,
        recency=recency,
        alignment=alignment,
        history_content=history.content,
        newest=history.newest,
        encoded=history.encoded,
        deduplicate=speed.deduplicate,
        catalogue=inputs.catalogue,
    )


def build_items(
    recipe: Recipe, items: ItemTableLike, inputs: Inputs | None = None, *, estimate: bool = True
) -> ItemEncoder:
    """The item encoder of a recipe."""
    own, inputs = recipe.items, inputs or Inputs()
    fusion = None
    require(
        own.fusion is None or any(present.any() for present in items.present.values()),
        "a fusion needs content, and no item has a vector of any modality: items.fusion=none",
    )
    if own.fusion is not None:
        fusion = FUSIONS.build(
            own.fusion,
            offered={"context_dim": recipe.context.dim * len(inputs.categorical)},
            dims={name: _width(x, own.components) for name, x in items.vectors.items()},
            out_dim=own.content_dim,
        )
    categorical = _categorical(inputs.item_categorical, own.categorical_dim)
    numeric = _numeric(own.numeric, inputs.item_numeric)
    unknown = own.unknown_id and own.id_dim > 0
    return ItemEncoder(
        tags=items.tags,
        vectors=items.vectors,
        present=items.present,
        num_tags=items.num_tags,
        id_dim=own.id_dim,
        tag_dim=own.tag_dim,
        categorical=None if categorical is None else (items.categorical, categorical),
        numeric=None if numeric is None else (items.numeric, numeric),
        fusion=fusion,
        unknown=unknown,
        id_dropout=own.id_dropout if unknown else 0.0,
        known=inputs.known_items,
        modality_dropout=own.modality_dropout,
        standardize=own.standardize,
        components=own.components,
        content_width=own.content_width,
        similar_tags=recipe.history.similar_tags,
        estimate=estimate,
    )


def _width(vectors: Tensor, components: int) -> int:
    width = vectors.shape[1]
    return min(width, components) if components else width


def _signs(inputs: Inputs) -> Signs:
    columns = () if inputs.schema is None else inputs.schema.clicks.history_categorical
    limits = [column.limit or 0 for column in columns]
    pairs = [(c, v) for c, limit in enumerate(limits) if limit <= _SIGNS for v in range(1, limit)]
    return Signs(pairs=pairs)


def _affinity(recipe: HistoryRecipe, signs: Signs, *, spaces: int) -> Affinity | None:
    if not (recipe.affinity and spaces):
        return None
    return Affinity(spaces=spaces, signs=signs.out_dim, heads=recipe.affinity)


def _recency(recipe: HistoryRecipe, signs: Signs) -> Recency | None:
    if not (recipe.recency and signs.out_dim):
        return None
    return Recency(signs=signs.out_dim, heads=recipe.recency)


def _categorical(columns: Sequence[Vocabulary], dim: int) -> CategoricalEncoder | None:
    return CategoricalEncoder(columns=columns, dim=dim) if columns and dim else None


def _numeric(part: Part | None, numbers: Numbers) -> NumericEncoder | None:
    if part is None or not numbers.mean:
        return None
    return NUMBERS.build(part, mean=numbers.mean, std=numbers.std)


def _history_features(recipe: HistoryRecipe, inputs: Inputs, *, dim: int) -> HistoryFeatures | None:
    columns, numbers = inputs.history_categorical, inputs.history_numeric
    if not recipe.features or not (columns or numbers.mean):
        return None
    numeric = None
    if numbers.mean:
        numeric = LinearNumbers(mean=numbers.mean, std=numbers.std, dim=dim, total=True)
    categorical = CategoricalEncoder(columns=columns, dim=dim, total=True) if columns else None
    return HistoryFeatures(categorical=categorical, numeric=numeric)


def describe(recipe: Recipe, inputs: Inputs | None = None) -> dict[str, Any]:
    """What a checkpoint stores to build the ranker again: the `recipe` of `fit`, JSON-able."""
    return {"recipe": recipe.binding(), "inputs": (inputs or Inputs()).sizes()}


def rebuild(
    described: Mapping[str, Any],
    items: ItemTableLike,
    *,
    known_users: Tensor | None,
    widths: Mapping[str, int] | None = None,
    catalogue: Catalogue | None = None,
) -> Ranker:
    """A ranker from `describe`, whose weights are still to be loaded.

    Args:
        catalogue: of `items`; see `mmrec.models.restore`, which moves the weights to it.
        widths: list column of the clicks -> its longest list, where it is not that of training.

    Raises:
        InputError: this describes no ranker.
    """
    require(
        {"recipe", "inputs"} <= set(described), "a ranker is described by its recipe and inputs"
    )
    recipe = from_plain(Recipe, described["recipe"])
    inputs = Inputs.restored(
        described["inputs"], known_users=known_users, widths=widths, item_widths=items.widths
    )
    inputs = replace(inputs, catalogue=catalogue)
    return build_ranker(recipe, items, inputs, estimate=False)


def build_interaction(recipe: InteractionRecipe, in_dim: int) -> CrossAndDeep:
    """Crosses beside an MLP, behind the recipe's bottleneck."""
    width = in_dim if recipe.bottleneck is None else recipe.bottleneck
    cross = None if recipe.cross is None else CROSSES.build(recipe.cross, dim=width)
    dropout = recipe.dropout
    deep = MLP(in_dim=width, hidden=recipe.mlp, dropout=dropout) if recipe.mlp else None
    return CrossAndDeep(in_dim=in_dim, cross=cross, deep=deep, bottleneck=recipe.bottleneck)

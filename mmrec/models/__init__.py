"""Rankers: layers wired into `Batch -> logits (B,)`, and the recipes that size them.

Read `ranker.py` first, then `recipe.py` (all sizes as plain data), `recipes.py` (the named ones),
`inputs.py` (what a ranker is told of its data) and `build.py` (names become modules). `parts.py`
holds three small parts, `pretrain.py` trains a fusion before there is a ranker. What happens when
the catalogue changes: `catalogue.py` (which items, by their keys; `sketch.py` tells their features
apart), `carry.py` (rows of tables move) and `restore.py` (a ranker to score or to be trained on).
"""

from mmrec.models.build import (
    CROSSES,
    NUMBERS,
    SEQUENCES,
    build_interaction,
    build_ranker,
    check_parts,
    describe,
    rebuild,
)
from mmrec.models.inputs import Inputs
from mmrec.models.parts import ContentAlignment, Wide
from mmrec.models.ranker import Ranker
from mmrec.models.recipe import (
    ContextRecipe,
    HistoryRecipe,
    InteractionRecipe,
    ItemsRecipe,
    Recipe,
)
from mmrec.models.recipes import (
    RECIPES,
    SEARCH_SPACE,
    get_recipe,
    light,
    reference,
    reference_fused,
    search_space,
    small,
)

__all__ = [
    "CROSSES",
    "NUMBERS",
    "RECIPES",
    "SEARCH_SPACE",
    "SEQUENCES",
    "ContentAlignment",
    "ContextRecipe",
    "HistoryRecipe",
    "Inputs",
    "InteractionRecipe",
    "ItemsRecipe",
    "Ranker",
    "Recipe",
    "Wide",
    "build_interaction",
    "build_ranker",
    "check_parts",
    "describe",
    "get_recipe",
    "light",
    "rebuild",
    "reference",
    "reference_fused",
    "search_space",
    "small",
]

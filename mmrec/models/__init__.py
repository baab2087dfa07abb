"""Rankers: layers wired into `Batch -> logits (B,)`, and the recipes that size them.

Read `ranker.py` first, then `recipe.py` (all sizes as plain data), `recipes.py` (the named ones)
and `build.py` (names become modules). `parts.py` holds two small parts, `pretrain.py` trains a
fusion before there is a ranker.
"""

from mmrec.models.build import CROSSES, SEQUENCES, build_interaction, build_ranker, check_parts
from mmrec.models.parts import ContentAlignment, Wide
from mmrec.models.ranker import Ranker
from mmrec.models.recipe import (
    ContextRecipe,
    HistoryRecipe,
    InteractionRecipe,
    ItemsRecipe,
    Recipe,
)
from mmrec.models.recipes import RECIPES, get_recipe, light, reference, reference_fused, small

__all__ = [
    "CROSSES",
    "RECIPES",
    "SEQUENCES",
    "ContentAlignment",
    "ContextRecipe",
    "HistoryRecipe",
    "InteractionRecipe",
    "ItemsRecipe",
    "Ranker",
    "Recipe",
    "Wide",
    "build_interaction",
    "build_ranker",
    "check_parts",
    "get_recipe",
    "light",
    "reference",
    "reference_fused",
    "small",
]

"""Rankers: layers wired into `Batch -> logits (B,)`, and the recipes that size them."""

from mmrec.models.parts import ContentAlignment, Wide
from mmrec.models.ranker import Ranker, input_dim
from mmrec.models.recipes import (
    RECIPES,
    Recipe,
    build_ranker,
    get_recipe,
    light,
    ranker_from_state,
    reference,
    reference_fused,
    small,
)

__all__ = [
    "RECIPES",
    "ContentAlignment",
    "Ranker",
    "Recipe",
    "Wide",
    "build_ranker",
    "get_recipe",
    "input_dim",
    "light",
    "ranker_from_state",
    "reference",
    "reference_fused",
    "small",
]

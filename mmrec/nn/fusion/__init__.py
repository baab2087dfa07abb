"""Fusions: image and text vectors, with presence masks, into one vector an item."""

from mmrec.nn.fusion.attention import AttentionFusion
from mmrec.nn.fusion.base import ConditionedFusion, Fusion, LearnedAbsent, TwoModalFusion
from mmrec.nn.fusion.concat import ConcatFusion
from mmrec.nn.fusion.precomputed import PrecomputedFusion
from mmrec.nn.fusion.registry import FUSIONS, build_fusion

__all__ = [
    "FUSIONS",
    "AttentionFusion",
    "ConcatFusion",
    "ConditionedFusion",
    "Fusion",
    "LearnedAbsent",
    "PrecomputedFusion",
    "TwoModalFusion",
    "build_fusion",
]

"""Fusions: image and text vectors, with presence masks, into one vector an item."""

from mmrec.nn.fusion.attention import AttentionFusion
from mmrec.nn.fusion.base import (
    ConditionedFusion,
    EstimatedFusion,
    Fusion,
    LearnedAbsent,
    TwoModalFusion,
)
from mmrec.nn.fusion.bilinear import BilinearFusion, LowRankFusion
from mmrec.nn.fusion.concat import ConcatFusion
from mmrec.nn.fusion.cross_attention import CrossAttentionFusion
from mmrec.nn.fusion.experts import ExpertsFusion
from mmrec.nn.fusion.film import FiLMFusion
from mmrec.nn.fusion.gated import GatedFusion, SENetFusion
from mmrec.nn.fusion.modality_dropout import ModalityDropout
from mmrec.nn.fusion.pca import PCAFusion, SeparatePCAFusion
from mmrec.nn.fusion.precomputed import PrecomputedFusion
from mmrec.nn.fusion.projected_sum import MeanFusion, SumFusion
from mmrec.nn.fusion.registry import FUSIONS, build_fusion
from mmrec.nn.fusion.semantic_ids import SemanticIdDenseFusion, SemanticIdFusion

__all__ = [
    "FUSIONS",
    "AttentionFusion",
    "BilinearFusion",
    "ConcatFusion",
    "ConditionedFusion",
    "CrossAttentionFusion",
    "EstimatedFusion",
    "ExpertsFusion",
    "FiLMFusion",
    "Fusion",
    "GatedFusion",
    "LearnedAbsent",
    "LowRankFusion",
    "MeanFusion",
    "ModalityDropout",
    "PCAFusion",
    "PrecomputedFusion",
    "SENetFusion",
    "SemanticIdDenseFusion",
    "SemanticIdFusion",
    "SeparatePCAFusion",
    "SumFusion",
    "TwoModalFusion",
    "build_fusion",
]

"""Layers in plain PyTorch, each usable alone in someone else's model."""

from mmrec.nn.cross import CrossNetLowRank, CrossNetMix, CrossNetV2
from mmrec.nn.fusion import (
    FUSIONS,
    AttentionFusion,
    BilinearFusion,
    ConcatFusion,
    ConditionedFusion,
    CrossAttentionFusion,
    EstimatedFusion,
    ExpertsFusion,
    FiLMFusion,
    Fusion,
    GatedFusion,
    LowRankFusion,
    MeanFusion,
    ModalityDropout,
    PCAFusion,
    PrecomputedFusion,
    SemanticIdDenseFusion,
    SemanticIdFusion,
    SENetFusion,
    SeparatePCAFusion,
    SumFusion,
    TwoModalFusion,
    build_fusion,
)
from mmrec.nn.interaction import CrossAndDeep, Interaction
from mmrec.nn.item_encoder import ItemEncoder
from mmrec.nn.losses import alignment, bce_with_logits, info_nce
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
from mmrec.nn.transformer import TargetTransformer, TransformerLayer
from mmrec.nn.users import UserEncoder, UserIndex

__all__ = [
    "FUSIONS",
    "MLP",
    "AttentionFusion",
    "BilinearFusion",
    "ConcatFusion",
    "ConditionedFusion",
    "CrossAndDeep",
    "CrossAttentionFusion",
    "CrossNetLowRank",
    "CrossNetMix",
    "CrossNetV2",
    "DINAttention",
    "EstimatedFusion",
    "ExpertsFusion",
    "FiLMFusion",
    "Fusion",
    "GatedFusion",
    "Interaction",
    "ItemEncoder",
    "LowRankFusion",
    "MeanFusion",
    "MeanPool",
    "ModalityDropout",
    "NoHistory",
    "PCAFusion",
    "ParallelSequences",
    "Part",
    "PrecomputedFusion",
    "Registry",
    "ReluAttention",
    "SENetFusion",
    "SemanticIdDenseFusion",
    "SemanticIdFusion",
    "SeparatePCAFusion",
    "SequenceEncoder",
    "SimTier",
    "SumFusion",
    "TargetTransformer",
    "TransformerLayer",
    "TwoModalFusion",
    "UserEncoder",
    "UserIndex",
    "alignment",
    "bce_with_logits",
    "build_fusion",
    "info_nce",
]

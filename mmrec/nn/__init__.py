"""Layers in plain PyTorch, each usable alone in someone else's model."""

from mmrec.nn.cross import CrossNetLowRank, CrossNetMix, CrossNetV2
from mmrec.nn.fusion import (
    FUSIONS,
    AttentionFusion,
    ConcatFusion,
    ConditionedFusion,
    Fusion,
    PrecomputedFusion,
    TwoModalFusion,
    build_fusion,
)
from mmrec.nn.interaction import CrossAndDeep, Interaction
from mmrec.nn.item_encoder import ItemEncoder
from mmrec.nn.losses import alignment, bce_with_logits, info_nce
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
from mmrec.nn.transformer import TargetTransformer, TransformerLayer
from mmrec.nn.users import UserEncoder, UserIndex

__all__ = [
    "FUSIONS",
    "MLP",
    "AttentionFusion",
    "ConcatFusion",
    "ConditionedFusion",
    "CrossAndDeep",
    "CrossNetLowRank",
    "CrossNetMix",
    "CrossNetV2",
    "DINAttention",
    "Fusion",
    "Interaction",
    "ItemEncoder",
    "MeanPool",
    "NoHistory",
    "ParallelSequences",
    "PrecomputedFusion",
    "ReluAttention",
    "SequenceEncoder",
    "SimTier",
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

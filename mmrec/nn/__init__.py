"""Layers in plain PyTorch, each usable alone in someone else's model.

In the order of a row: `item_encoder` and `users` (ids to vectors), `categorical` and `numeric`
(columns to vectors), `features` (frozen vectors of a modality), `fusion` (modalities to one
vector), `history` (a history to one vector), `interaction` with `cross` and `mlp`, `losses`;
`kmeans` serves them, and `part` looks variants up by name. Single fusions are imported from
`mmrec.nn.fusion`.
"""

from mmrec.nn.categorical import CategoricalEncoder, Vocabulary
from mmrec.nn.cross import CrossNetLowRank, CrossNetMix, CrossNetV2
from mmrec.nn.features import FrozenFeatures, TagSets
from mmrec.nn.fusion import FUSIONS, Fusion, ModalFusion, build_fusion
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
from mmrec.nn.history.transformer import TargetTransformer, TransformerLayer
from mmrec.nn.interaction import CrossAndDeep, Interaction
from mmrec.nn.item_encoder import ItemEncoder
from mmrec.nn.losses import alignment, info_nce
from mmrec.nn.mlp import MLP
from mmrec.nn.numeric import LinearNumbers, NumericEncoder, PeriodicNumbers
from mmrec.nn.part import Part, Registry
from mmrec.nn.users import UserEncoder, UserIndex

__all__ = [
    "FUSIONS",
    "MLP",
    "Affinity",
    "CategoricalEncoder",
    "CrossAndDeep",
    "CrossNetLowRank",
    "CrossNetMix",
    "CrossNetV2",
    "DINAttention",
    "FrozenFeatures",
    "Fusion",
    "Interaction",
    "ItemEncoder",
    "LinearNumbers",
    "MeanPool",
    "ModalFusion",
    "NoHistory",
    "NumericEncoder",
    "ParallelSequences",
    "Part",
    "PeriodicNumbers",
    "Recency",
    "Registry",
    "ReluAttention",
    "SequenceEncoder",
    "Signs",
    "SimTier",
    "TagSets",
    "TargetTransformer",
    "TransformerLayer",
    "UserEncoder",
    "UserIndex",
    "Vocabulary",
    "alignment",
    "build_fusion",
    "info_nce",
]

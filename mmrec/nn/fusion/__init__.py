"""Fusions: vectors of named modalities, with presence masks, into one vector an item.

`base` says what a fusion is and holds what variants share. Then `concat`, `projected_sum`,
`attention`, `gated`, `film`, `experts`, `bilinear` and `cross_attention`, which are trained; `pca`
and `semantic_ids`, which are estimated; `precomputed`; `modality_dropout`, which wraps any of them;
and `registry`, which builds one by its name.

A fusion is registered here and nowhere else: an import and a name.
"""

from mmrec.nn.fusion.attention import AttentionFusion
from mmrec.nn.fusion.base import ConditionedFusion, EstimatedFusion, Fusion, ModalFusion
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
    "LowRankFusion",
    "MeanFusion",
    "ModalFusion",
    "ModalityDropout",
    "PCAFusion",
    "PrecomputedFusion",
    "SENetFusion",
    "SemanticIdDenseFusion",
    "SemanticIdFusion",
    "SeparatePCAFusion",
    "SumFusion",
    "build_fusion",
]

FUSIONS.update(
    attention=AttentionFusion,
    bilinear=BilinearFusion,
    concat=ConcatFusion,
    cross_attention=CrossAttentionFusion,
    film=FiLMFusion,
    gmu=GatedFusion,
    lmf=LowRankFusion,
    mean=MeanFusion,
    moe=ExpertsFusion,
    pca=PCAFusion,
    pca_each=SeparatePCAFusion,
    precomputed=PrecomputedFusion,
    semantic_ids=SemanticIdFusion,
    semantic_ids_dense=SemanticIdDenseFusion,
    senet=SENetFusion,
    sum=SumFusion,
)

"""Fusions: vectors of named modalities, with presence masks, into one vector an item.

`base` says what a fusion is and holds what variants share. Then `concat`, `projected_sum`,
`attention`, `gated`, `film`, `experts`, `bilinear` and `cross_attention`, which are trained; `pca`
and `semantic_ids`, which are estimated; `precomputed`; `modality_dropout`, which wraps any of them;
and `registry`, which builds one by its name.

A fusion is registered here and nowhere else: an import and a name.
"""

from mmrec.nn.fusion.attention import AttentionFusion as AttentionFusion
from mmrec.nn.fusion.base import ConditionedFusion as ConditionedFusion
from mmrec.nn.fusion.base import EstimatedFusion as EstimatedFusion
from mmrec.nn.fusion.base import Fusion as Fusion
from mmrec.nn.fusion.base import ModalFusion as ModalFusion
from mmrec.nn.fusion.bilinear import BilinearFusion as BilinearFusion
from mmrec.nn.fusion.bilinear import LowRankFusion as LowRankFusion
from mmrec.nn.fusion.concat import ConcatFusion as ConcatFusion
from mmrec.nn.fusion.cross_attention import CrossAttentionFusion as CrossAttentionFusion
from mmrec.nn.fusion.experts import ExpertsFusion as ExpertsFusion
from mmrec.nn.fusion.film import FiLMFusion as FiLMFusion
from mmrec.nn.fusion.gated import GatedFusion as GatedFusion
from mmrec.nn.fusion.gated import SENetFusion as SENetFusion
from mmrec.nn.fusion.modality_dropout import ModalityDropout as ModalityDropout
from mmrec.nn.fusion.pca import PCAFusion as PCAFusion
from mmrec.nn.fusion.pca import SeparatePCAFusion as SeparatePCAFusion
from mmrec.nn.fusion.precomputed import PrecomputedFusion as PrecomputedFusion
from mmrec.nn.fusion.projected_sum import MeanFusion as MeanFusion
from mmrec.nn.fusion.projected_sum import SumFusion as SumFusion
from mmrec.nn.fusion.registry import FUSIONS as FUSIONS
from mmrec.nn.fusion.registry import build_fusion as build_fusion
from mmrec.nn.fusion.semantic_ids import SemanticIdDenseFusion as SemanticIdDenseFusion
from mmrec.nn.fusion.semantic_ids import SemanticIdFusion as SemanticIdFusion

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

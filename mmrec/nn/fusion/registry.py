"""Names of fusions, for command lines and benchmarks. Modules take the object, never a name."""

from __future__ import annotations

from typing import Any

from mmrec.errors import InputError
from mmrec.nn.fusion.attention import AttentionFusion
from mmrec.nn.fusion.base import Fusion
from mmrec.nn.fusion.bilinear import BilinearFusion, LowRankFusion
from mmrec.nn.fusion.concat import ConcatFusion
from mmrec.nn.fusion.cross_attention import CrossAttentionFusion
from mmrec.nn.fusion.experts import ExpertsFusion
from mmrec.nn.fusion.film import FiLMFusion
from mmrec.nn.fusion.gated import GatedFusion, SENetFusion
from mmrec.nn.fusion.pca import PCAFusion, SeparatePCAFusion
from mmrec.nn.fusion.precomputed import PrecomputedFusion
from mmrec.nn.fusion.projected_sum import MeanFusion, SumFusion
from mmrec.nn.fusion.semantic_ids import SemanticIdDenseFusion, SemanticIdFusion
from mmrec.nn.part import Part, Registry


def _precomputed(
    *, image_dim: int, text_dim: int, out_dim: int, learn_absent: bool = True
) -> PrecomputedFusion:
    if out_dim != image_dim:
        raise InputError(
            f"a precomputed fusion is as wide as its vectors, {image_dim}, got out_dim {out_dim}"
        )
    return PrecomputedFusion(image_dim=image_dim, learn_absent=learn_absent)


FUSIONS: Registry[Fusion] = Registry(
    "fusion",
    {
        "attention": AttentionFusion,
        "bilinear": BilinearFusion,
        "concat": ConcatFusion,
        "cross_attention": CrossAttentionFusion,
        "film": FiLMFusion,
        "gmu": GatedFusion,
        "lmf": LowRankFusion,
        "mean": MeanFusion,
        "moe": ExpertsFusion,
        "pca": PCAFusion,
        "pca_each": SeparatePCAFusion,
        "precomputed": _precomputed,
        "semantic_ids": SemanticIdFusion,
        "semantic_ids_dense": SemanticIdDenseFusion,
        "senet": SENetFusion,
        "sum": SumFusion,
    },
)
"""Name -> a callable with the keywords image_dim, text_dim, out_dim and options of its own.

One's own: `FUSIONS["mine"] = MyFusion`.
"""


def build_fusion(
    name: str, *, image_dim: int, text_dim: int, out_dim: int = 128, **options: Any
) -> Fusion:
    """The fusion of that name.

    Raises:
        InputError: no such name, or an option that this fusion does not have.

    >>> build_fusion("concat", image_dim=5, text_dim=3, out_dim=2).out_dim
    2
    """
    return FUSIONS.build(
        Part(name, options), image_dim=image_dim, text_dim=text_dim, out_dim=out_dim
    )

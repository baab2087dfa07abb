"""Modality dropout: train with one of several modalities missing, so as not to lean on any."""

from typing import cast

import torch
from torch import Tensor, nn

from mmrec.errors import probability
from mmrec.nn.fusion.base import Fusion, Present, Vectors


class ModalityDropout(nn.Module):
    """Any fusion, that in training loses one of several present modalities by `chance`.

    Which one is even odds; a lone modality always stays. For models of one's own: `ItemEncoder`
    has the same as `modality_dropout`. Source: arXiv:1501.00102.
    """

    def __init__(self, *, fusion: Fusion, chance: float) -> None:
        super().__init__()
        probability(chance=chance)
        self.fusion, self.chance, self.out_dim = cast(nn.Module, fusion), chance, fusion.out_dim

    def forward(self, vectors: Vectors, present: Present) -> Tensor:
        if self.training and self.chance > 0:
            present = drop_modality(present, self.chance)
        return cast(Tensor, self.fusion(vectors, present))


def drop_modality(present: Present, chance: float) -> dict[str, Tensor]:
    """The masks (...) with, by `chance`, one of several present modalities gone."""
    masks = torch.stack([present[name] for name in sorted(present)])  # (M, ...)
    count = masks.sum(0)
    draw = torch.rand(count.shape, device=masks.device)
    # The how-manieth present one goes; by 1 - chance it is one that there is not.
    which = (draw * count / chance).long()
    gone = (masks.cumsum(0) - 1 == which) & (count > 1)
    return dict(zip(sorted(present), (masks & ~gone).unbind(0), strict=True))

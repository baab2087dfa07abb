"""Modality dropout: train with one of two modalities missing, so as not to lean on either."""

from typing import cast

import torch
from torch import Tensor, nn

from mmrec.errors import probability
from mmrec.nn.fusion.base import Fusion


class ModalityDropout(nn.Module):
    """Any fusion, that in training loses one of two present modalities by `chance`.

    Which one is even odds; a lone modality always stays. For models of one's own: `ItemEncoder`
    has the same as `modality_dropout`. Source: arXiv:1501.00102.
    """

    def __init__(self, *, fusion: Fusion, chance: float) -> None:
        super().__init__()
        probability(chance=chance)
        self.fusion, self.chance, self.out_dim = cast(nn.Module, fusion), chance, fusion.out_dim

    def forward(self, image: Tensor, text: Tensor, has_image: Tensor, has_text: Tensor) -> Tensor:
        if self.training and self.chance > 0:
            has_image, has_text = drop_modality(has_image, has_text, self.chance)
        return cast(Tensor, self.fusion(image, text, has_image, has_text))


def drop_modality(has_image: Tensor, has_text: Tensor, chance: float) -> tuple[Tensor, Tensor]:
    """The masks (...) with, by `chance`, one of two present modalities gone."""
    draw = torch.rand(has_image.shape, device=has_image.device)
    both = has_image & has_text
    return has_image & ~(both & (draw < chance / 2)), has_text & ~(both & (draw > 1 - chance / 2))

"""Principal components: no training, the baseline that any trained fusion has to beat.

N items, X width of an input.
"""

from typing import cast

import torch
from torch import Tensor, nn

from mmrec.errors import InputError, positive, require
from mmrec.nn.fusion.base import Estimated, TwoModalFusion


class PCA(Estimated):
    """y = Pᵀ (x - μ) / σ_1, P the first `out_dim` eigenvectors of the covariance of the rows.

    σ_1, the deviation along the first, brings the values to the size of one without bending the
    space. `estimate` must come first; what it finds belongs to the checkpoint, nothing is trained.
    """

    def __init__(self, *, in_dim: int, out_dim: int) -> None:
        super().__init__()
        positive(in_dim=in_dim, out_dim=out_dim)
        require(
            out_dim <= in_dim,
            f"there are no more components than dimensions, {in_dim}, got out_dim {out_dim}",
        )
        self.out_dim = out_dim
        self.mean = nn.Buffer(torch.zeros(in_dim))
        self.components = nn.Buffer(torch.full((in_dim, out_dim), float("nan")))

    @torch.no_grad()
    def estimate(self, x: Tensor) -> None:
        """Rows (N, X), in float64 inside; the largest entry of each eigenvector is positive."""
        rows = x.double()
        require(len(rows) >= 2, f"principal components need at least 2 rows, got {len(rows)}")
        mean = rows.mean(0)
        values, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
        vectors = vectors.flip(1)[:, : self.out_dim]
        peak = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
        scale = values[-1].clamp(min=1e-12).sqrt()
        self.mean.copy_(mean)
        self.components.copy_(vectors * peak.sign() / scale)
        self.look()

    def forward(self, x: Tensor) -> Tensor:
        if not self.estimated:
            raise InputError("components must be estimated before use: call estimate(...)")
        return (x - self.mean) @ self.components


class PCAFusion(TwoModalFusion):
    """Principal components of [x_image; x_text]; see `PCA`. An absent vector counts as the mean.

    Parameters: none but Di + Dt for the absent vectors, which are trained.
    Source: Pearson 1901; for frozen content in click models, arXiv:2504.18961.
    """

    def __init__(self, *, image_dim: int, text_dim: int, out_dim: int = 128) -> None:
        super().__init__(image_dim=image_dim, text_dim=text_dim, out_dim=out_dim)
        self.pca = PCA(in_dim=image_dim + text_dim, out_dim=out_dim)

    @property
    def estimated(self) -> bool:
        return self.pca.estimated

    def estimate(self, image: Tensor, text: Tensor, has_image: Tensor, has_text: Tensor) -> None:
        """Image (N, Di), text (N, Dt) and their presence."""
        both = [mean_filled(image, has_image), mean_filled(text, has_text)]
        self.pca.estimate(torch.cat(both, dim=-1))

    def fuse(self, image: Tensor, text: Tensor) -> Tensor:
        return cast(Tensor, self.pca(torch.cat([image, text], dim=-1)))


class SeparatePCAFusion(TwoModalFusion):
    """[PCA_image(x_image); PCA_text(x_text)], each estimated on the rows that have it; see `PCA`.

    The text gets min(D // 2, Dt) dimensions, the image the rest.
    Parameters: none but Di + Dt for the absent vectors, which are trained.
    Source: arXiv:2504.18961.
    """

    def __init__(self, *, image_dim: int, text_dim: int, out_dim: int = 128) -> None:
        super().__init__(image_dim=image_dim, text_dim=text_dim, out_dim=out_dim)
        of_text = min(max(out_dim // 2, out_dim - image_dim), text_dim)
        require(
            1 <= of_text < out_dim,
            f"out_dim must leave a dimension to each modality, got {out_dim}",
        )
        self.image = PCA(in_dim=image_dim, out_dim=out_dim - of_text)
        self.text = PCA(in_dim=text_dim, out_dim=of_text)

    @property
    def estimated(self) -> bool:
        return self.image.estimated and self.text.estimated

    def estimate(self, image: Tensor, text: Tensor, has_image: Tensor, has_text: Tensor) -> None:
        """Image (N, Di), text (N, Dt) and their presence."""
        self.image.estimate(image[has_image])
        self.text.estimate(text[has_text])

    def fuse(self, image: Tensor, text: Tensor) -> Tensor:
        return torch.cat([self.image(image), self.text(text)], dim=-1)


def mean_filled(x: Tensor, present: Tensor) -> Tensor:
    """(N, X) with the mean of the present rows in the absent ones."""
    if not present.any():
        return torch.zeros_like(x)
    return torch.where(present.unsqueeze(-1), x, x[present].mean(0))

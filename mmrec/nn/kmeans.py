"""K-means in PyTorch, small and deterministic.

N rows, X width, K clusters.
"""

import torch
from torch import Tensor

SAMPLE = 20_000


def kmeans(x: Tensor, *, clusters: int, seed: int = 0, rounds: int = 20) -> Tensor:
    """Centres (K, X) of rows (N, X), by Lloyd's rounds from distinct rows drawn by `seed`.

    Beyond 20,000 rows a sample of them is used. An empty cluster keeps its centre; with fewer rows
    than clusters the rows repeat.

    >>> kmeans(torch.tensor([[0.0], [1.0], [10.0], [11.0]]), clusters=2).sort(0).values
    tensor([[ 0.5000],
            [10.5000]])
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(x), generator=generator).to(x.device)
    x = x[order[:SAMPLE]]
    centres = _spread_out(x, clusters, generator)
    for _ in range(rounds):
        code = nearest(x, centres)
        total = torch.zeros_like(centres).index_add_(0, code, x)
        count = torch.bincount(code, minlength=clusters).unsqueeze(1)
        centres = torch.where(count > 0, total / count.clamp(min=1), centres)
    return centres


def nearest(x: Tensor, centres: Tensor) -> Tensor:
    """(..., X) and (K, X) -> (...) int64, the nearest centre; ties go to the first."""
    # ‖x‖² is the same for all centres and leaves the comparison.
    return (centres.square().sum(-1) - x @ (2 * centres).T).argmin(-1)


def _spread_out(x: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """k-means++: each start is drawn by its squared distance to those drawn before."""
    length = x.square().sum(-1)
    chosen = [x[0]]
    gap = _squared_distance(x, length, x[0])
    for _ in range(1, clusters):
        total = gap.double().cumsum(0)
        draw = torch.rand((), generator=generator, dtype=torch.float64).to(x.device) * total[-1]
        index = torch.searchsorted(total, draw).clamp(max=len(x) - 1)
        chosen.append(x[index])
        gap = torch.minimum(gap, _squared_distance(x, length, x[index]))
    return torch.stack(chosen)


def _squared_distance(x: Tensor, length: Tensor, point: Tensor) -> Tensor:
    """‖x - point‖² of rows with squared lengths (N,), in one pass over x."""
    return (length - 2 * (x @ point) + point.square().sum()).clamp(min=0)

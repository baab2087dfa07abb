"""Sequence encoders one row at a time: only the real items are ever looked at."""

from __future__ import annotations

import math
from collections.abc import Callable

Vector = list[float]


def real_items(history: list[Vector], valid: list[bool]) -> list[Vector]:
    return [item for item, there in zip(history, valid, strict=True) if there]


def mean_pool(history: list[Vector], valid: list[bool], dim: int) -> Vector:
    items = real_items(history, valid)
    return [sum(item[i] for item in items) / max(1, len(items)) for i in range(dim)]


def din(
    history: list[Vector],
    target: Vector,
    valid: list[bool],
    score: Callable[[Vector], float],
    softmax: bool,
) -> Vector:
    """Σ a_l h_l with a_l = score([h; t; h - t; h ⊙ t])."""
    items = real_items(history, valid)
    weights = []
    for item in items:
        difference = [a - b for a, b in zip(item, target, strict=True)]
        product = [a * b for a, b in zip(item, target, strict=True)]
        weights.append(score([*item, *target, *difference, *product]))
    if softmax:
        total = sum(math.exp(weight) for weight in weights)
        weights = [math.exp(weight) / total for weight in weights]
    return [
        sum(weight * item[i] for weight, item in zip(weights, items, strict=True))
        for i in range(len(target))
    ]


def relu_attention(
    keys: list[Vector], values: list[Vector], query: Vector, valid: list[bool], heads: int
) -> Vector:
    """Σ_l relu(q·k_l / √d) v_l, head by head."""
    keys, values = real_items(keys, valid), real_items(values, valid)
    size = len(query) // heads
    out = [0.0] * len(query)
    for head in range(heads):
        span = range(head * size, (head + 1) * size)
        for key, value in zip(keys, values, strict=True):
            score = max(0.0, sum(query[i] * key[i] for i in span) / math.sqrt(size))
            for i in span:
                out[i] += score * value[i]
    return out

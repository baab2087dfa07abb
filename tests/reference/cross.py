"""Cross networks as their papers write them: scalars, loops, float64."""

from __future__ import annotations

import math

Vector = list[float]
Matrix = list[list[float]]


def cross_v2(x0: Vector, weights: list[Matrix], biases: list[Vector]) -> Vector:
    """x_{l+1} = x_0 ⊙ (W_l x_l + b_l) + x_l."""
    x = list(x0)
    for weight, bias in zip(weights, biases, strict=True):
        step = []
        for i in range(len(x0)):
            total = bias[i]
            for j in range(len(x0)):
                total += weight[i][j] * x[j]
            step.append(x0[i] * total + x[i])
        x = step
    return x


def cross_mix(
    x0: Vector,
    gates: Matrix,
    u: list[list[Matrix]],
    v: list[list[Matrix]],
    c: list[list[Matrix]],
    biases: list[Vector],
) -> Vector:
    """x_{l+1} = x_l + Σ_e softmax_e(g_eᵀ x_l) · x_0 ⊙ (U tanh(C tanh(Vᵀ x_l)) + b).

    C of an expert is C[s][r], from rank r to rank s; U and V are [i][r].
    """
    x = list(x0)
    dim, experts = len(x0), len(gates)
    for layer, bias in enumerate(biases):
        scores = [sum(gates[e][i] * x[i] for i in range(dim)) for e in range(experts)]
        total = sum(math.exp(score) for score in scores)
        step = list(x)
        for e in range(experts):
            ranks = range(len(c[layer][e]))
            low = [math.tanh(sum(v[layer][e][i][r] * x[i] for i in range(dim))) for r in ranks]
            mid = [math.tanh(sum(c[layer][e][s][r] * low[r] for r in ranks)) for s in ranks]
            for i in range(dim):
                back = sum(u[layer][e][i][r] * mid[r] for r in ranks) + bias[i]
                step[i] += math.exp(scores[e]) / total * x0[i] * back
        x = step
    return x

"""Every fusion for one item, as its docstring writes it: Python floats and loops.

`weights` is the module's state as nested lists. x holds the vectors by name, in the order of the
names, already filled where they were absent, unless a function says otherwise.
"""

from __future__ import annotations

import math
from typing import Any

Vector = list[float]
Matrix = list[list[float]]
Weights = dict[str, Any]
Items = dict[str, Vector]


def times(matrix: Matrix, x: Vector) -> Vector:
    out = []
    for row in matrix:
        total = 0.0
        for a, b in zip(row, x, strict=True):
            total += a * b
        out.append(total)
    return out


def add(x: Vector, y: Vector) -> Vector:
    return [a + b for a, b in zip(x, y, strict=True)]


def linear(weights: Weights, name: str, x: Vector) -> Vector:
    out = times(weights[f"{name}.weight"], x)
    return add(out, weights[f"{name}.bias"]) if f"{name}.bias" in weights else out


def norm(weights: Weights, name: str, x: Vector) -> Vector:
    mean = sum(x) / len(x)
    deviation = math.sqrt(sum((a - mean) ** 2 for a in x) / len(x) + 1e-5)
    scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return [(a - mean) / deviation * s + b for a, s, b in zip(x, scale, shift, strict=True)]


def softmax(x: Vector) -> Vector:
    total = sum(math.exp(a) for a in x)
    return [math.exp(a) / total for a in x]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def joined(x: Items) -> Vector:
    return [a for vector in x.values() for a in vector]


def concat(weights: Weights, x: Items) -> Vector:
    return linear(weights, "linear", joined(x))


def attention(weights: Weights, x: Items) -> Vector:
    projected = [linear(weights, f"project.{name}", vector) for name, vector in x.items()]
    if len(projected) == 1:
        return norm(weights, "norm", projected[0])
    scores = []
    for z in projected:
        key = [math.tanh(a) for a in linear(weights, "key", z)]
        scores.append(linear(weights, "score", key)[0])
    mixed = [0.0] * len(projected[0])
    for share, z in zip(softmax(scores), projected, strict=True):
        mixed = add(mixed, [share * a for a in z])
    return norm(weights, "norm", mixed)


def normed(weights: Weights, name: str, x: Vector) -> Vector:
    return norm(weights, f"project.{name}.1", linear(weights, f"project.{name}.0", x))


def summed(weights: Weights, x: Items) -> Vector:
    parts = [normed(weights, name, vector) for name, vector in x.items()]
    return [sum(values) for values in zip(*parts, strict=True)]


def mean(weights: Weights, x: dict[str, Vector | None]) -> Vector:
    """A vector is None where absent."""
    parts = [normed(weights, name, vector) for name, vector in x.items() if vector is not None]
    if not parts:
        return list(weights["nothing"])
    return [sum(values) / len(parts) for values in zip(*parts, strict=True)]


def gmu(weights: Weights, x: Items) -> Vector:
    """Dimension by dimension; the last modality's logit is 0."""
    shown = [[math.tanh(a) for a in linear(weights, f"project.{n}", v)] for n, v in x.items()]
    if len(shown) == 1:
        return shown[0]
    logit, size, out = linear(weights, "gate", joined(x)), len(shown[0]), []
    for d in range(size):
        share = softmax([logit[m * size + d] for m in range(len(shown) - 1)] + [0.0])
        out.append(sum(share[m] * shown[m][d] for m in range(len(shown))))
    return out


def senet(weights: Weights, x: Items) -> Vector:
    whole = joined(x)
    squeezed = [max(0.0, a) for a in linear(weights, "squeeze", whole)]
    weight = [2 * sigmoid(a) for a in linear(weights, "excite", squeezed)]
    return linear(weights, "linear", [a * w for a, w in zip(whole, weight, strict=True)])


def lmf(weights: Weights, x: Items) -> Vector:
    out = list(weights["bias"])
    factors = [linear(weights, f"factor.{name}", vector) for name, vector in x.items()]
    for r, weight in enumerate(weights["weight"]):
        for d in range(len(out)):
            product = weight
            for factor in factors:
                product *= factor[r * len(out) + d]
            out[d] += product
    return out


def bilinear(weights: Weights, x: Items) -> Vector:
    p = [[*linear(weights, f"squeeze.{name}", vector), 1.0] for name, vector in x.items()]
    pairs = [(m, n) for m in range(len(p)) for n in range(m + 1, len(p))] or [(0, 0)]
    out = []
    for core in weights["core.weight"]:
        total, place = 0.0, 0
        for m, n in pairs:
            for a in p[m]:
                for b in p[n]:
                    total += a * core[place] * b
                    place += 1
        out.append(total)
    return out


def cross_attention(weights: Weights, x: Items, tokens: int, width: int) -> Vector:
    def cut(flat: Vector) -> Matrix:
        return [flat[t * width : (t + 1) * width] for t in range(tokens)]

    def look(name: str, own: Matrix, other: Matrix) -> Vector:
        out: Vector = []
        for token in own:
            query = linear(weights, f"{name}.query", token)
            scores = []
            for seen in other:
                key = linear(weights, f"{name}.key", seen)
                scores.append(sum(a * b for a, b in zip(query, key, strict=True)))
            share = softmax([score / math.sqrt(width) for score in scores])
            mixed = list(token)
            for weight, seen in zip(share, other, strict=True):
                value = linear(weights, f"{name}.value", seen)
                mixed = [m + weight * v for m, v in zip(mixed, value, strict=True)]
            out += norm(weights, f"{name}.norm", mixed)
        return out

    own = {name: cut(linear(weights, f"project.{name}", vector)) for name, vector in x.items()}
    looked: Vector = []
    for name in own:
        others = [token for other in own if other != name for token in own[other]]
        looked += look(f"look.{name}", own[name], others or own[name])
    return linear(weights, "out", looked)


def film(weights: Weights, x: Items, context: Vector | None = None) -> Vector:
    z = concat(weights, x)
    if context is None:
        return z
    change = linear(weights, "modulate", context)
    gamma, beta = change[: len(z)], change[len(z) :]
    return [(1 + g) * a + b for g, a, b in zip(gamma, z, beta, strict=True)]


def moe(weights: Weights, x: Items) -> Vector:
    gate = softmax(linear(weights, "gate", joined(x)))
    answers = linear(weights, "experts", joined(x))
    size = len(answers) // len(gate)
    return [sum(g * answers[e * size + d] for e, g in enumerate(gate)) for d in range(size)]


def pca(weights: Weights, name: str, x: Vector) -> Vector:
    prefix = f"{name}." if name else ""
    centred = [a - m for a, m in zip(x, weights[f"{prefix}mean"], strict=True)]
    columns = zip(*weights[f"{prefix}components"], strict=True)
    return [sum(a * b for a, b in zip(centred, column, strict=True)) for column in columns]


def semantic_codes(
    weights: Weights, x: dict[str, Vector | None], dims: dict[str, int]
) -> list[int]:
    """A vector is None where absent: zero after centring."""
    filled: Vector = []
    for name, vector in x.items():
        start = len(filled)
        filled += weights["mean"][start : start + dims[name]] if vector is None else vector
    columns = zip(filled, weights["mean"], weights["scale"], strict=True)
    residual = [(a - m) * s for a, m, s in columns]
    codes = []
    for book in weights["quantizer.codebooks"]:
        distances = [sum((r - c) ** 2 for r, c in zip(residual, row, strict=True)) for row in book]
        code = distances.index(min(distances))
        residual = [r - c for r, c in zip(residual, book[code], strict=True)]
        codes.append(code)
    return codes


def semantic_ids(weights: Weights, x: dict[str, Vector | None], dims: dict[str, int]) -> Vector:
    size = len(weights["quantizer.codebooks"][0])
    out = [0.0] * len(weights["embedding.weight"][0])
    for level, code in enumerate(semantic_codes(weights, x, dims)):
        out = add(out, weights["embedding.weight"][level * size + code])
    for name, vector in x.items():
        out = add(out, weights[f"absent.{name}"]) if vector is None else out
    return out

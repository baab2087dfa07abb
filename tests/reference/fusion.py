"""Every fusion for one item, as its docstring writes it: Python floats and loops.

`weights` is the module's state as nested lists. x is the image, y the text, both already filled
where they were absent, unless a function says otherwise.
"""

from __future__ import annotations

import math
from typing import Any

Vector = list[float]
Matrix = list[list[float]]
Weights = dict[str, Any]


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


def concat(weights: Weights, x: Vector, y: Vector) -> Vector:
    return linear(weights, "linear", x + y)


def attention(weights: Weights, x: Vector, y: Vector) -> Vector:
    projected = [linear(weights, "image", x), linear(weights, "text", y)]
    scores = []
    for z in projected:
        key = [math.tanh(a) for a in linear(weights, "key", z)]
        scores.append(linear(weights, "score", key)[0])
    share = softmax(scores)
    mixed = [share[0] * a + share[1] * b for a, b in zip(*projected, strict=True)]
    return norm(weights, "norm", mixed)


def summed(weights: Weights, x: Vector, y: Vector) -> Vector:
    return add(
        norm(weights, "image.1", linear(weights, "image.0", x)),
        norm(weights, "text.1", linear(weights, "text.0", y)),
    )


def mean(weights: Weights, x: Vector | None, y: Vector | None) -> Vector:
    """x or y is None where absent."""
    parts = []
    if x is not None:
        parts.append(norm(weights, "image.1", linear(weights, "image.0", x)))
    if y is not None:
        parts.append(norm(weights, "text.1", linear(weights, "text.0", y)))
    if not parts:
        return list(weights["nothing"])
    return [sum(values) / len(parts) for values in zip(*parts, strict=True)]


def gmu(weights: Weights, x: Vector, y: Vector) -> Vector:
    gate = [sigmoid(a) for a in linear(weights, "gate", x + y)]
    image = [math.tanh(a) for a in linear(weights, "image", x)]
    text = [math.tanh(a) for a in linear(weights, "text", y)]
    return [g * a + (1 - g) * b for g, a, b in zip(gate, image, text, strict=True)]


def senet(weights: Weights, x: Vector, y: Vector) -> Vector:
    squeezed = [max(0.0, a) for a in linear(weights, "squeeze", x + y)]
    weight = [2 * sigmoid(a) for a in linear(weights, "excite", squeezed)]
    return linear(weights, "linear", [a * w for a, w in zip(x + y, weight, strict=True)])


def lmf(weights: Weights, x: Vector, y: Vector) -> Vector:
    out = list(weights["bias"])
    image, text = linear(weights, "image", x), linear(weights, "text", y)
    for r, weight in enumerate(weights["weight"]):
        for d in range(len(out)):
            out[d] += weight * image[r * len(out) + d] * text[r * len(out) + d]
    return out


def bilinear(weights: Weights, x: Vector, y: Vector) -> Vector:
    p, q = [*linear(weights, "image", x), 1.0], [*linear(weights, "text", y), 1.0]
    out = []
    for core in weights["core.weight"]:
        total = 0.0
        for a in range(len(p)):
            for b in range(len(q)):
                total += p[a] * core[a * len(q) + b] * q[b]
        out.append(total)
    return out


def cross_attention(weights: Weights, x: Vector, y: Vector, tokens: int, width: int) -> Vector:
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

    image, text = cut(linear(weights, "image", x)), cut(linear(weights, "text", y))
    both = look("image_to_text", image, text) + look("text_to_image", text, image)
    return linear(weights, "out", both)


def film(weights: Weights, x: Vector, y: Vector, context: Vector | None = None) -> Vector:
    z = linear(weights, "linear", x + y)
    if context is None:
        return z
    change = linear(weights, "modulate", context)
    gamma, beta = change[: len(z)], change[len(z) :]
    return [(1 + g) * a + b for g, a, b in zip(gamma, z, beta, strict=True)]


def moe(weights: Weights, x: Vector, y: Vector) -> Vector:
    gate = softmax(linear(weights, "gate", x + y))
    answers = linear(weights, "experts", x + y)
    size = len(answers) // len(gate)
    return [sum(g * answers[e * size + d] for e, g in enumerate(gate)) for d in range(size)]


def pca(weights: Weights, name: str, x: Vector) -> Vector:
    prefix = f"{name}." if name else ""
    centred = [a - m for a, m in zip(x, weights[f"{prefix}mean"], strict=True)]
    columns = zip(*weights[f"{prefix}components"], strict=True)
    return [sum(a * b for a, b in zip(centred, column, strict=True)) for column in columns]


def semantic_codes(
    weights: Weights, x: Vector | None, y: Vector | None, image_dim: int
) -> list[int]:
    """x or y is None where absent: zero after centring."""
    mean_, scale = weights["mean"], weights["scale"]
    image = mean_[:image_dim] if x is None else x
    text = mean_[image_dim:] if y is None else y
    residual = [(a - m) * s for a, m, s in zip(image + text, mean_, scale, strict=True)]
    codes = []
    for book in weights["quantizer.codebooks"]:
        distances = [sum((r - c) ** 2 for r, c in zip(residual, row, strict=True)) for row in book]
        code = distances.index(min(distances))
        residual = [r - c for r, c in zip(residual, book[code], strict=True)]
        codes.append(code)
    return codes


def semantic_ids(weights: Weights, x: Vector | None, y: Vector | None, image_dim: int) -> Vector:
    size = len(weights["quantizer.codebooks"][0])
    out = [0.0] * len(weights["no_image"])
    for level, code in enumerate(semantic_codes(weights, x, y, image_dim)):
        out = add(out, weights["embedding.weight"][level * size + code])
    out = add(out, weights["no_image"]) if x is None else out
    return add(out, weights["no_text"]) if y is None else out

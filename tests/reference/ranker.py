"""The ranker one row at a time, written from its equations: no padding, no batch, no sharing.

Works on the parameters of a `Ranker` with AttentionFusion, TargetTransformer (post-norm),
CrossNetV2 beside an MLP, users and biases, so that gradients can be compared too.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from mmrec.batch import Batch


def slow_logits(ranker: Any, batch: Batch) -> Tensor:
    return torch.stack([_row(ranker, batch, row) for row in range(len(batch))])


def _row(ranker: Any, batch: Batch, row: int) -> Tensor:
    places = [i for i in range(batch.history.shape[1]) if int(batch.history[row, i]) != 0]
    target = _item(ranker.items, int(batch.target[row]))
    whole = ranker.history_content
    same = target if whole else _item(ranker.items, int(batch.target[row]), content=False)
    tokens = []
    for place in places:
        item = _item(ranker.items, int(batch.history[row, place]), content=whole)
        about = ranker.history_features
        if about is not None:
            item = item + sum(_categories(about.categorical, batch.history_categorical[row, place]))
            item = item + sum(_numbers(about.numeric, batch.history_numeric[row, place]))
        tokens.append(torch.cat([item, same]))
    parts = []
    place = 0
    if ranker.user_index is not None:
        known = ranker.user_index.known.tolist()
        user = int(batch.user[row])
        place = known.index(user) + 1 if user in known else 0
    if ranker.users is not None:
        parts.append(ranker.users.table.weight[place])
    if ranker.recency is not None:
        parts.append(_recency(ranker, batch, row, places))
    parts.append(_sequence(ranker.sequence, tokens, target))
    if ranker.categorical is not None:
        parts += _categories(ranker.categorical, batch.categorical[row])
    if ranker.numeric is not None:
        parts += _numbers(ranker.numeric, batch.numeric[row])
    parts.append(target)
    if ranker.affinity is not None:
        parts += _affinity(ranker, batch, row, places)
    x = torch.cat(parts)
    interaction = ranker.interaction
    if interaction.squeeze is not None:
        linear, norm = interaction.squeeze
        x = _norm(linear.weight @ x + linear.bias, norm)
    cross, deep = interaction.parts
    crossed = x
    for layer in cross.layers:
        crossed = x * (layer.weight @ crossed + layer.bias) + crossed
    logits = []
    for task, head in enumerate(ranker.heads):
        logit = _mlp(head, torch.cat([crossed, _mlp(deep, x)]))[0]
        if ranker.wide is not None:
            logit = logit + ranker.wide.item.weight[int(batch.target[row]), task]
            logit = logit + ranker.wide.user.weight[place, task]
        logits.append(logit)
    return logits[0] if len(logits) == 1 else torch.stack(logits)


def _categories(encoder: Any, values: Tensor) -> list[Tensor]:
    """The vector of each column of one value: the unknown's where training did not know it."""
    vectors, first = [], 0
    for value, known in zip(values.tolist(), encoder.known.split(encoder.sizes), strict=True):
        names = known.tolist()
        place = names.index(value) + 1 if value in names else 0
        vectors.append(encoder.table.weight[first + place])
        first += 1 + len(names)
    return vectors


def _numbers(encoder: Any, values: Tensor) -> list[Tensor]:
    """The vector of each number, that of the absent where it is NaN."""
    vectors = []
    for column, value in enumerate(values.tolist()):
        if math.isnan(value):
            vectors.append(encoder.absent[column])
            continue
        z = (value - encoder.standardized.mean[column]) * encoder.standardized.scale[column]
        vectors.append(z * encoder.weight[column] + encoder.bias[column])
    return vectors


def _recency(ranker: Any, batch: Batch, row: int, places: list[int]) -> Tensor:
    """Shares of each sign, the newest in weight."""
    recency, signs, found = ranker.recency, ranker.signs, []
    for column, value in zip(signs.column.tolist(), signs.value.tolist(), strict=True):
        for head in range(len(recency.log_rate)):
            mass, signed = torch.zeros(()).double(), torch.zeros(()).double()
            for age, place in enumerate(reversed(places)):
                weight = (-age * recency.log_rate[head].exp()).exp()
                mass = mass + weight
                if int(batch.history_categorical[row, place, column]) == value:
                    signed = signed + weight
            prior = recency.log_prior[head].exp()
            found.append(4 * ((signed + prior / 2) / (mass + prior) - 0.5))
    return torch.stack(found)


def _affinity(ranker: Any, batch: Batch, row: int, places: list[int]) -> list[Tensor]:
    """Mass and shares of what is like the target, space by space and head by head."""
    found, affinity, target = [], ranker.affinity, int(batch.target[row])
    for space, sets in enumerate(ranker.items.spaces):
        for head in range(affinity.log_temperature.shape[1]):
            mass: Any = 0.0
            signed: list[Any] = [0.0] * affinity.signs
            for place in places:
                item = int(batch.history[row, place])
                if not (sets.present[item] and sets.present[target]):
                    continue
                cosine = (sets.unit[item] * sets.unit[target]).sum()
                weight = ((cosine - 1) / affinity.log_temperature[space, head].exp()).exp()
                mass = mass + weight
                pairs = zip(ranker.signs.column.tolist(), ranker.signs.value.tolist(), strict=True)
                for sign, (column, value) in enumerate(pairs):
                    if int(batch.history_categorical[row, place, column]) == value:
                        signed[sign] = signed[sign] + weight
            found.append(((torch.as_tensor(mass).double() + 1e-3).log() + 2) / 2)
            if affinity.log_prior is None:
                continue
            prior = affinity.log_prior[space, head].exp()
            found += [4 * ((some + prior / 2) / (mass + prior) - 0.5) for some in signed]
    return [torch.stack([value.reshape(()) for value in found])]


def _item(items: Any, item: int, content: bool = True) -> Tensor:
    known = items.known is None or bool(items.known[item])
    identity = items.ids.weight[item] if known else items.unknown
    tags = [int(tag) for tag in items.tags[item] if int(tag) != 0]
    tag = sum((items.tag.weight[t] for t in tags), torch.zeros_like(items.tag.weight[0]))
    parts = [identity, tag / max(1, len(tags))]
    if items.categorical is not None:
        parts += _categories(items.categorical, items.categories[item])
    if items.numeric is not None:
        parts += _numbers(items.numeric, items.numbers[item])
    return torch.cat([*parts, _fused(items, item)] if content else parts)


def _fused(items: Any, item: int) -> Tensor:
    fusion = items.fusion
    projected = []
    for name, features in items.modalities.items():
        if not bool(features.present[item]):
            vector = fusion.absent[name]
        elif features.pca is None:
            mean, scale = features.moments
            vector = (features.vectors[item].to(mean.dtype) - mean) * scale
        else:
            vector = features.unit[item] * features.length[item]
        linear = fusion.project[name]
        projected.append(linear.weight @ vector + linear.bias)
    scores = []
    for z in projected:
        key = torch.tanh(fusion.key.weight @ z + fusion.key.bias)
        scores.append((fusion.score.weight[0] * key).sum().exp())
    mixed = sum(s * z for s, z in zip(scores, projected, strict=True)) / sum(scores)
    fused = _norm(mixed, fusion.norm)
    if items.narrow is not None:
        fused = items.narrow.weight @ fused + items.narrow.bias
    return fused


def _sequence(encoder: Any, tokens: list[Tensor], target: Tensor) -> Tensor:
    width = encoder.pool.weight.shape[0]
    if not tokens:
        return torch.cat([target.new_zeros(encoder.last * width), encoder.pool.bias])
    if encoder.project is not None:
        tokens = [encoder.project.weight @ x + encoder.project.bias for x in tokens]
    for layer in encoder.layers:
        tokens = _layer(layer, tokens)
    tail = [target.new_zeros(width)] * encoder.last + tokens
    largest = torch.stack(tokens).max(0).values
    pooled = encoder.pool.weight @ largest + encoder.pool.bias
    return torch.cat([*tail[len(tail) - encoder.last :], pooled])


def _layer(layer: Any, tokens: list[Tensor]) -> list[Tensor]:
    width = len(tokens[0])
    size = width // layer.heads
    qkv = [layer.qkv.weight @ x + layer.qkv.bias for x in tokens]
    out = []
    for x, own in zip(tokens, qkv, strict=True):
        heads = []
        for head in range(layer.heads):
            span = slice(head * size, (head + 1) * size)
            query = own[:width][span]
            scores = torch.stack(
                [query @ other[width : 2 * width][span] / math.sqrt(size) for other in qkv]
            ).exp()
            values = [other[2 * width :][span] for other in qkv]
            mixed = sum(s * v for s, v in zip(scores, values, strict=True)) / scores.sum()
            heads.append(mixed)
        attended = layer.out.weight @ torch.cat(heads) + layer.out.bias
        x = _norm(x + attended, layer.norm1)
        hidden = (layer.linear1.weight @ x + layer.linear1.bias).clamp(min=0)
        out.append(_norm(x + layer.linear2.weight @ hidden + layer.linear2.bias, layer.norm2))
    return out


def _mlp(mlp: Any, x: Tensor) -> Tensor:
    for layer in mlp.layers:
        if isinstance(layer, nn.Linear):
            x = layer.weight @ x + layer.bias
        elif isinstance(layer, nn.ReLU):
            x = x.clamp(min=0)
    return x


def _norm(x: Tensor, norm: Any) -> Tensor:
    centred = x - x.mean()
    return centred / (centred.square().mean() + norm.eps).sqrt() * norm.weight + norm.bias

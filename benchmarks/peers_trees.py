"""LightGBM on causal statistics and on similarities of target and history (`mmrec[peers]`).

    row          its categories and numbers, length of the history, what is known of its newest item
    user, item   share of clicks in the rows of train strictly before, and how many there were
                 the same share by folds: what an id's vector may learn of train, without its row
    content      components of the target; for image, text and tags the cosine of the target with
                 each item of the history: the greatest, the mean of the closest 5, of all, of the
                 newest 10; where the history has signs each of them of the liked and of the
                 disliked items, and the liked share, weighted by softmax(cosine / T)

B rows, L history, N items.
"""

from __future__ import annotations

import functools
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peers_rows import Rows, content_of, read_rows, standardised
from peers_search import Outcome
from torch import Tensor

from mmrec.batch import Batch
from mmrec.data.clicks import SPLITS
from mmrec.errors import require
from mmrec.metrics.auc import auc

TEMPERATURES = (0.05, 0.2)
PRIOR = 5.0  # rows of the overall share that a share starts with
ROUNDS, PATIENCE = 4000, 50
BLOCK = 1024  # items whose cosines with all others are held at once
CLOSEST, NEWEST, COMPONENTS, FOLDS = 5, 10, 16, 5
Floats = NDArray[np.float32]


@functools.lru_cache(maxsize=1)
def features_of(root: Path) -> tuple[dict[str, Floats], float]:
    """Split -> (B, F), NaN = missing, and the CPU seconds that it took."""
    rows = read_rows(root)
    began = time.process_time()
    content = content_of(root)[0][:, :COMPONENTS].numpy()
    unit = [unit_rows(vectors) for vectors in modalities(rows)]
    found = {}
    for name in SPLITS:
        batch = rows.split(name)
        parts = [plain(batch), content[batch.target]]
        for of in ("user", "target"):
            parts += [before(rows, name, of), other_folds(rows, name, of)]
        parts += [similarities(batch, vectors, rows.sign) for vectors in unit]
        found[name] = np.concatenate(parts, axis=1, dtype=np.float32)
    return found, time.process_time() - began


def modalities(rows: Rows) -> list[Tensor]:
    """(N, D) each: the modalities and tags, standardised or as they are."""
    items = rows.items
    tags = torch.zeros(items.num_items, items.num_tags)
    tags.scatter_(1, items.tags, 1.0)
    tags[:, 0] = 0.0
    return [*(standardised(x, items.present[name]) for name, x in items.vectors.items()), tags]


def unit_rows(vectors: Tensor) -> Tensor:
    """(N, D) of length 1, zeros where there is nothing."""
    return torch.nn.functional.normalize(vectors, dim=1)


def plain(batch: Batch) -> Floats:
    """(B, F) what the row itself says."""
    parts = [
        batch.categorical.numpy(),
        batch.numeric.numpy(),
        batch.valid.sum(1, keepdim=True).numpy(),
        batch.history_numeric[:, -1].numpy(),
    ]
    return np.concatenate(parts, axis=1, dtype=np.float32)


def before(rows: Rows, split: str, of: str) -> Floats:
    """(B, 2): share of clicks and number of the rows of train with the same id at an earlier time.

    The share starts from that of all of train, as `PRIOR` rows.
    """
    train, batch = rows.train, rows.split(split)
    label = train.labels[:, 0].numpy().astype(np.float64)
    id_, asked = getattr(train, of).numpy(), getattr(batch, of).numpy()
    names, times = np.unique(id_), np.unique(rows.time["train"])
    base = len(times) + 1

    def places(ids: NDArray[Any], split: str) -> NDArray[np.int64]:
        """A key that is ordered by id, then by time."""
        moment = np.searchsorted(times, rows.time[split])
        return np.asarray(np.searchsorted(names, ids) * base + moment, dtype=np.int64)

    key = places(id_, "train")
    order = np.argsort(key, kind="stable")
    clicks = np.concatenate([[0.0], np.cumsum(label[order])])
    wanted = places(asked, split)
    end = np.searchsorted(key[order], wanted)  # rows of smaller ids, and of this one before
    start = np.searchsorted(key[order], wanted // base * base)
    known = np.isin(asked, names)
    count = (end - start) * known
    hits = (clicks[end] - clicks[start]) * known
    share = (hits + PRIOR * label.mean()) / (count + PRIOR)
    return np.stack([share, count], axis=1).astype(np.float32)


def other_folds(rows: Rows, split: str, of: str) -> Floats:
    """(B, 1) share of clicks in train's rows with the same id, for rows of train in other folds."""
    train, batch = rows.train, rows.split(split)
    label = train.labels[:, 0].numpy().astype(np.float64)
    names, place = np.unique(getattr(train, of).numpy(), return_inverse=True)
    fold = np.random.default_rng(0).integers(0, FOLDS, len(label))
    shape = (FOLDS, len(names))
    at = fold * len(names) + place
    count = np.bincount(at, minlength=FOLDS * len(names)).reshape(shape)
    hits = np.bincount(at, label, minlength=FOLDS * len(names)).reshape(shape)
    asked = getattr(batch, of).numpy()
    here = np.searchsorted(names, asked).clip(max=len(names) - 1)
    known = names[here] == asked
    n, clicks = count.sum(0)[here] * known, hits.sum(0)[here] * known
    if split == "train":
        n, clicks = n - count[fold, place], clicks - hits[fold, place]
    share = (clicks + PRIOR * label.mean()) / (n + PRIOR)
    return np.asarray(share[:, None], dtype=np.float32)


def similarities(batch: Batch, unit: Tensor, sign: int | None) -> Floats:
    """(B, F) of one modality; a block of targets at a time against all items."""
    has, found = unit.any(1), []
    order = batch.target.argsort(stable=True)
    block = batch.target[order] // BLOCK
    for rows in torch.split(order, torch.bincount(block).tolist()):
        if not len(rows):
            continue
        history, target = batch.history[rows], batch.target[rows]
        first = int(target[0]) // BLOCK * BLOCK
        gram = unit[first : first + BLOCK] @ unit.T
        cosine = gram[(target - first).unsqueeze(1), history]  # (B, L)
        there = (history != 0) & has[history] & has[target].unsqueeze(1)
        liked = None if sign is None else batch.history_categorical[rows, :, sign] == 1
        found.append(summaries(cosine, there, liked))
    joined = torch.cat(found)
    return torch.empty_like(joined).index_copy_(0, order, joined).numpy()


def summaries(cosine: Tensor, there: Tensor, liked: Tensor | None) -> Tensor:
    """(B, F) of (B, L) cosines."""
    groups = [there] if liked is None else [there & liked, there & ~liked]
    found = []
    for group in groups:
        best = cosine.where(group, -torch.inf).topk(min(CLOSEST, cosine.shape[1]), dim=1).values
        some = best.isfinite()
        found.append(best[:, 0])
        found.append(best.where(some, 0.0).sum(1) / some.sum(1))
        for part in (slice(None), slice(-NEWEST, None)):
            of = group[:, part]
            found.append(cosine[:, part].where(of, 0.0).sum(1) / of.sum(1))
    if liked is not None:
        for temperature in TEMPERATURES:
            weight = (cosine / temperature).where(there, -torch.inf).softmax(1)
            found.append((weight * liked).sum(1))  # NaN where there is no history
    values = torch.stack(found, dim=1)
    return values.where(values.isfinite(), torch.nan)


def train(name: str, setting: dict[str, Any], seed: int, root: Path) -> Outcome:
    """Boost until valid's AUC has not risen for `PATIENCE` rounds."""
    require(find_spec("lightgbm"), f"{name} needs lightgbm: pip install 'mmrec[peers]'")
    rows, (features, prepared) = read_rows(root), features_of(root)
    label = {split: rows.split(split).labels[:, 0].numpy() for split in ("train", "valid")}
    began = time.process_time()
    booster, moments = boost(features, label, setting | {"seed": seed})
    best = booster.best_iteration
    done = time.process_time() - began
    logit = {
        split: np.asarray(booster.predict(features[split], raw_score=True, num_iteration=best))
        for split in ("valid", "test")
    }
    return Outcome(
        valid_auc=auc(label["valid"], logit["valid"]),
        prepare_seconds=prepared,
        best_seconds=moments[best - 1] - began,
        seconds=done,
        rows_per_second=None,
        parameters=sum(tree["num_leaves"] for tree in booster.dump_model()["tree_info"][:best]),
        best_at=f"{best} trees",
        valid=logit["valid"].astype(np.float32),
        test=logit["test"].astype(np.float32),
    )


def boost(
    features: dict[str, Floats], label: dict[str, Floats], setting: dict[str, Any]
) -> tuple[Any, list[float]]:
    """The booster, and the process's CPU seconds at the end of each round."""
    import lightgbm

    moments: list[float] = []

    def note(_: Any) -> None:
        moments.append(time.process_time())

    options = {
        "objective": "binary",
        "metric": "auc",
        "num_threads": 1,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "verbosity": -1,
    }
    data = lightgbm.Dataset(features["train"], label["train"])
    valid = data.create_valid(features["valid"], label["valid"])
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    booster = lightgbm.train(
        options | setting, data, ROUNDS, valid_sets=[valid], callbacks=[note, stop]
    )
    return booster, moments

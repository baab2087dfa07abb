"""A model that learns in a second, and an in-memory loader with every right a loader has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmrec.batch import Batch
from mmrec.train import TrainConfig

USERS, ITEMS, LENGTH = 23, 31, 5


def rows_of(n: int, seed: int) -> dict[str, np.ndarray]:
    """n rows whose click probability depends on target and history."""
    rng = np.random.default_rng(seed)
    history = rng.integers(0, ITEMS, (n, LENGTH))
    target = rng.integers(1, ITEMS, n)
    taste = np.random.default_rng(99).normal(size=(ITEMS,)) * 1.5
    logit = taste[target] + 0.5 * (taste[history] * (history > 0)).mean(1)
    return {
        "user": rng.integers(1, USERS, n),
        "history": history,
        "target": target,
        "context": rng.integers(0, 11, (n, 2)),
        "label": (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(np.float32),
    }


class ToyLoader:
    """Order is a function of (seed, epoch); draws global randomness of its own, as DataLoader does.

    Each rank takes every `world_size`-th row of a global batch.
    """

    def __init__(
        self,
        n: int = 203,
        *,
        batch_size: int = 16,
        seed: int = 0,
        data_seed: int = 1,
        shuffle: bool = True,
        labelled: bool = True,
        rank: int = 0,
        world_size: int = 1,
        hook: Callable[[int], None] | None = None,
        change: Callable[[Batch], Batch] | None = None,
    ) -> None:
        self.columns = rows_of(n, data_seed)
        self.n, self.batch_size, self.seed, self.shuffle = n, batch_size, seed, shuffle
        self.labelled, self.rank, self.world_size = labelled, rank, world_size
        self.data_seed = data_seed
        self.hook, self.change = hook, change
        self.start = (0, 0)
        self.given = 0

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    def seek(self, *, epoch: int, batch: int) -> None:
        self.start = (epoch, batch)

    def fingerprint(self) -> dict[str, Any]:
        names = ("n", "batch_size", "seed", "data_seed", "shuffle")
        return {name: getattr(self, name) for name in names}

    def __iter__(self) -> Iterator[Batch]:
        epoch, first = self.start
        torch.rand(3)  # a careless loader: consumes the generator that dropout uses
        order = np.arange(self.n)
        if self.shuffle:
            order = np.random.default_rng((self.seed, epoch)).permutation(self.n)
        for number in range(first, len(self)):
            self.given += 1
            if self.hook is not None:
                self.hook(self.given)
            whole = order[number * self.batch_size : (number + 1) * self.batch_size]
            batch = self._batch(whole[self.rank :: self.world_size])
            yield batch if self.change is None else self.change(batch)

    def _batch(self, rows: np.ndarray) -> Batch:
        def ids(name: str) -> Tensor:
            return torch.from_numpy(self.columns[name][rows]).long()

        label = torch.from_numpy(self.columns["label"][rows]).unsqueeze(1)
        return Batch.of(
            user=ids("user"),
            history=ids("history"),
            target=ids("target"),
            categorical=ids("context"),
            labels=label if self.labelled else label[:, :0],
            row=torch.from_numpy(rows).long(),
        )


class ToyModel(nn.Module):
    """Target and mean history through a small MLP with dropout."""

    def __init__(self, *, seed: int = 5, dropout: float = 0.3, width: int = 7) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.items = nn.Embedding(ITEMS, width, padding_idx=0)
        self.context = nn.EmbeddingBag(11, width, mode="sum")
        self.hidden = nn.Linear(3 * width, 13)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(13, 1)

    def forward(self, batch: Batch) -> Tensor:
        valid = batch.valid.unsqueeze(-1)
        past = (self.items(batch.history) * valid).sum(1) / valid.sum(1).clamp(min=1)
        parts = [self.items(batch.target), past, self.context(batch.categorical)]
        hidden = self.dropout(torch.relu(self.hidden(torch.cat(parts, dim=-1))))
        return self.head(hidden).squeeze(-1)


def toy_config(**changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "epochs": 3,
        "learning_rate": 0.01,
        "log_every": 5,
        "device": "cpu",
        "progress": False,
        "patience": None,
    }
    return TrainConfig(**{**settings, **changes})


class Stopped(Exception):
    """Stands in for a crash."""


def crash_at(batch: int) -> Callable[[int], None]:
    """A hook that raises when that batch is asked for, counted over the loader's life."""

    def hook(given: int) -> None:
        if given == batch:
            raise Stopped

    return hook


def state_of(out: Path) -> dict[str, Any]:
    """Everything that must be equal after a resume: tensors, progress and logged losses."""
    from mmrec.train import load_checkpoint, read_log

    last, best = load_checkpoint(out, "last"), load_checkpoint(out, "best")
    timed = {"rows_per_second", "data_wait"}
    return {
        "last": last.tensors,
        "best": best.tensors,
        "progress": last.content["progress"],
        "metrics": best.content["metrics"],
        "log": [{k: v for k, v in line.items() if k not in timed} for line in read_log(out)],
    }


def assert_same_state(one: dict[str, Any], other: dict[str, Any]) -> None:
    for part in ("last", "best"):
        assert one[part].keys() == other[part].keys()
        for name, tensor in one[part].items():
            assert torch.equal(tensor, other[part][name]), f"{part}/{name} differs"
    for part in ("progress", "metrics", "log"):
        assert one[part] == other[part], part

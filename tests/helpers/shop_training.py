"""Training on the shop's log, and the same files under another schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mmrec import (
    Batch,
    ClickData,
    Inputs,
    ItemTable,
    Schema,
    build_ranker,
    describe,
    fit,
    get_recipe,
)
from mmrec.data.counts import count_clicks
from mmrec.models import Ranker
from mmrec.schema import FILE
from mmrec.stream.loader import Loader

RECIPE = get_recipe("small").changed(
    {
        "items.id_dim": 0,
        "items.content_dim": 8,
        "history.encoder": "mean",
        "interaction.mlp": (32,),
        "interaction.dropout": 0.0,
        "context.wide": False,
        "training.epochs": 5,
        "training.learning_rate": 5e-3,
        "training.weight_decay": 0.0,
        "training.embedding_weight_decay": 0.0,
        "training.progress": False,
        "training.device": "cpu",
    }
)


@dataclass(frozen=True)
class Trained:
    data: ClickData
    ranker: Ranker


@dataclass
class Tapped:
    """A loader that is interrupted when it gives a batch."""

    loader: Loader[Batch]
    stop_at: int | None

    def __post_init__(self) -> None:
        self.seek, self.fingerprint = self.loader.seek, self.loader.fingerprint

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        for number, batch in enumerate(self.loader):
            if number == self.stop_at:
                raise KeyboardInterrupt
            yield batch


def train(
    root: Path, out: Path, *, stop_at: int | None = None, workers: int = 0, **changes: Any
) -> Trained:
    data = ClickData.open(root)
    items = ItemTable.read(data.item_info, data.schema.items, data.features)
    counts = count_clicks(data.train, data.schema.clicks, data.num_items)
    inputs, recipe = Inputs.of(data, counts, items), RECIPE.changed(changes)
    torch.manual_seed(0)
    ranker = build_ranker(recipe, items, inputs)
    loader = data.loader("train", batch_size=128, shuffle=True, workers=workers)
    fit(
        ranker,
        Tapped(loader, stop_at),
        data.loader("valid"),
        config=recipe.training,
        out=out,
        recipe=describe(recipe, inputs),
    )
    return Trained(data, ranker)


def rewritten(shop: Path, folder: Path, schema: Schema) -> Path:
    """The same files under another schema.json."""
    root = folder / "data"
    root.mkdir()
    for path in shop.glob("*.parquet"):
        (root / path.name).symlink_to(path)
    (root / FILE).write_text(json.dumps(schema.to_dict()))
    return root

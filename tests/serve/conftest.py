"""A small shop in which every role plays, and rankers over it with telling weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from shop import SCHEMA, make_shop

from mmrec import Batch, ClickData, Inputs, ItemTable, Recipe, build_ranker, get_recipe
from mmrec.data.counts import count_clicks
from mmrec.models import Ranker
from mmrec.schema import Categorical, Schema

LIKED = replace(SCHEMA.clicks.history_categorical[0], limit=2)
CLICKS = replace(SCHEMA.clicks, history_categorical=(LIKED,))
OF_SHOP = Schema(CLICKS, SCHEMA.items)
SMALL = get_recipe("small").changed(
    {"items.content_dim": 8, "items.content_width": 5, "items.components": 2, "context.wide": True}
)
assert isinstance(LIKED, Categorical)


@dataclass(frozen=True)
class Shop:
    root: Path
    data: ClickData
    items: ItemTable
    inputs: Inputs
    rows: list[dict[str, Any]]  # of valid, as they stand in the file
    batch: Batch  # the same rows

    def ranker(self, recipe: Recipe = SMALL, **changes: Any) -> Ranker:
        """In float64, evaluation mode, with no parameter left at a telling value such as zero."""
        torch.manual_seed(1)
        ranker = build_ranker(recipe.changed(changes), self.items, self.inputs)
        with torch.no_grad():
            for parameter in ranker.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        return ranker.double().eval()

    def request(self, row: dict[str, Any], **other: Any) -> dict[str, Any]:
        """What a service is asked for a row of the file, as plain data."""
        clicks = self.data.schema.clicks
        names = [c.name for c in (*clicks.categorical, *clicks.history_categorical)]
        names += [*clicks.numeric, *clicks.history_numeric]
        return {
            "history": row[clicks.history],
            "candidates": [row[clicks.target]],
            "user": row[str(clicks.user)],
            "columns": {name: row[name] for name in names},
            **other,
        }


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    root = make_shop(tmp_path_factory.mktemp("served") / "data", (600, 60, 20), schema=OF_SHOP)
    data = ClickData.open(root)
    items = ItemTable.read(data.item_info, data.schema.items, data.features)
    counts = count_clicks(data.train, data.schema.clicks, data.num_items)
    known = torch.arange(100, 250)
    inputs = Inputs.of(data, counts, items, known_users=known)
    rows = pq.read_table(root / "valid.parquet").to_pylist()
    batch = next(iter(data.loader("valid", batch_size=len(rows))))
    return Shop(root, data, items, inputs, rows, batch)

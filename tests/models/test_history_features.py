"""Whether earlier items were liked: the model learns what the truth gains by knowing it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mmrec import ClickData, Inputs, ItemTable, build_ranker, describe, fit, get_recipe
from mmrec.data.counts import count_clicks
from mmrec.datasets.click_model import ClickModel
from mmrec.datasets.synthetic import SyntheticConfig, make_synthetic

CLICKS = ClickModel(
    bias=0.0, image_weight=0.6, text_weight=0.6, interaction_weight=0.0, liked_weight=1.5
)


DIN = {"name": "din", "hidden": (64,)}
ADDED = {
    "history.encoder": DIN,
    "history.content": True,
    "history.affinity": 0,
    "history.recency": 0,
}
WAYS = {
    "added to the vectors": (ADDED, ADDED | {"history.features": False}),
    "signs of the affinity": (
        {"history.features": False},
        {"history.features": False, "history.affinity": 0, "history.recency": 0},
    ),
}


@pytest.mark.parametrize(("aware", "unaware"), WAYS.values(), ids=WAYS.keys())
def test_most_of_the_truths_gain_is_closed(
    aware: dict[str, Any], unaware: dict[str, Any], tmp_path: Path
) -> None:
    config = SyntheticConfig(
        num_items=100, rows=(20_000, 3_000, 500), content="features", model=CLICKS
    )
    truth = make_synthetic(tmp_path / "data", config)["valid"]
    data = ClickData.open(tmp_path / "data")
    items = ItemTable.read(data.item_info, data.schema.items, data.features)
    inputs = Inputs.of(data, count_clicks(data.train, data.schema.clicks, data.num_items), items)
    found = {}
    for features, change in ((True, aware), (False, unaware)):
        recipe = get_recipe("small").changed(
            {
                **change,
                "items.content_dim": 16,
                "items.fusion": "concat",
                "interaction.mlp": (64,),
                "interaction.dropout": 0.0,
                "context.wide": False,
                "training.epochs": 4,
                "training.learning_rate": 5e-3,
                "training.progress": False,
                "training.device": "cpu",
            }
        )
        torch.manual_seed(0)
        result = fit(
            build_ranker(recipe, items, inputs),
            data.loader("train", batch_size=128, shuffle=True),
            data.loader("valid"),
            config=recipe.training,
            out=tmp_path / str(features),
            recipe=describe(recipe, inputs),
        )
        found[features] = result.best["auc"]
    gain = truth["auc"] - truth["auc_unaware"]
    assert gain > 0.1
    assert found[True] - found[False] >= 0.8 * gain

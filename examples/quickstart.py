"""Little data, a ranker, its score: python examples/quickstart.py (half a minute on two cores)."""

from pathlib import Path
from tempfile import mkdtemp

import torch

from mmrec import ClickData, Inputs, ItemTable, build_ranker, describe, fit, get_recipe, predict
from mmrec.data.counts import count_clicks
from mmrec.datasets.synthetic import SyntheticConfig, make_synthetic

# Clicks on 400 items with image and text vectors, as parquet: train, valid, test and item_info.
root = Path(mkdtemp())
config = SyntheticConfig(num_items=400, rows=(20_000, 3_000, 3_000), content="features")
truth = make_synthetic(root / "data", config)

# schema.json says which column plays which role. Everything is checked when it is opened.
data = ClickData.open(root / "data")
items = ItemTable.read(data.item_info, data.schema.items, data.features)

# A recipe is plain data; a variant names what it changes. Inputs are what train's rows show.
recipe = get_recipe("small").changed({"items.fusion": "gmu", "training.epochs": 2})
inputs = Inputs.of(data, count_clicks(data.train, data.schema.clicks, data.num_items), items)
torch.manual_seed(0)
ranker = build_ranker(recipe, items, inputs)

train = data.loader("train", batch_size=512, shuffle=True)
valid = data.loader("valid")
about, out = describe(recipe, inputs), root / "run"
result = fit(ranker, train, valid, config=recipe.training, out=out, recipe=about)

print(f"valid AUC {result.best['auc']:.4f}, of the truth {truth['valid']['auc']:.4f}")
rows, probability = predict(ranker, data.loader("test"))
print(f"test rows {rows[:3]}, click probabilities {probability[:3].round(3)}")

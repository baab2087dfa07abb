"""Little data, a ranker, its score: python examples/quickstart.py (half a minute on two cores)."""

from pathlib import Path
from tempfile import mkdtemp

import torch

from mmrec import ItemTable, MicroLens, build_ranker, fit, get_recipe, predict
from mmrec.data.counts import count_clicks
from mmrec.datasets.synthetic import SyntheticConfig, make_synthetic

# Clicks on 400 items with image and text vectors, as parquet: train, valid, test and item_info.
root = Path(mkdtemp())
config = SyntheticConfig(num_items=400, rows=(20_000, 3_000, 3_000), content="features")
truth = make_synthetic(root / "data", config)

# Everything is checked when it is opened; the item table stays on the model's device.
data = MicroLens.open(root / "data")
items = ItemTable.read(data.item_info, data.features)

# A recipe is plain data; a variant names what it changes.
recipe = get_recipe("small").changed({"items.fusion": "gmu", "training.epochs": 2})
torch.manual_seed(0)
known_items = count_clicks(data.train, data.num_items).known_items
ranker = build_ranker(recipe, items, known_items=known_items)

train = data.loader("train", batch_size=512, shuffle=True)
valid = data.loader("valid")
result = fit(
    ranker, train, valid, config=recipe.training, out=root / "run", recipe=recipe.binding()
)

print(f"valid AUC {result.best['auc']:.4f}, of the truth {truth['valid']['auc']:.4f}")
rows, probability = predict(ranker, data.loader("test"))
print(f"test rows {rows[:3]}, click probabilities {probability[:3].round(3)}")

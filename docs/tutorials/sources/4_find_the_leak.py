# %% [markdown]
# # Audit: finding the leak
#
# An AUC that is too good is usually a leak. Here one is planted as it happens in practice: somebody
# joins the histories after the clicks are known, so that the newest item of a history is the very
# item that was clicked. The truth is known, so you can see what the leak does.

# %%
import shutil
from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from mmrec import ClickData, Inputs, ItemTable, build_ranker, describe, fit, get_recipe, predict
from mmrec.audit import audit, explain
from mmrec.data.counts import count_clicks
from mmrec.datasets.synthetic import CLICKS_FOLDER, SyntheticConfig, make_synthetic
from mmrec.metrics import auc

work = Path(mkdtemp())
config = SyntheticConfig(num_items=400, rows=(12_000, 4_000, 4_000), content="features")
truth = make_synthetic(work / "sound", config)

# %% [markdown]
# ## Plant it
#
# In train and valid only. Rows of test are made by the live system, which does not know the future.

# %%
shutil.copytree(work / "sound", work / "leaking")
roles = ClickData.open(work / "sound").schema.clicks
rng = np.random.default_rng(0)
for split in ("train", "valid"):
    path = work / "leaking" / CLICKS_FOLDER / f"{split}.parquet"
    table = pq.read_table(path)
    history = np.array(table[roles.history].to_pylist())
    clicked = table[roles.labels[0]].to_numpy() == 1
    late = clicked & (rng.random(len(clicked)) < 0.7)  # seven clicks of ten
    history[late, :-1] = history[late, 1:]
    history[late, -1] = table[roles.target].to_numpy()[late]
    place = table.schema.get_field_index(roles.history)
    pq.write_table(table.set_column(place, roles.history, pa.array(list(history))), path)

# %% [markdown]
# ## What it does to an AUC

# %%
recipe = get_recipe("small").changed(
    {
        "items.content_dim": 32,
        "training.epochs": 3,
        "training.learning_rate": 2e-3,
        "training.progress": False,
        "batch_size": 256,
    }
)


def aucs(name):
    """AUC of valid, and of test, whose labels lie apart."""
    data = ClickData.open(work / name)
    items = ItemTable.read(data.item_info, data.schema.items, data.features)
    inputs = Inputs.of(data, count_clicks(data.train, data.schema.clicks, data.num_items), items)
    torch.manual_seed(0)
    ranker = build_ranker(recipe, items, inputs)
    result = fit(
        ranker,
        data.loader("train", batch_size=recipe.batch_size, shuffle=True),
        data.loader("valid"),
        config=recipe.training,
        out=work / f"run_{name}",
        recipe=describe(recipe, inputs),
    )
    label = pq.read_table(work / name / "test_labels.parquet")["label"].to_numpy()
    _, probability = predict(ranker, data.loader("test"), progress=False)
    return result.best["auc"], auc(label, probability)


found = {name: aucs(name) for name in ("sound", "leaking")}

# %%
figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
for offset, name in ((-0.18, "sound"), (0.18, "leaking")):
    values = np.array(found[name])
    axis.bar(np.arange(2) + offset, values - 0.5, 0.36, bottom=0.5, label=name)
    print(f"{name}: AUC of valid {values[0]:.4f}, of test {values[1]:.4f}")
assert found["leaking"][0] > truth["valid"]["auc"] > found["sound"][0]
axis.axhline(truth["valid"]["auc"], color="gray", ls=":", label="the truth: nobody can do better")
axis.set_xticks(range(2), ["valid", "test"])
axis.set(title="AUC", ylim=(0.5, 1))
axis.legend(loc="lower right")
# %% [markdown]
# Above what anybody can reach on valid, and worse than before on test: the ranker has learned to
# look where the answer stands. On your own data there is no grey line. There is the audit.

# %% [markdown]
# ## The audit
#
# It needs no model. `mmrec audit --data DATA --out DIR` writes the same as Markdown, JSON and a
# picture.

# %%
reports = {name: audit(work / name, images=0, progress=False) for name in ("sound", "leaking")}
for name, report in reports.items():
    print(f"{name}: {report.headlines()}\n")

# %%
before = {finding.name for finding in reports["sound"].findings}
for finding in reports["leaking"].findings:
    if finding.name not in before:
        sentence, advice = explain(finding)
        print(f"[{finding.severity}] {finding.name}\n  {sentence}\n  {advice}\n")

# %%
figure, axis = plt.subplots(figsize=(6, 2.8), layout="constrained")
for name in ("sound", "leaking"):
    table = pq.read_table(work / name / CLICKS_FOLDER / "train.parquet")
    history = np.array(table[roles.history].to_pylist())
    inside = (history == table[roles.target].to_numpy()[:, None]).any(1)
    clicked = table[roles.labels[0]].to_numpy() == 1
    shares = [inside[~clicked].mean(), inside[clicked].mean()]
    axis.plot(["not clicked", "clicked"], shares, "o-", label=name)
axis.set(title="rows whose target stands in their own history", ylim=(-0.05, 1))
axis.legend()
# %%
named = {finding.name for finding in reports["leaking"].serious}
assert named & {"target_in_history", "target_ends_history"}
assert not reports["sound"].serious

# %% [markdown]
# With `--strict` the command leaves with exit code 1 where a finding is serious: put it before the
# training in your pipeline. What each finding means: `docs/audit.md`.

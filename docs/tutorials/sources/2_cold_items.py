# %% [markdown]
# # Cold items: what content gives, and which fusion
#
# An item that nobody has clicked yet has no id vector worth anything. What a ranker knows of it is
# its picture and its words. Here the truth is known, since the clicks are drawn from a model, and a
# third of the items never shows up in train.

# %%
from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
import numpy as np
import torch

from mmrec import ClickData, Inputs, ItemTable, build_ranker, describe, fit, get_recipe
from mmrec.analysis import diagnose
from mmrec.data.counts import count_clicks, read_pairs
from mmrec.datasets.click_model import ClickModel
from mmrec.datasets.synthetic import SyntheticConfig, make_synthetic
from mmrec.metrics import bootstrap
from mmrec.train import score

work = Path(mkdtemp())
config = SyntheticConfig(
    num_items=500,
    unseen_share=0.3,
    missing_images=0.2,
    rows=(10_000, 5_000, 100),
    content="features",
    model=ClickModel(interaction_weight=0.4),
)
truth = make_synthetic(work / "data", config)

data = ClickData.open(work / "data")
items = ItemTable.read(data.item_info, data.schema.items, data.features)
counts = count_clicks(data.train, data.schema.clicks, data.num_items)
inputs = Inputs.of(data, counts, items)

pairs = read_pairs(data.valid, data.schema.clicks)
cold = ~counts.known_items.numpy()[pairs.item]
print(f"{cold.sum():,} of {len(cold):,} rows of valid are about items that train never shows")

# %% [markdown]
# ## One ranker for each fusion, and one without content
#
# All else is equal: recipe, seed, rows. `None` is a ranker of ids and columns alone.

# %%
base = get_recipe("small").changed(
    {
        "items.content_dim": 32,
        "training.epochs": 3,
        "training.learning_rate": 2e-3,
        "training.progress": False,
        "batch_size": 256,
    }
)


def trained(fusion):
    recipe = base.without_content() if fusion is None else base.changed({"items.fusion": fusion})
    torch.manual_seed(0)
    ranker = build_ranker(recipe, items, inputs)
    fit(
        ranker,
        data.loader("train", batch_size=recipe.batch_size, shuffle=True),
        data.loader("valid"),
        config=recipe.training,
        out=work / f"run_{fusion}",
        recipe=describe(recipe, inputs),
    )
    return ranker, score(ranker, data.loader("valid"))


runs = {name: trained(name) for name in (None, "concat", "gmu", "attention")}

# %% [markdown]
# ## AUC of items that are known, and of cold ones
#
# Intervals are over users (95 %): users are drawn with replacement, since rows of one user are not
# independent. For a difference of two rankers, subtract their resamplings: that is much narrower
# than the two intervals side by side.


# %%
def resampled(scores, rows):
    user, label, logit = scores.user[rows], scores.label[rows], scores.logit[rows]
    return bootstrap("auc", user, label, logit, replicates=300)


found = {
    (name, group): resampled(scores, rows)
    for name, (_, scores) in runs.items()
    for group, rows in (("known", ~cold), ("cold", cold))
}

figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
for offset, group in ((-0.18, "known"), (0.18, "cold")):
    values = [found[name, group].interval() for name in runs]
    at = np.arange(len(values)) + offset
    bars = [[v.value - v.low for v in values], [v.high - v.value for v in values]]
    axes[0].bar(at, [v.value - 0.5 for v in values], 0.36, bottom=0.5, yerr=bars, label=group)
axes[0].set_xticks(range(len(runs)), [str(name) for name in runs])
axes[0].set(title="AUC of valid", ylim=(0.5, None))
axes[0].legend(title="items")

fusions = [name for name in runs if name is not None]
for place, name in enumerate(fusions):
    gain = (found[name, "cold"] - found[None, "cold"]).interval()
    axes[1].plot([gain.low, gain.high], [place, place], lw=3)
    axes[1].plot(gain.value, place, "ko")
    print(f"{name:>10}: {gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}] on cold items")
axes[1].set_yticks(range(len(fusions)), fusions)
axes[1].axvline(0, color="gray", lw=0.8)
axes[1].set(title="cold items: AUC gained over no content")
# %% [markdown]
# Without content a ranker knows next to nothing of cold items; with it they rank about as well as
# known ones. Which fusion is best is another question: where the interval of a difference holds
# zero it is unclear, and more rows or seeds would have to tell.

# %%
best = max(fusions, key=lambda name: found[name, "cold"].value)
for name in fusions:
    if name != best:
        gap = (found[best, "cold"] - found[name, "cold"]).interval()
        verdict = "better" if gap.low > 0 else "unclear"
        print(f"{best} over {name}: {gap.value:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}] {verdict}")

# %% [markdown]
# ## What the ranker rests on
#
# `diagnose` spoils one input at a time and scores the same rows again. The AUC that is lost was
# carried by that input.

# %%
wanted = ("content permuted", "image permuted", "text permuted", "ids removed", "history shuffled")
report = diagnose(
    runs[best][0], data.loader("valid"), inputs=wanted, replicates=200, progress=False
)
figure, axis = plt.subplots(figsize=(7, 2.6), layout="constrained")
lost = [one.lost for one in report.contributions]
bars = [[v.value - v.low for v in lost], [v.high - v.value for v in lost]]
axis.barh([one.name for one in report.contributions], [v.value for v in lost], xerr=bars)
axis.invert_yaxis()
axis.set(title=f"AUC lost of {report.auc.value:.3f} ({best})")

# %% [markdown]
# Pictures are missing for a fifth of the items: a fusion is told so by a mask and puts a learned
# vector in their place. On your own data: `mmrec prepare --cold 0.05` holds items out of train, and
# `benchmarks/fusion.py` compares all fusions with several seeds.

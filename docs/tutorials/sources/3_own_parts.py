# %% [markdown]
# # Your own fusion, encoder of histories, and loss
#
# Each is one class with one method. A line registers it; from then on recipes, `--set` and
# benchmarks know its name.

# %%
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from mmrec import ClickData, Inputs, ItemTable, build_ranker, describe, fit, get_recipe
from mmrec.data.counts import count_clicks
from mmrec.datasets.synthetic import SyntheticConfig, make_synthetic
from mmrec.models import SEQUENCES
from mmrec.nn.fusion import FUSIONS, ModalFusion, build_fusion
from mmrec.train import read_log, score

# %% [markdown]
# ## A fusion
#
# It gets vectors (..., D_m) by the name of their modality and gives (..., out_dim). Where one is
# absent, `ModalFusion` has put a learned vector, so what stands there cannot leak.


# %%
class MaximumFusion(ModalFusion):
    """y = max_m (W_m x_m + b_m), dimension by dimension."""

    def __init__(self, *, dims, out_dim=128):
        super().__init__(dims=dims, out_dim=out_dim)
        self.project = nn.ModuleDict({name: nn.Linear(d, out_dim) for name, d in self.dims.items()})

    def fuse(self, x):
        return torch.stack([layer(x[name]) for name, layer in self.project.items()]).amax(0)


FUSIONS["maximum"] = MaximumFusion

# %% [markdown]
# The contract, tried: three modalities, one of them absent for half of the items. Changing what is
# absent changes nothing.

# %%
dims = {"image": 11, "text": 7, "audio": 5}
fusion = build_fusion("maximum", dims=dims, out_dim=13)
vectors = {name: torch.randn(4, dim) for name, dim in dims.items()}
present = {name: torch.ones(4, dtype=torch.bool) for name in dims}
present["audio"] = torch.tensor([True, False, True, False])
before = fusion(vectors, present)
vectors["audio"] = torch.where(present["audio"][:, None], vectors["audio"], torch.nan)
assert torch.equal(before, fusion(vectors, present))
with torch.no_grad():
    parts = [fusion.project[name](vectors[name]) for name in fusion.dims]
    largest = torch.stack(parts)[:, present["audio"]].argmax(0).numpy()
figure, axis = plt.subplots(figsize=(5, 2), layout="constrained")
shown = axis.imshow(largest, aspect="auto", cmap="viridis", vmin=0, vmax=2)
axis.set(
    xlabel="dimension", ylabel="item", title=f"which speaks: {', '.join(fusion.dims)} (0, 1, 2)"
)
figure.colorbar(shown, ticks=[0, 1, 2])

# %% [markdown]
# ## An encoder of histories
#
# history (B, L, D), target (B, D), valid (B, L) bool, True = a real item → (B, out_dim). Histories
# are padded on the left, so the newest item is the last.


# %%
class Recent(nn.Module):
    """Σ_l w_l h_l / Σ_l w_l, w_l = v_l exp(-age_l / τ), τ learned, age 0 the newest item."""

    def __init__(self, *, dim, tau=5.0):
        super().__init__()
        self.out_dim = dim
        self.log_tau = nn.Parameter(torch.tensor(float(tau)).log())

    def weights(self, valid):
        age = torch.arange(valid.shape[1] - 1, -1, -1, device=valid.device)
        return valid * torch.exp(-age / self.log_tau.exp())

    def forward(self, history, target, valid):
        weight = self.weights(valid).unsqueeze(-1)
        history = history.masked_fill(~valid.unsqueeze(-1), 0.0)  # padding may hold anything
        return (history * weight).sum(1) / weight.sum(1).clamp(min=1e-6)


SEQUENCES["recent"] = Recent

valid = torch.arange(6) >= torch.tensor([[6], [4], [0]])  # the first row has no history
history = torch.randn(3, 6, 8).masked_fill(~valid.unsqueeze(-1), torch.nan)
assert Recent(dim=8)(history, torch.randn(3, 8), valid).isfinite().all()

# %% [markdown]
# ## A loss
#
# (float32 logits, batch) → (B,), one number a row; the trainer takes their mean over the batch.
# A dataclass, so that its settings stand in the checkpoint and a resume with others is refused.


# %%
@dataclass(frozen=True)
class Focal:
    """(1 - p_y)^γ · BCE(logit, y): rows that are easy already count less. arXiv:1708.02002."""

    gamma: float = 1.0

    def __call__(self, logit, batch):
        label = batch.labels[:, 0]
        each = F.binary_cross_entropy_with_logits(logit.reshape(-1), label, reduction="none")
        return (1 - torch.exp(-each)) ** self.gamma * each


# %% [markdown]
# ## Train: as it is, and with each of the three
#
# The names are those that were registered; options of a part stand beside it.

# %%
work = Path(mkdtemp())
config = SyntheticConfig(num_items=400, rows=(8_000, 4_000, 100), content="features")
truth = make_synthetic(work / "data", config)
data = ClickData.open(work / "data")
items = ItemTable.read(data.item_info, data.schema.items, data.features)
inputs = Inputs.of(data, count_clicks(data.train, data.schema.clicks, data.num_items), items)
small = get_recipe("small").changed(
    {
        "items.content_dim": 32,
        "training.epochs": 3,
        "training.learning_rate": 2e-3,
        "training.log_every": 10,
        "training.progress": False,
        "batch_size": 256,
    }
)


def trained(name, loss=None, **changes):
    recipe = small.changed(changes)
    torch.manual_seed(0)
    ranker = build_ranker(recipe, items, inputs)
    fit(
        ranker,
        data.loader("train", batch_size=recipe.batch_size, shuffle=True),
        data.loader("valid"),
        config=recipe.training,
        out=work / name,
        recipe=describe(recipe, inputs),
        loss=loss,
    )
    return ranker, score(ranker, data.loader("valid"))


runs = {
    "as it is": trained("as it is"),
    "maximum": trained("maximum", **{"items.fusion": "maximum"}),
    "recent": trained(
        "recent",
        **{
            "history.encoder": {"name": "recent", "tau": 3.0},
            "history.affinity": 0,
            "history.recency": 0,
        },
    ),
    "focal": trained("focal", loss=Focal(gamma=1.0)),
}

# %%
figure, axes = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
for name in runs:
    some = [event for event in read_log(work / name) if event["event"] == "valid"]
    axes[0].plot([e["epoch"] for e in some], [e["auc"] for e in some], "o-", label=name)
axes[0].axhline(truth["valid"]["auc"], color="gray", ls=":", label="truth")
axes[0].set(xlabel="epoch", title="AUC of valid")
axes[0].legend()
encoder = runs["recent"][0].sequence
weight = encoder.weights(torch.ones(1, 20, dtype=torch.bool))[0].detach()
axes[1].bar(np.arange(20), weight.flip(0))
axes[1].set(xlabel="age in the history, 0 = newest", title="weights that `recent` learned")
for name in ("as it is", "focal"):
    scores = runs[name][1]
    axes[2].hist(scores.probability, bins=40, range=(0, 1), histtype="step", label=name)
axes[2].set(xlabel="predicted probability", title="the focal loss is no longer calibrated")
axes[2].legend()
for name, (_, scores) in runs.items():
    mean = scores.probability.mean()
    print(f"{name:>9}: AUC {scores.metrics()['auc']:.4f}, mean prediction {mean:.3f}")
print(f"share of clicks {runs['focal'][1].label.mean():.3f}")

# %% [markdown]
# One seed on a small data set says nothing of which is better. `benchmarks/fusion.py` compares
# fusions with several seeds and paired intervals; `docs/guides/modules.md` lists what is there.

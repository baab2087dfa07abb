# %% [markdown]
# # From a checkpoint to a service
#
# A training has ended. Now one user comes, with a history and a few hundred candidates, and the
# best ten have to be there in milliseconds.

# %%
import json
import time
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
import numpy as np
import torch

from mmrec import ClickData, ItemTable, predict
from mmrec.__main__ import main as mmrec
from mmrec.datasets.synthetic import SyntheticConfig, make_synthetic
from mmrec.predict import load_ranker
from mmrec.serve import Scorer
from mmrec.serve.answer import answer

work = Path(mkdtemp())
config = SyntheticConfig(
    num_items=2_000, rows=(8_000, 2_000, 500), history_length=50, content="features"
)
make_synthetic(work / "data", config)
mmrec(
    f"train --data {work}/data --out {work}/run --quiet --set training.epochs=1 "
    "--set items.content_dim=32 --set batch_size=256".split()
)

# %% [markdown]
# ## One user's request
#
# `Scorer.open` finds the best checkpoint and the data set's items. Every item is encoded once now,
# a history once a request.

# %%
scorer = Scorer.open(work / "run")
columns = {"likes_level": 5, "views_level": 5}  # categories of the row, as the schema names them
top = scorer.top_k([3, 14, 15, 92, 65], candidates=range(1, 501), k=5, columns=columns)
for name, probability in zip(top.items, top.probabilities, strict=True):
    print(f"item {name}: {probability:.3f}")

# %% [markdown]
# Its scores are the ranker's: the same row through the checkpoint and through the scorer.

# %%
data = ClickData.open(work / "data")
items = ItemTable.read(data.item_info, data.schema.items, data.features)
_, whole = predict(load_ranker(work / "run", items), data.loader("test"), progress=False)
batch = next(iter(data.loader("test")))
mine = []
for row in range(50):
    history = batch.history[row][batch.valid[row]].tolist()
    given = dict(zip(columns, batch.categorical[row].tolist(), strict=True))
    logit = scorer.score(history, [int(batch.target[row])], columns=given)[0]
    mine.append(1 / (1 + np.exp(-logit)))
np.abs(np.array(mine) - whole[:50]).max()

# %% [markdown]
# ## How long it takes
#
# Beside it: rows with the history repeated for each candidate, as a training batch has them. One
# thread, medians of a few; a measurement worth quoting is in `docs/guides/serving.md`.

# %%
torch.set_num_threads(1)
ranker = load_ranker(work / "run", items).eval()
past = np.random.default_rng(0).choice(np.arange(1, 2001), 50, replace=False).tolist()
one = replace(next(iter(data.loader("test", batch_size=1))), history=torch.tensor([past]))


def milliseconds(call, times=7):
    took = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        took.append(1000 * (time.perf_counter() - began))
    return np.median(took)


@torch.inference_mode()
def repeated(count):
    rows = one.map(lambda column: column.repeat(count, *[1] * (column.ndim - 1)))
    return ranker(rows)


counts = [1, 10, 100, 500, 1000, 2000]
scorer.score(past, range(1, 2001), columns=columns)  # finds the best chunk at the first call
times = {
    "Scorer": [
        milliseconds(lambda n=n: scorer.score(past, range(1, n + 1), columns=columns))
        for n in counts
    ],
    "rows repeated": [milliseconds(lambda n=n: repeated(n)) for n in counts],
}
figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
for name, values in times.items():
    axis.loglog(counts, values, "o-", label=name)
axis.set(xlabel="candidates of a request", ylabel="milliseconds", title="one user, one thread")
axis.legend()
# %% [markdown]
# ## New items
#
# They came after the training; their vectors and tags are enough to rank them. Here 300 of them
# get those of old items, to show what is lost: what an old item's own id has learned.

# %%
like = (items.present["image"] & items.present["text"]).nonzero().flatten()[:300].tolist()
vectors = {name: items.vectors[name][like].float().numpy() for name in ("image", "text")}
tags = [[tag for tag in some if tag] for some in items.tags[like].tolist()]
new = scorer.add(vectors, tags=tags)
old_logit = scorer.score(past, like, columns=columns)
new_logit = scorer.score(past, new, columns=columns)
figure, axis = plt.subplots(figsize=(3.6, 3.4), layout="constrained")
axis.plot(old_logit, new_logit, ".", ms=4)
axis.axline((0, 0), slope=1, color="gray", lw=0.8)
axis.set(xlabel="logit of the old item", ylabel="of a new one with its content")
assert np.corrcoef(old_logit, new_logit)[0, 1] > 0.5

# %% [markdown]
# Their order is much the same. In this data every item of train has tags: left out, a new item
# would be unlike all that the ranker has seen, and score so.

# %% [markdown]
# ## Requests as JSON
#
# `mmrec serve` answers a file of them, `examples/serve.py` the same by HTTP. A bad request gets one
# sentence.

# %%
request = {"id": "a", "history": past, "candidates": [9, 26, 5], "k": 2, "columns": columns}
lines = [request, {**request, "id": "b", "candidates": [9, 999_999]}]
(work / "requests.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
mmrec(["serve", f"{work}/run", "--requests", f"{work}/requests.jsonl"])
answer(scorer, request)

# %% [markdown]
# ## A program without mmrec
#
# `mmrec export` writes a `torch.export` program, or ONNX, and beside it what goes in.

# %%
mmrec(["export", f"{work}/run", f"{work}/ranker.pt2", "--form", "user"])
inputs = json.loads((work / "ranker.pt2.json").read_text())["inputs"]
for entry in inputs:
    print(entry["name"], entry["dtype"], entry["shape"], entry["columns"])

# %%
program = torch.export.load(work / "ranker.pt2").module()
candidates = torch.arange(1, 301)
given = {
    "history": torch.tensor(past),
    "candidates": candidates,
    "categorical": torch.tensor([list(columns.values())]).expand(300, -1),
}
with torch.inference_mode():
    exported = program(*(given[entry["name"]] for entry in inputs)).numpy()
served = scorer.score(past, candidates.tolist(), columns=columns)
figure, axis = plt.subplots(figsize=(3.4, 3.2), layout="constrained")
axis.plot(served, exported, ".", ms=3)
axis.set(xlabel="Scorer", ylabel="exported program", title="logits of 300 candidates")
assert np.abs(served - exported).max() < 1e-4

# %% [markdown]
# The items are inside the program: write it again after a new training. More:
# `docs/guides/serving.md`.

# %% [markdown]
# # From a shop's log to a scored file
#
# You have a log of what was shown and clicked, and a table of items. At the end you have
# `prediction.csv`: a click probability for every row, under your own keys. Five commands do it:
# `mmrec prepare`, `embed`, `audit`, `train`, `predict`. Here they are called from Python, with the
# words that you would type.

# %%
import csv
from pathlib import Path
from tempfile import mkdtemp
from zlib import crc32

import matplotlib.pyplot as plt
import numpy as np
import pyarrow.csv as pc
import torch

from mmrec import Schema
from mmrec.__main__ import main as mmrec
from mmrec.datasets.covers import draw_cover
from mmrec.embed import Preprocessing, embed_items
from mmrec.train import read_log

work = Path(mkdtemp())

# %% [markdown]
# ## The raw files
#
# Ids are text, times are text, some fields are empty, some pictures missing. Customers like one of
# five fields, which the words of a title and the colour of a picture tell.

# %%
rng = np.random.default_rng(0)
FIELDS = ["soup noodle bread chef", "goal match running gym", "guitar song piano drum"]
FIELDS += ["island beach hotel hike", "level boss quest pixel"]
ITEMS, CUSTOMERS, EVENTS = 500, 400, 12_000

field = rng.integers(0, 5, ITEMS)
(work / "pictures").mkdir()
with open(work / "items.csv", "w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(["sku", "name", "brand", "grams"])
    for item, kind in enumerate(field):
        if item % 8:  # the others have no picture
            picture = draw_cover(int(kind), int(kind), rng)
            (work / "pictures" / f"SKU-{item:04}.jpg").write_bytes(picture)
        words = " ".join(rng.choice(FIELDS[kind].split(), 2, replace=False))
        rows.writerow([f"SKU-{item:04}", f"my {words} {item}", f"brand {item % 9}", 50 + item % 97])

customer, item = rng.integers(0, CUSTOMERS, EVENTS), rng.integers(0, ITEMS, EVENTS)
seconds = np.sort(rng.integers(0, 60 * 86_400, EVENTS)) + 1_700_000_000
moment = np.datetime_as_string(seconds.astype("datetime64[s]"))
click = rng.random(EVENTS) < np.where(customer % 5 == field[item], 0.8, 0.1)
with open(work / "events.csv", "w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(["order", "customer", "sku", "moment", "click", "device"])
    for n in range(EVENTS):
        device = ["phone", "desktop", ""][n % 3]
        who, what = f"c{customer[n]:03}", f"SKU-{item[n]:04}"
        rows.writerow([f"o-{n:05}", who, what, f"{moment[n]}Z", int(click[n]), device])

for name in ("events.csv", "items.csv"):
    print(name, *(work / name).read_text().splitlines()[:3], sep="\n  ")

# %%
day = (seconds - seconds[0]) // 86_400
figure, axes = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
axes[0].plot(np.bincount(day))
axes[0].set(xlabel="day", title="events a day", ylim=(0, None))
shares = [
    [click[(customer % 5 == c) & (field[item] == f)].mean() for f in range(5)] for c in range(5)
]
image = axes[1].imshow(shares, vmin=0, vmax=1)
figure.colorbar(image, label="share of clicks")
axes[1].set(xlabel="field of the item", ylabel="group of customers")

# %% [markdown]
# ## Prepare
#
# You say which column plays which role. Each row gets a history and statistics of its own past
# only, and the log is cut by time: train, then valid, then test.

# %%
mmrec(
    f"prepare {work}/events.csv {work}/items.csv {work}/DATA --user customer --item sku "
    "--time moment --label click --row-id order --categorical device --title name "
    "--item-categorical brand --item-numeric grams --statistics item user "
    f"--image {{sku}}.jpg --image-folder {work}/pictures".split()
)

# %% [markdown]
# ## Vectors of pictures and titles
#
# `mmrec embed` takes both through a frozen CLIP. This notebook downloads nothing, so it brings two
# small encoders of its own: colours on a grid, and words hashed to 64 numbers. An encoder is a
# class with these members.


# %%
class Colours:
    """A picture to the mean colours of 4 x 4 fields."""

    name, out_dim, device, threads = "colours", 48, torch.device("cpu"), None
    preprocessing = Preprocessing(size=(32, 32), resize_mode="squash")

    def fingerprint(self):
        return {"encoder": self.name, "width": self.out_dim}

    def encode(self, pixels):  # (B, 3, 32, 32)
        return torch.nn.functional.avg_pool2d(pixels, 8).flatten(1)


class Words:
    """A caption to the sum of a random vector for each of its words."""

    name, out_dim, device, threads = "words", 64, torch.device("cpu"), None
    column = None  # of the table of items; None is the caption
    table = torch.randn(4096, 64, generator=torch.Generator().manual_seed(0))

    def fingerprint(self):
        return {"encoder": self.name, "width": self.out_dim}

    def prepare(self, captions):
        counts = torch.zeros(len(captions), 4096)
        for row, caption in enumerate(captions):
            for word in caption.split():
                counts[row, crc32(word.encode()) % 4096] += 1
        return counts

    def encode(self, counts):
        return counts @ self.table


schema = Schema.read(work / "DATA" / "schema.json")
report = embed_items(
    {"image": Colours(), "text": Words()},
    items=work / "DATA" / "item_feature.parquet",
    images=work / "DATA" / "item_images",
    out=work / "features",
    schema=schema.items,
    workers=0,
)
print(report)

# %% [markdown]
# ## Audit, then train
#
# The audit looks for what makes an AUC wrong: leaks, shifts, broken content. No serious finding: go
# on. Its warnings are of a log that has just begun: later rows have longer histories.
# `mmrec train` ends with a table that holds the ranker beside simple baselines.

# %%
mmrec(["audit", "--data", f"{work}/DATA"])

# %%
mmrec(
    f"train --data {work}/DATA --features {work}/features --out {work}/RUN --quiet "
    "--set training.epochs=3 --set batch_size=256 --set training.log_every=10".split()
)

# %%
events = read_log(work / "RUN" / "ranker")
figure, axes = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
for axis, name, value in ((axes[0], "train", "loss"), (axes[1], "valid", "auc")):
    some = [event for event in events if event["event"] == name]
    axis.plot([event["epochs"] for event in some], [event[value] for event in some], "o-", ms=3)
    axis.set(xlabel="epochs", title=f"{name}: {value}")

# %% [markdown]
# ## Score
#
# The run says by itself which data and features it was trained on. The file is keyed by `order`, as
# `--row-id` said.

# %%
mmrec(["predict", f"{work}/RUN", "--data", f"{work}/DATA", "--out", f"{work}/SCORED"])
scored = pc.read_csv(work / "SCORED" / "prediction.csv")
print(scored.slice(0, 5).to_pylist())

# %%
truth = {f"o-{n:05}": customer[n] % 5 == field[item[n]] for n in range(EVENTS)}
liked = np.array([truth[order] for order in scored["order"].to_pylist()])
probability = scored["click"].to_numpy()
figure, axis = plt.subplots(figsize=(6, 2.8), layout="constrained")
for kind, name in ((True, "item of the customer's field"), (False, "any other item")):
    axis.hist(probability[liked == kind], bins=40, range=(0, 1), alpha=0.6, label=name)
axis.set(xlabel="predicted click probability", title="rows of test")
axis.legend()

# %% [markdown]
# Nobody told the model about fields: it read them from titles, pictures and histories. Next: your
# own files (`docs/your_data.md`), other models (`mmrec train --recipe`, `--set`), rows of tomorrow
# (`mmrec prepare --like`).

"""How good is the stream's shuffle on a file in the worst order, sorted by label and a feature?

    python benchmarks/stream_quality.py     # some minutes; writes results/stream_quality.json

For each way of reading: Spearman's correlation of a row's place in the file and in the epoch (mean
of its size over seeds; 0 is a full shuffle), the spread of the label's share over batches (a full
shuffle has the binomial spread), and the AUC on unsorted rows of a logistic regression that was
trained in that order, mean and standard deviation over seeds.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from machine import provenance
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from mmrec.io.files import write_json
from mmrec.stream.repack import repack
from mmrec.stream.stream import ParquetStream

BATCH, WIDTH = 1024, 16
RESULT = Path(__file__).parent / "results" / "stream_quality.json"
Batches = Callable[[int, int], Iterator[dict[str, Tensor]]]


def make_data(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(features (n, 16), labels (n,)): a noisy linear rule, a quarter positive."""
    make = np.random.default_rng(seed)
    x = make.standard_normal((rows, WIDTH), dtype=np.float32)
    weights = np.random.default_rng(99).standard_normal(WIDTH)
    logit = x @ weights * 0.35 - 1.25
    return x, (make.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int64)


def write_sorted(path: Path, x: np.ndarray, label: np.ndarray) -> Path:
    order = np.lexsort((x[:, 0], label))
    lists = pa.FixedSizeListArray.from_arrays(pa.array(x[order].ravel()), WIDTH)
    pq.write_table(pa.table({"x": lists, "label": label[order]}), path)
    return path


def fully(path: Path) -> Batches:
    """Every row of the file in memory, in a random order."""
    whole: dict[str, Tensor] = next(iter(ParquetStream(path, batch_size=10**9)))

    def batches(seed: int, epoch: int) -> Iterator[dict[str, Tensor]]:
        generator = torch.Generator().manual_seed(1000 * seed + epoch)
        order = torch.randperm(len(whole["row"]), generator=generator)
        for index in torch.split(order, BATCH):
            yield {name: column[index] for name, column in whole.items()}

    return batches


def streamed(path: Path, **options: Any) -> Batches:
    def batches(seed: int, epoch: int) -> Iterator[dict[str, Tensor]]:
        stream = ParquetStream(
            path, **{"batch_size": BATCH, "shuffle": True, "seed": seed, **options}
        )
        stream.set_epoch(epoch)
        return iter(stream)

    return batches


def train(batches: Batches, seed: int, epochs: int, test: tuple[np.ndarray, np.ndarray]) -> float:
    torch.manual_seed(seed)
    model = nn.Linear(WIDTH, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for epoch in range(epochs):
        for batch in batches(seed, epoch):
            logit = model(batch["x"]).squeeze(1)
            loss = nn.functional.binary_cross_entropy_with_logits(logit, batch["label"].float())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.no_grad():
        score = model(torch.from_numpy(test[0])).squeeze(1).numpy()
    return float(roc_auc_score(test[1], score))


def order_of(batches: Batches, seed: int) -> tuple[float, float]:
    """(|Spearman's correlation|, standard deviation of the label's share over batches)."""
    rows, shares = [], []
    for batch in batches(seed, 0):
        rows.append(batch["row"])
        if len(batch["row"]) == BATCH:
            shares.append(float(batch["label"].float().mean()))
    place = torch.cat(rows).numpy()
    return abs(float(np.corrcoef(place, np.arange(len(place)))[0, 1])), float(np.std(shares))


def main() -> None:
    parser = argparse.ArgumentParser(description="How good the stream's shuffle is.")
    parser.add_argument("--rows", type=int, default=600_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULT, help="JSON file to write")
    given = parser.parse_args()
    warnings.filterwarnings("ignore", ".*has row groups of up to.*")
    torch.set_num_threads(1)
    x, label = make_data(given.rows, 0)
    test = make_data(50_000, 1)
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        raw = write_sorted(Path(scratch) / "sorted.parquet", x, label)
        packed = {n: repack(raw, Path(scratch) / f"{n}", group_rows=n).out for n in (512, 2048)}
        ways = {
            "all rows in memory, fully shuffled": fully(raw),
            "repacked, row groups of 512 rows": streamed(packed[512]),
            "repacked (row groups of 2,048 rows)": streamed(packed[2048]),
            "repacked, window of 65,536 rows": streamed(packed[2048], window=1 << 16),
            "repacked, window of 16,384 rows": streamed(packed[2048], window=1 << 14),
            "as it comes: one row group": streamed(raw),
            "not shuffled": streamed(raw, shuffle=False),
        }
        for name, way in ways.items():
            orders = [order_of(way, seed) for seed in range(given.seeds)]
            aucs = [train(way, seed, given.epochs, test) for seed in range(given.seeds)]
            found[name] = {
                "correlation": float(np.mean([o[0] for o in orders])),
                "label_share_spread": float(np.mean([o[1] for o in orders])),
                "auc": float(np.mean(aucs)),
                "auc_spread": float(np.std(aucs)),
            }
    print(f"{'order':<40}{'|rank corr.|':>14}{'label spread':>14}{'AUC':>18}")
    for name, row in found.items():
        print(
            f"{name:<40}{row['correlation']:>14.3f}{row['label_share_spread']:>14.3f}"
            f"{row['auc']:>10.4f} ± {row['auc_spread']:.4f}"
        )
    share = float(label.mean())
    expected = float(np.sqrt(share * (1 - share) / BATCH))
    print(f"binomial spread of the label's share: {expected:.3f}")
    result = {
        "provenance": provenance(),
        "rows": given.rows,
        "seeds": given.seeds,
        "epochs": given.epochs,
        "batch_size": BATCH,
        "binomial_spread": expected,
        "orders": found,
    }
    write_json(given.out, result)


if __name__ == "__main__":
    main()

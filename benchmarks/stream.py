"""How fast does `ParquetStream` read, and in how much memory?

    python benchmarks/stream.py            # some minutes; writes benchmarks/results/stream.json
    python benchmarks/stream.py --quick    # smaller files, fewer rounds

Every rate is taken several times, in turn with all the others, and given as the median; ratios are
medians of the ratios within a round. One process reads 100-long int64 histories beside five scalar
columns, shuffled, in batches of 1,024. It is compared with pyarrow's own reading of the same file
and columns, with its default of using all cores; the stream decodes in two threads, a worker
process in one. Workers stay over the epochs, so their start is not timed. "Processes" read each
its half of every batch, and nobody collects what they read: the most that two cores can give.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from machine import provenance
from torch.utils.data import DataLoader, Dataset, default_collate

from mmrec.io.files import write_json
from mmrec.stream.loader import make_loader
from mmrec.stream.repack import repack
from mmrec.stream.stream import ParquetStream

BATCH = 1024
LENGTH = 100
ITEMS = 91_718
TAGS, CONTENT = 5, 128
RESULT = Path(__file__).parent / "results" / "stream.json"


def make_clicks(path: Path, rows: int) -> Path:
    """A click log as it comes: int64, variable-length list type, pyarrow's own settings."""
    make = np.random.default_rng(0)
    with pq.ParquetWriter(path, _schema()) as writer:
        for start in range(0, rows, 1 << 20):
            count = min(1 << 20, rows - start)
            flat = pa.array(make.integers(1, ITEMS, count * LENGTH))
            offsets = pa.array(np.arange(0, count * LENGTH + 1, LENGTH, dtype=np.int32))
            columns = [
                pa.array(make.integers(0, 1_000_000, count)),
                pa.ListArray.from_arrays(offsets, flat),
                pa.array(make.integers(1, ITEMS, count)),
                pa.array(make.integers(0, 11, count)),
                pa.array(make.integers(0, 11, count)),
                pa.array(make.integers(0, 2, count)),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=_schema()))
    return path


def _schema() -> pa.Schema:
    number = pa.int64()
    names = ["user_id", "item_seq", "item_id", "likes_level", "views_level", "label"]
    return pa.schema([(n, pa.list_(number) if n == "item_seq" else number) for n in names])


# The challenge's loader: rows one by one, and each batch's items looked up in a pandas frame.


class RowByRow(Dataset[dict[str, Any]]):
    def __init__(self, path: Path, rows: int) -> None:
        table = next(pq.ParquetFile(path).iter_batches(batch_size=rows))
        self.columns = {
            name: np.array(values.to_list()) for name, values in table.to_pandas().items()
        }

    def __len__(self) -> int:
        return len(self.columns["label"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: values[index] for name, values in self.columns.items()}


class ItemLookup:
    """Collate: the features of every item of every history, and of every target."""

    def __init__(self) -> None:
        make = np.random.default_rng(1)
        self.items = pd.DataFrame(
            {
                "item_id": np.arange(ITEMS),
                "item_tags": list(make.integers(0, 11_740, (ITEMS, TAGS))),
                "item_emb": list(make.random((ITEMS, CONTENT), dtype=np.float32)),
            }
        ).set_index("item_id")

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = default_collate(rows)
        wanted = torch.cat([batch["item_seq"], batch["item_id"][:, None]], dim=1).flatten()
        found = self.items.loc[wanted.numpy()]
        batch["tags"] = torch.from_numpy(np.array(found["item_tags"].to_list()))
        batch["content"] = torch.from_numpy(np.array(found["item_emb"].to_list()))
        return dict(batch)


def count_rows(batches: Iterable[Any], column: str = "label") -> tuple[int, float]:
    """(rows, seconds) of going through the batches; each is touched."""
    rows, start = 0, time.perf_counter()
    for batch in batches:
        rows += len(batch[column])
    return rows, time.perf_counter() - start


def plainly(path: Path, *, checksums: bool) -> Iterator[pa.RecordBatch]:
    """pyarrow's own reading, file after file, with the threads it takes by default."""
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    for file in files:
        opened = pq.ParquetFile(file, page_checksum_verification=checksums)
        yield from opened.iter_batches(batch_size=BATCH)


class Streams:
    """Streams that live through all rounds, an epoch a round."""

    def __init__(self, path: Path, *, workers: int = 0, **options: Any) -> None:
        stream = ParquetStream(path, batch_size=BATCH, shuffle=True, **options)
        self.loader = make_loader(stream, num_workers=workers, persistent=True)
        self.epoch = -1

    def __call__(self) -> tuple[int, float]:
        self.epoch += 1
        self.loader.set_epoch(self.epoch)
        return count_rows(self.loader)


class Ranks:
    """Two ranks without workers, each its half of every batch, in processes that go at once.

    Nobody collects what they read: what two cores can do at most, whatever the hand-over.
    """

    def __init__(self, path: Path, ranks: int) -> None:
        context = get_context("fork")
        self.pipes = []
        for rank in range(ranks):
            mine, theirs = context.Pipe()
            body = (path, rank, ranks, theirs)
            context.Process(target=_read_on_request, args=body, daemon=True).start()
            self.pipes.append(mine)
        self.epoch = -1

    def __call__(self) -> tuple[int, float]:
        self.epoch += 1
        start = time.perf_counter()
        for pipe in self.pipes:
            pipe.send(self.epoch)
        rows = sum(pipe.recv() for pipe in self.pipes)
        return rows, time.perf_counter() - start


def _read_on_request(path: Path, rank: int, ranks: int, pipe: Any) -> None:
    stream: ParquetStream[dict[str, torch.Tensor]] = ParquetStream(
        path, batch_size=BATCH, shuffle=True, rank=rank, world_size=ranks, threads=0
    )
    while True:
        try:
            stream.set_epoch(pipe.recv())
        except EOFError:
            return
        pipe.send(count_rows(stream)[0])


def measure_rates(folder: Path, rows: int, rounds: int) -> dict[str, list[float]]:
    """Rows a second of every way of reading, `rounds` times in turn."""
    raw = make_clicks(folder / "clicks.parquet", rows)
    packed = repack(raw, folder / "packed").out
    challenge_rows = 4 * BATCH
    challenge = DataLoader(
        RowByRow(raw, challenge_rows), BATCH, shuffle=True, collate_fn=ItemLookup()
    )
    ways: dict[str, Callable[[], tuple[int, float]]] = {
        "challenge loader": lambda: count_rows(challenge),
        "iter_batches, as it comes": lambda: count_rows(plainly(raw, checksums=False)),
        "stream, as it comes": Streams(raw),
        "iter_batches, repacked": lambda: count_rows(plainly(packed, checksums=False)),
        "iter_batches, repacked, checksums": lambda: count_rows(plainly(packed, checksums=True)),
        "stream, repacked": Streams(packed),
        "stream, repacked, no checksums": Streams(packed, checksums=False),
        "stream, repacked, no threads": Streams(packed, threads=0),
        "stream, repacked, 1 process": Ranks(packed, 1),
        "stream, repacked, 2 processes": Ranks(packed, 2),
        "stream, repacked, 1 worker": Streams(packed, workers=1),
        "stream, repacked, 2 workers": Streams(packed, workers=2),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            read, seconds = way()
            if turn:  # the first round warms up
                rates[name].append(read / seconds)
    return rates


RATIOS = [
    ("stream, as it comes", "iter_batches, as it comes", 0.6),
    ("stream, as it comes", "challenge loader", 50),
    ("stream, repacked", "iter_batches, repacked, checksums", 0.9),
    ("stream, repacked", "iter_batches, repacked", None),
    ("stream, repacked, no checksums", "iter_batches, repacked", 0.9),
    ("stream, repacked, 2 workers", "stream, repacked, 1 worker", 1.5),
    ("stream, repacked, 2 processes", "stream, repacked, 1 process", None),
]


def ratios_of(rates: dict[str, list[float]]) -> list[dict[str, Any]]:
    """The ratios that the project promises, with what is promised."""
    found = []
    for one, other, promised in RATIOS:
        each = [a / b for a, b in zip(rates[one], rates[other], strict=True)]
        ratio = statistics.median(each)
        found.append({"of": one, "to": other, "ratio": ratio, "promised": promised})
    return found


def memory_of(path: Path, epochs: int) -> dict[str, Any]:
    """Resident size, in MB, at the end of each epoch and at most, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--resident", str(path), str(epochs)],
        capture_output=True,
        text=True,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def print_resident(path: str, epochs: int) -> None:
    """The body of `memory_of`'s process."""
    me, most = psutil.Process(), []
    # Both files must be larger than the window, or the smaller one would not fill it.
    stream: ParquetStream[dict[str, torch.Tensor]] = ParquetStream(
        path, batch_size=BATCH, shuffle=True, window=1 << 16
    )
    before = me.memory_info().rss / 1e6
    for epoch in range(epochs):
        stream.set_epoch(epoch)
        peak = 0.0
        for batch in stream:
            peak = max(peak, me.memory_info().rss / 1e6)
            del batch
        most.append(peak)
    print(json.dumps({"before": before, "epochs": most}))


def measure_memory(folder: Path, rows: int, epochs: int) -> dict[str, Any]:
    """Twenty epochs of a file, and of one ten times as large."""
    found = {}
    for name, count in (("file", rows), ("file ten times as large", 10 * rows)):
        raw = make_clicks(folder / f"memory{count}.parquet", count)
        packed = repack(raw, folder / f"memory{count}").out
        raw.unlink()
        found[name] = {"rows": count, **memory_of(packed, epochs if count == rows else 2)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Rates and memory of ParquetStream.")
    parser.add_argument("--rows", type=int, default=600_000, help="rows of the click log")
    parser.add_argument("--rounds", type=int, default=7, help="times that each rate is taken")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of the memory measurement")
    parser.add_argument("--quick", action="store_true", help="150,000 rows, 3 rounds, 5 epochs")
    parser.add_argument("--no-memory", action="store_true", help="rates only")
    parser.add_argument("--out", type=Path, default=RESULT, help="JSON file to write")
    parser.add_argument("--resident", nargs=2, metavar=("PATH", "EPOCHS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    warnings.filterwarnings("ignore", ".*has row groups of up to.*")  # that is what is measured
    if given.resident:
        print_resident(given.resident[0], int(given.resident[1]))
        return
    if given.quick:
        given.rows, given.rounds, given.epochs = 150_000, 3, 5
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        rates = measure_rates(Path(scratch), given.rows, given.rounds)
        memory = {} if given.no_memory else measure_memory(Path(scratch), 100_000, given.epochs)
    result: dict[str, Any] = {
        "provenance": provenance(),
        "pyarrow": pa.__version__,
        "rows": given.rows,
        "rounds": given.rounds,
        "load_average_at_end": os.getloadavg(),
        "rows_per_second": {name: statistics.median(each) for name, each in rates.items()},
        "ratios": ratios_of(rates),
        "resident_MB": memory,
    }
    print_tables(result)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(given.out, result)


def print_tables(result: dict[str, Any]) -> None:
    print(f"\n{'way of reading':<42}{'rows/s':>12}")
    for name, rate in result["rows_per_second"].items():
        print(f"{name:<42}{rate:>12,.0f}")
    print(f"\n{'ratio':<72}{'found':>8}{'wanted':>8}")
    for row in result["ratios"]:
        wanted = "" if row["promised"] is None else f"{row['promised']:g}"
        print(f"{row['of'] + ' : ' + row['to']:<72}{row['ratio']:>8.2f}{wanted:>8}")
    for name, row in result["resident_MB"].items():
        epochs = row["epochs"]
        print(
            f"\nresident, {name} ({row['rows']:,} rows): {row['before']:.0f} MB before, "
            f"{min(epochs):.0f}–{max(epochs):.0f} MB over {len(epochs)} epochs"
        )


if __name__ == "__main__":
    main()

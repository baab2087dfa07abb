"""How long does the audit of 3.6 million rows take, and in how much memory?

    python benchmarks/audit.py

Writes a data set of the challenge's size (histories as long as asked, 91,717 items, 1 in 100 with
a picture) into a temporary directory, audits it in a process of its own, prints and writes seconds,
peak memory, date, commit and hardware. `--rows 100000` for a quick look.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from machine import write_result

ITEMS, USERS, LEVELS, GROUP = 91_718, 1_000_000, 10, 100_000


def lists(matrix: np.ndarray) -> pa.Array:
    """(B, W) as a list column."""
    offsets = np.arange(len(matrix) + 1, dtype=np.int32) * matrix.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(matrix.ravel()))


def skewed(n: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) item ids, low ones often: density falls as id^(-2/3)."""
    return (rng.random(n) ** 3 * (ITEMS - 1)).astype(np.int64) + 1


def write_clicks(path: Path, rows: int, length: int, name: str, rng: np.random.Generator) -> None:
    """Skewed targets; left-padded histories of 1..length items (the challenge has 8 on average)."""
    level = rng.integers(1, LEVELS + 1, ITEMS)
    writer = None
    for start in range(0, rows, GROUP):
        n = min(GROUP, rows - start)
        real = rng.integers(1, length + 1, n)
        history = np.zeros((n, length), dtype=np.int64)
        history[np.arange(length) >= (length - real)[:, None]] = skewed(int(real.sum()), rng)
        item = skewed(n, rng)
        first = {"train": 1, "valid": USERS + 1, "test": 2 * USERS}[name]
        columns = {
            "user_id": pa.array(rng.integers(first, first + USERS, n)),
            "item_seq": lists(history),
            "item_id": pa.array(item),
            "likes_level": pa.array(level[item]),
            "views_level": pa.array(rng.integers(1, LEVELS + 1, n)),
        }
        if name == "test":
            columns = {"ID": pa.array(np.arange(start, start + n)), **columns}
        else:
            columns["label"] = pa.array((rng.random(n) < 0.25).astype(np.int64))
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def write_data(root: Path, rows: int, length: int) -> None:
    """The whole layout."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for name, some in (("train", rows), ("valid", 10_000), ("test", max(1, rows // 10))):
        write_clicks(root / f"{name}.parquet", some, length, name, rng)
    item = np.arange(ITEMS)
    tags = rng.integers(0, 11_740, (ITEMS, 5))
    info = {
        "item_id": item,
        "item_tags": lists(tags),
        "item_emb_d128": lists(rng.normal(size=(ITEMS, 128))),
    }
    pq.write_table(pa.table(info), root / "item_info.parquet")
    feature = {
        "item_id": item[1:],
        "item_title": [f"title {i}" for i in item[1:]],
        "likes_level": rng.integers(1, 11, ITEMS - 1),
        "txt_emb_BERT": lists(rng.normal(size=(ITEMS - 1, 768)).astype(np.float32)),
        "img_emb_CLIPRN50": lists(rng.normal(size=(ITEMS - 1, 1024)).astype(np.float32)),
    }
    pq.write_table(pa.table(feature), root / "item_feature.parquet")
    images = root / "item_images"
    images.mkdir()
    for number in range(1, ITEMS, 100):
        pixels = rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.jpg")


def measure(root: Path) -> None:
    """Run in the child: audit, and tell seconds and peak memory."""
    from mmrec.audit import audit

    started = time.perf_counter()
    report = audit(root, progress=True)
    spent = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime
    # Not ru_maxrss: a child keeps the peak of the process it was started from.
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 2**20
    findings = [f.name for f in report.findings]
    print(json.dumps({"seconds": spent, "cpu": cpu, "peak_gib": peak, "findings": findings}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=3_600_000)
    parser.add_argument("--length", type=int, default=100, help="entries of a history")
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.data:
        return measure(arguments.data)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_data(root, arguments.rows, arguments.length)
        command = [sys.executable, __file__, "--data", folder]
        child = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        figures = json.loads(child.stdout.splitlines()[-1])
        size = sum(f.stat().st_size for f in root.glob("*.parquet")) / 2**30
    result = {
        "rows": arguments.rows,
        "history_length": arguments.length,
        "parquet_gib": round(size, 2),
        "seconds": round(figures["seconds"], 1),
        "cpu_seconds": round(figures["cpu"], 1),
        "peak_gib": round(figures["peak_gib"], 2),
        "findings": figures["findings"],
    }
    for name, value in result.items():
        print(f"{name:16} {value}")
    print(write_result("audit", result))
    return None


if __name__ == "__main__":
    main()

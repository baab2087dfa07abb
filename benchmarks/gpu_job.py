"""What every step of `gpu.py` is given, its sizes, and the data that steps share.

Data come as `write_dataset` makes them: MicroLens's layout and lengths, random clicks. Next:
`gpu_train.py`, `gpu_items.py`, `gpu_peer.py`, which hold the steps.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from mmrec.batch import Batch
from mmrec.data.items import ItemTable
from mmrec.data.microlens import MICROLENS
from mmrec.io.files import write_json
from mmrec.models import Inputs, Recipe, get_recipe
from mmrec.nn.categorical import Vocabulary

LEVELS = 10  # values of each categorical column: 1 … 10
INPUTS = Inputs(
    categorical=tuple(Vocabulary(torch.arange(1, LEVELS + 1)) for _ in MICROLENS.clicks.categorical)
)
NARROW = {  # what `--small` makes of every recipe
    "items.id_dim": 4,
    "items.tag_dim": 4,
    "items.content_dim": 8,
    "interaction.mlp": (8,),
    "interaction.bottleneck": 16,
    "context.dim": 2,
}


@dataclass(frozen=True)
class Size:
    """How much of everything; `rows` are those of train, valid and test.

    Attributes:
        widths: of the image and text vectors.
        batches: batch sizes, the largest also that of prediction.
        steps: timed in a row.
        covers: pictures to embed.
    """

    items: int = 91_718
    tags: int = 11_740
    rows: tuple[int, int, int] = (3_600_000, 10_000, 379_142)
    length: int = 100
    widths: tuple[int, int] = (512, 512)
    batches: tuple[int, ...] = (128, 1024, 2048, 8192)
    steps: int = 20
    covers: int = 91_718


SMALL = Size(
    items=300,
    tags=17,
    rows=(512, 128, 100),
    length=20,
    widths=(7, 5),
    batches=(4, 16),
    steps=2,
    covers=12,
)


@dataclass
class Job:
    """One step: where its data lie, on which device, how large, where its rows go.

    Attributes:
        seconds: that it may take.
        peer: folder that holds the fuxictr package; None = an installed one, if there is.
    """

    folder: Path
    device: torch.device
    small: bool
    out: Path
    seconds: float
    peer: Path | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    @property
    def size(self) -> Size:
        return SMALL if self.small else Size()

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def on_cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def left(self) -> float:
        """Seconds until the step is ended."""
        return self.seconds - (time.monotonic() - self.began)

    def note(self, **row: Any) -> None:
        """Keep a row of the result, also if the step is ended in the next moment."""
        self.rows.append(row)
        write_json(self.out, self.rows)
        print(", ".join(f"{k} {shown(v)}" for k, v in row.items()), flush=True)

    @contextmanager
    def attempt(self, **row: Any) -> Iterator[dict[str, Any]]:
        """Note the row with what the block adds to it, or with what it failed of on a card.

        One size that does not fit must not cost the other figures.
        """
        try:
            yield row
        except RuntimeError as error:
            if not self.on_cuda:  # a rehearsal is to fail
                raise
            row["error"] = f"{type(error).__name__}: {error}"[:600]
        self.note(**row)
        if self.on_cuda:
            torch.cuda.empty_cache()

    def wait(self) -> None:
        """Until the device has done all that it was given."""
        if self.on_cuda:
            torch.cuda.synchronize()

    def recipe(self, name: str) -> Recipe:
        recipe = get_recipe(name)
        return recipe.changed(NARROW) if self.small else recipe

    def items(self) -> ItemTable:
        info, features = self.data / "item_info.parquet", self.data / "features.parquet"
        return ItemTable.read(info, MICROLENS.items, features)


def shown(value: Any) -> str:
    if isinstance(value, list | dict):
        return f"({len(value)})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def make_data(job: Job) -> None:
    """The step "data"."""
    began = time.perf_counter()
    write_dataset(job.data, job.size)
    bytes_written = sum(path.stat().st_size for path in job.data.iterdir())
    job.note(seconds=time.perf_counter() - began, mib=bytes_written / 2**20)


def write_dataset(root: Path, size: Size) -> None:
    """Train, valid and test with histories as long as MicroLens's, item_info and features."""
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    draw = _Clicks(size, rng)
    for name, rows in zip(("train", "valid", "test"), size.rows, strict=True):
        writer: pq.ParquetWriter | None = None
        for start in range(0, rows, 65_536):
            table = draw.table(start, min(65_536, rows - start), labelled=name != "test")
            path = root / f"{name}.parquet"
            writer = writer or pq.ParquetWriter(path, table.schema, use_dictionary=False)
            writer.write_table(table, row_group_size=16_384)
        assert writer is not None
        writer.close()
    items = MICROLENS.items
    assert items.tags is not None
    ids = np.arange(size.items)
    tags = rng.integers(1, size.tags, (size.items, 5))
    tags[-1, -1] = size.tags - 1
    tags[0] = 0
    pq.write_table(
        pa.table({items.id: ids, items.tags: as_lists(tags)}), root / "item_info.parquet"
    )
    vectors: dict[str, Any] = {
        column: as_lists(rng.normal(size=(size.items - 1, width)).astype(np.float16))
        for column, width in zip(items.modalities.values(), size.widths, strict=True)
    }
    pq.write_table(pa.table({items.id: ids[1:], **vectors}), root / "features.parquet")


class _Clicks:
    """Rows of a log: items by Zipf's law, lengths of MicroLens."""

    def __init__(self, size: Size, rng: np.random.Generator) -> None:
        self.size, self.rng = size, rng
        self.pool = draw_pool(size.items)

    def table(self, start: int, rows: int, *, labelled: bool) -> pa.Table:
        rng, clicks = self.rng, MICROLENS.clicks
        assert clicks.user is not None
        assert clicks.row_id is not None
        history = draw_histories(self.pool, rows, self.size.length, rng)
        columns: dict[str, Any] = (
            {} if labelled else {clicks.row_id: np.arange(start, start + rows)}
        )
        columns |= {
            clicks.user: rng.integers(1, 1_000_000, rows),
            clicks.history: as_lists(history),
        }
        columns[clicks.target] = rng.integers(1, self.size.items, rows)
        columns |= {c.name: rng.integers(1, LEVELS + 1, rows) for c in clicks.categorical}
        return pa.table(columns | {n: rng.integers(0, 2, rows) for n in clicks.labels if labelled})


@functools.cache
def draw_pool(items: int) -> NDArray[np.int64]:
    """A million ids, the i-th item as often as i^-0.8 says: one gather draws as many as wanted."""
    weight = 1 / np.arange(1, items) ** 0.8
    place = np.random.default_rng(0).random(1 << 20)
    found = np.searchsorted(np.cumsum(weight / weight.sum()), place)
    return np.minimum(found + 1, items - 1)


def draw_histories(
    pool: NDArray[np.int64], rows: int, length: int, rng: np.random.Generator, *, full: bool = False
) -> NDArray[np.int64]:
    """(rows, length) of ids out of `pool`, left-padded; median 6 of them, or all full."""
    history = pool[rng.integers(0, len(pool), (rows, length))]
    if not full:  # quartiles 4, 6, 9
        lengths = np.clip(np.exp(rng.normal(np.log(6), 0.65, rows)).round(), 1, length)
        history[np.arange(length) < (length - lengths)[:, None]] = 0
    return history


def draw_batch(size: Size, rows: int, *, full: bool, seed: int = 0) -> Batch:
    """A ready batch, as the loader would give it."""
    rng = np.random.default_rng([seed, full])
    pool = draw_pool(size.items)
    levels = rng.integers(1, LEVELS + 1, (rows, len(MICROLENS.clicks.categorical)))
    return Batch.of(
        history=torch.from_numpy(draw_histories(pool, rows, size.length, rng, full=full)),
        target=torch.from_numpy(rng.integers(1, size.items, rows)),
        categorical=torch.from_numpy(levels),
        labels=torch.from_numpy(rng.integers(0, 2, (rows, 1))).float(),
    )


def as_lists(values: NDArray[Any]) -> pa.Array:
    rows, width = values.shape
    return pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32) * width, values.ravel())

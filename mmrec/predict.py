"""From a model to the prediction file: every row once, in the order of the test rows.

    python -m mmrec.predict RUN --data DIR --out DIR

needs nothing of the training but its checkpoint: the recipe is inside.
"""

from __future__ import annotations

import argparse
import csv
import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn
from tqdm import tqdm

from mmrec.cli import run
from mmrec.errors import InputError
from mmrec.files import replacing
from mmrec.train.checkpoint import load_checkpoint
from mmrec.train.distributed import process_group
from mmrec.train.evaluate import score
from mmrec.train.loaders import BatchLoader

if TYPE_CHECKING:  # this file's own commands need them; who predicts with another model does not
    from mmrec.data.items import ItemTable
    from mmrec.models.ranker import Ranker

CSV_NAME, ZIP_NAME = "prediction.csv", "prediction.zip"


def predict(
    model: nn.Module,
    loader: BatchLoader,
    *,
    device: str | torch.device = "auto",
    precision: str = "auto",
    num_rows: int | None = None,
    progress: bool = False,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Click probabilities of rows 0 … n - 1, each exactly once.

    Args:
        num_rows: n, where it is known; else the rows that come must be 0 … n - 1 for some n.
        progress: show a bar on stderr.

    Returns:
        rows (n,), which is 0 … n - 1, and probabilities (n,); the same on every rank.

    Raises:
        InputError: a row is missing or comes twice, or a probability is not finite.
    """
    with tqdm(total=num_rows, desc="predict", unit="row", leave=False, disable=not progress) as bar:

        def shown(rows: int) -> None:
            bar.update(rows)

        scores = score(model, loader, device=device, precision=precision, each_batch=shown)
    rows = scores.row
    expected = len(rows) if num_rows is None else num_rows
    wrong = np.flatnonzero(rows != np.arange(len(rows)))
    if len(wrong) or len(rows) != expected:
        first = int(wrong[0]) if len(wrong) else min(len(rows), expected)
        raise InputError(
            f"every row of 0 … {expected - 1} must be predicted once, got {len(rows)} rows and "
            f"another than row {first} in its place"
        )
    probability = scores.probability
    if not np.isfinite(probability).all():
        row = int(np.argmin(np.isfinite(probability)))
        raise InputError(f"probabilities must be finite, the model gives another for row {row}")
    return rows, probability


def write_submission(
    ids: ArrayLike, probabilities: ArrayLike, out: Path, *, column: str = "Task1&2"
) -> tuple[Path, Path]:
    """Write `prediction.csv` (ID, column) and a zip of exactly that file; both whole.

    The same input gives the same bytes. Probabilities keep nine significant digits.

    Args:
        ids: (n,) ids of the test rows, in their order.
        probabilities: (n,) in [0, 1].

    Raises:
        InputError: lengths differ, an id comes twice, a probability outside [0, 1].
    """
    names, values = np.asarray(ids), np.asarray(probabilities, dtype=np.float64)
    if names.shape != values.shape or names.ndim != 1 or len(names) == 0:
        raise InputError(
            "ids and probabilities must be vectors of one length, "
            f"got {names.shape}, {values.shape}"
        )
    good = (values >= 0) & (values <= 1)
    if not good.all():
        at = int(np.argmin(good))
        raise InputError(f"probabilities must lie in [0, 1], got {values[at]} for ID {names[at]}")
    unique, counts = np.unique(names, return_counts=True)
    if len(unique) != len(names):
        raise InputError(
            f"every ID must come once, {unique[np.argmax(counts)]} came {counts.max()} times"
        )
    if not column.strip() or column == "ID":
        raise InputError(f"the prediction column needs a name other than ID, got {column!r}")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("ID", column))
    writer.writerows(zip(names.tolist(), (f"{v:.9g}" for v in values.tolist()), strict=True))
    content = text.getvalue().encode()
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / CSV_NAME) as temporary:
        temporary.write_bytes(content)
    with replacing(out / ZIP_NAME) as temporary:
        _write_zip(temporary, content)
    return out / CSV_NAME, out / ZIP_NAME


def _write_zip(path: Path, content: bytes) -> None:
    entry: Any = zipfile.ZipInfo(CSV_NAME, date_time=(1980, 1, 1, 0, 0, 0))
    entry.external_attr = 0o644 << 16
    entry.create_system = 3  # the same bytes from every operating system
    entry.compress_type = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, content, compresslevel=6)


def load_ranker(path: Path, items: ItemTable) -> Ranker:
    """The best ranker of a training run, from its checkpoint alone.

    Args:
        path: `out` of `fit`, its directory of checkpoints, or one checkpoint's JSON file. Its
            recipe must be `{"recipe": Recipe.to_dict(), …}`.
        items: the item table, which is no part of a checkpoint.

    Raises:
        InputError: no checkpoint, no such recipe in it, or another item table.
    """
    from mmrec.models.recipes import Recipe, ranker_from_state

    checkpoint = load_checkpoint(path)
    sizes = checkpoint.recipe.get("recipe")
    if not isinstance(sizes, dict):
        raise InputError(f"{checkpoint.path} holds no recipe of a ranker, got {sizes!r}")
    try:
        return ranker_from_state(Recipe.from_dict(sizes), items, checkpoint.part("model"))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{checkpoint.path} does not fit these items: {reason}") from error


def main() -> None:
    """Predict one split of a data set and write the submission."""
    from mmrec.data.items import ItemTable
    from mmrec.data.loader import make_loader
    from mmrec.data.microlens import MicroLens, to_batch
    from mmrec.data.stream import ParquetStream

    given = _parse()
    with process_group(given.device) as world:
        data = MicroLens.open(given.data)
        items = ItemTable.read(data.item_info, given.features or data.features)
        stream = ParquetStream(
            getattr(data, given.split),
            batch_size=given.batch_size,
            columns=data.columns(given.split),
            list_widths={"item_seq": data.history_length},
            collate=to_batch,
            rank=world.rank,
            world_size=world.size,
        )
        rows, probability = predict(
            load_ranker(given.run, items),
            make_loader(stream, num_workers=given.workers, pin_memory=torch.cuda.is_available()),
            device=given.device,
            precision=given.precision,
            num_rows=data.rows[given.split],
            progress=world.is_first,
        )
        if world.is_first:
            ids = data.test_ids() if given.split == "test" else rows
            for path in write_submission(ids, probability, given.out, column=given.column):
                print(path)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mmrec.predict",
        description="Write prediction.csv and its zip with a trained ranker.",
    )
    parser.add_argument("run", type=Path, help="`out` of the training, or one checkpoint's JSON")
    parser.add_argument("--data", type=Path, required=True, help="data set in the MicroLens layout")
    parser.add_argument("--features", type=Path, help="feature parquet (the data set's own)")
    parser.add_argument("--out", type=Path, required=True, help="where to write")
    parser.add_argument("--split", default="test", choices=("train", "valid", "test"))
    parser.add_argument("--column", default="Task1&2", help="prediction column (Task1&2)")
    parser.add_argument("--batch-size", type=int, default=2048, help="over all ranks (2048)")
    parser.add_argument("--workers", type=int, default=0, help="processes that read (0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    parser.add_argument(
        "--precision", default="auto", choices=("auto", "float32", "bfloat16", "float16")
    )
    return parser.parse_args()


if __name__ == "__main__":
    run(main)

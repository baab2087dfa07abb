"""From a model to the prediction file: every row once, in the order of the test rows.

    python -m mmrec.predict RUN --data DIR --out DIR
    python -m mmrec.predict RUN --rows ROWS.parquet --items ITEMS.parquet --out DIR

needs nothing of the training but its checkpoint: the recipe is inside. `load.py` reads it.
"""

import csv
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from mmrec.errors import InputError, require
from mmrec.io.files import replacing, require_file, require_folder
from mmrec.io.parquet import first_repeat
from mmrec.io.progress import Progress
from mmrec.predict.load import (
    TrainedRun,
    continue_ranker,
    continued_run,
    load_ranker,
    starting_recipe,
    write_sources,
)
from mmrec.train.distributed import current_world
from mmrec.train.evaluate import score
from mmrec.train.loaders import BatchLoader

__all__ = [
    "TrainedRun",
    "continue_ranker",
    "continued_run",
    "load_ranker",
    "predict",
    "starting_recipe",
    "write_sources",
    "write_submission",
]

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
    """Probabilities of rows 0 … n - 1, each exactly once.

    Args:
        num_rows: n, where it is known; else the rows that come must be 0 … n - 1 for some n.
        progress: show a bar on stderr.

    Returns:
        rows (n,), which is 0 … n - 1, and probabilities, (n,) of one task and (n, T) of several;
        the same on every rank.

    Raises:
        InputError: a row is missing or comes twice, or a logit is not finite.
    """
    mine = None if num_rows is None else -(-num_rows // current_world().size)
    with Progress(total=mine, desc="predict", unit="row", leave=False, shown=progress) as bar:
        scores = score(model, loader, device=device, precision=precision, each_batch=bar.update)
    rows = scores.row
    expected = len(rows) if num_rows is None else num_rows
    wrong = np.flatnonzero(rows != np.arange(len(rows)))
    if len(wrong) or len(rows) != expected:
        first = int(wrong[0]) if len(wrong) else min(len(rows), expected)
        raise InputError(
            f"every row of 0 … {expected - 1} must be predicted once, got {len(rows)} rows and "
            f"another than row {first} in its place"
        )
    return rows, scores.probability


def write_submission(
    ids: ArrayLike, probabilities: ArrayLike, out: Path, *, id_column: str, columns: Sequence[str]
) -> tuple[Path, Path]:
    """Write `prediction.csv` (id, a column for each task) and a zip of exactly that; both whole.

    The same input gives the same bytes. Probabilities keep nine significant digits.

    Args:
        ids: (n,) keys of the rows, integers or strings, in their order.
        probabilities: (n,) or (n, T) in [0, 1].
        id_column, columns: the header: one name for the keys and one for each task.

    Raises:
        InputError: lengths differ, an id comes twice, a probability outside [0, 1].
    """
    names, values = np.asarray(ids), np.asarray(probabilities, dtype=np.float64)
    require(
        names.ndim == 1
        and values.shape[:1] == names.shape
        and values.ndim in (1, 2)
        and names.size,
        f"ids and probabilities must be of one length, got {names.shape}, {values.shape}",
    )
    values = values.reshape(len(names), -1)
    good = ((values >= 0) & (values <= 1)).all(axis=1)
    if not good.all():
        at = int(np.argmin(good))
        got = ", ".join(map(str, values[at].tolist()))
        raise InputError(f"probabilities must lie in [0, 1], got {got} for {id_column} {names[at]}")
    again = first_repeat(names)
    require(again is None, f"every {id_column} must come once, {names[again or 0]} comes again")
    check_header(id_column, columns, values.shape[1])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([id_column, *columns])
    written = ([f"{v:.9g}" for v in row] for row in values.tolist())
    writer.writerows([name, *row] for name, row in zip(names.tolist(), written, strict=True))
    content = text.getvalue().encode()
    out = require_submission(out)
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / CSV_NAME) as temporary:
        temporary.write_bytes(content)
    with replacing(out / ZIP_NAME) as temporary:
        _write_zip(temporary, content)
    return out / CSV_NAME, out / ZIP_NAME


def check_header(id_column: str, columns: Sequence[str], tasks: int) -> None:
    """Require a name of its own for each of so many tasks; asked before any row is scored."""
    header = [id_column, *columns]
    require(
        len(set(header)) == 1 + tasks == len(header) and all(map(str.strip, header)),
        f"{tasks} prediction columns need names of their own other than {id_column}: give "
        f"--column (columns) {tasks} different names, got {list(columns)}",
    )


def require_submission(out: str | Path) -> Path:
    """`out`, where both files can be written; asked before any work."""
    folder = require_folder(out)
    for name in (CSV_NAME, ZIP_NAME):
        require_file(folder / name)
    return folder


def _write_zip(path: Path, content: bytes) -> None:
    entry: Any = zipfile.ZipInfo(CSV_NAME, date_time=(1980, 1, 1, 0, 0, 0))
    entry.external_attr = 0o644 << 16
    entry.create_system = 3  # the same bytes from every operating system
    entry.compress_type = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, content, compresslevel=6)

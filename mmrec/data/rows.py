"""One file of rows, with or without labels, read as batches. Next: `batches.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mmrec.batch import Batch
from mmrec.data.batches import ToBatch
from mmrec.data.checks import check_clicks, read_row_ids
from mmrec.data.microlens import MICROLENS, SUBMISSION
from mmrec.io.parquet import Array
from mmrec.schema import ABSENT, Schema
from mmrec.stream.loader import Loader, make_loader
from mmrec.stream.stream import ParquetStream


@dataclass(frozen=True)
class ClickRows:
    """A checked file of rows.

    Attributes:
        path: parquet, or the folder of its row groups packed anew.
        schema: the roles of its columns.
        widths: list column -> its longest list.
        num_rows: how many.
        labelled: whether they have labels (and what goes with them: weight and group).
    """

    path: Path
    schema: Schema
    widths: Mapping[str, int]
    num_rows: int
    labelled: bool = False

    @classmethod
    def open(cls, path: str | Path, schema: Schema, *, num_items: int) -> ClickRows:
        """Rows to be scored: no labels are needed or read.

        Raises:
            InputError: a breach of the schema, naming file, column and row.
        """
        log = check_clicks(path, schema.clicks, num_items=num_items, labelled=False)
        return cls(Path(path), schema, log.widths, log.num_rows)

    def loader(
        self,
        *,
        batch_size: int = 2048,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        extra: Sequence[str] = (),
        change: Callable[[Batch], Batch] | None = None,
    ) -> Loader[Batch]:
        """This rank's batches, of `batch_size` rows over all ranks.

        Args:
            workers: processes that read; 0 = this one.
            extra: more columns, which ride along in `Batch.extra`.
            change: made to every batch.
        """
        collate = ToBatch.of(self.schema.clicks, self.widths, labelled=self.labelled)
        collate = collate.with_more(extra, change)
        stream = ParquetStream(
            self.path,
            batch_size=batch_size,
            columns=collate.columns,
            list_widths={name: self.widths[name] for name in collate.lists},
            pads=dict.fromkeys(collate.lists_of_categories, ABSENT),
            missing=collate.numbers,
            collate=collate,
            shuffle=shuffle,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )
        return make_loader(stream, num_workers=workers, pin_memory=torch.cuda.is_available())

    def row_ids(self) -> Array:
        """(rows,) the key of every row, in file order: integers or strings."""
        name = self.schema.clicks.row_id
        return np.arange(self.num_rows) if name is None else read_row_ids(self.path, name)


def header(schema: Schema) -> tuple[str, tuple[str, ...]]:
    """What a prediction file calls its keys and, for each label, its probabilities."""
    clicks = schema.clicks
    return clicks.row_id or "row", SUBMISSION if schema == MICROLENS else clicks.labels

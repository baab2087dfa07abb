"""Without threads, decoding is spread over the batches: none waits for a whole window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmrec.stream.rows import RowReader
from mmrec.stream.stream import ParquetStream

LANES, WINDOW, BATCH, GROUP = 4, 1024, 32, 64


def test_decoding_ahead_is_spread_over_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = 0
    copy = RowReader._copy

    def counting(self: RowReader, start: int, stop: int, *where: object) -> None:
        nonlocal decoded
        decoded += stop - start
        copy(self, start, stop, *where)  # type: ignore[arg-type]

    monkeypatch.setattr(RowReader, "_copy", counting)
    table = pa.table({"n": np.arange(64 * WINDOW)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=GROUP)
    stream = ParquetStream(
        tmp_path,
        batch_size=BATCH,
        shuffle=True,
        lanes=(2, 2),
        window=WINDOW * (LANES + 2),
        threads=0,
    )
    per_batch, before = [], 0
    for _ in stream:
        per_batch.append(decoded - before)
        before = decoded
    settled = per_batch[len(per_batch) // 4 : -len(per_batch) // 4]
    assert sum(per_batch) == len(table)
    assert max(settled) <= 2 * BATCH + GROUP  # and never WINDOW, as when it is decoded at once

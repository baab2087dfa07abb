"""Sorted buckets of users to `train`, `valid` and `test.parquet`, and the schema of both.

n rows of a bucket; histories are lists, ragged, newest last.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from mmrec.data.prepare.buckets import read_bucket
from mmrec.data.prepare.items import item_settings, modalities_of
from mmrec.data.prepare.options import Options, split_category
from mmrec.data.prepare.past import Array, Bools, Ints, Past
from mmrec.data.prepare.statistics import LEVELS, asked, columns_of
from mmrec.data.prepare.times import DAY, Clock
from mmrec.io.parquet import GROUP_ROWS
from mmrec.io.progress import Progress
from mmrec.schema import Categorical, Clicks, Items, Schema

PARTS = ("train", "valid", "test")
HISTORY = "history"
_AT_A_TIME = 1 << 16


def schema_of(options: Options) -> Schema:
    """The roles of everything that comes out."""
    log, plan = options.log, options.plan
    numeric, levels = columns_of(np.zeros((1, _counts(options)), dtype=np.int64), options)
    named = plan.named
    categories = tuple(
        Categorical(name, **settings) for name, settings in map(split_category, log.categorical)
    )
    return Schema(
        Clicks(
            history=named(HISTORY),
            target=named(log.item),
            labels=tuple(map(named, log.label_names)),
            user=named(log.user),
            row_id=row_id_of(options),
            time=named(log.time),
            group=log.group,
            weight=log.weight,
            categorical=categories
            + tuple(Categorical(named(name), limit=LEVELS + 1) for name in levels),
            numeric=(*log.numeric, *map(named, (*_lasts(options), *numeric))),
            history_categorical=tuple(
                Categorical(named(name), limit=values)
                for name, values in _history_categories(options).items()
            ),
            history_numeric=tuple(
                named(f"{HISTORY}_{name}")
                for name in plan.history_features
                if name == "days_ago" or name in log.numeric
            ),
            negatives=f"{plan.negatives} drawn for each click, by {plan.negatives_by}"
            if plan.negatives
            else None,
        ),
        _items_of(options),
    )


def _items_of(options: Options) -> Items:
    log, items, named = options.log, options.items, options.plan.named
    return Items(
        id=named(log.item),
        key=named(f"{log.item}_key"),
        tags=named("tags") if items.tags or items.category_path else None,
        categorical=tuple(Categorical(name, **asked) for name, asked in item_settings(options)),
        numeric=items.numeric,
        modalities=modalities_of(options),
        title=named("caption") if modalities_of(options) else None,
    )


def row_id_of(options: Options) -> str:
    """What names a row: the person's own column where it is one."""
    own = options.log.row_id
    return options.plan.named(own[0] if len(own) == 1 else "row_id")


def _counts(options: Options) -> int:
    return len(asked(options)) * (1 + len(options.log.label_names))


def _lasts(options: Options) -> list[str]:
    label = options.log.label_names[0]
    return [f"user_{label}_share_last_{number}" for number in options.plan.last]


def _history_categories(options: Options) -> dict[str, int | None]:
    """Name of each categorical history feature, and how many values it has, of a label."""
    log = options.log
    found: dict[str, int | None] = {}
    for name in options.plan.history_features:
        if name == "label":
            # One label alone is known of every event that counts; of several some may be missing.
            values = 2 if len(log.label_names) == 1 else 3
            found |= {f"{HISTORY}_{label}": values for label in log.label_names}
        elif name in log.category_names:
            found[f"{HISTORY}_{name}"] = None
    return found


@dataclass(frozen=True)
class Bucket:
    """A sorted bucket and everything that its rows know. See `Writer`."""

    frame: pl.DataFrame
    counts: Ints
    options: Options
    clock: Clock
    cold: Bools

    def table(self, rows: Ints, past: Past) -> dict[str, Any]:
        """Columns of these rows, under their own names."""
        log, plan = self.options.log, self.options.plan
        some = self.frame[rows]
        columns: dict[str, Any] = {
            plan.named(log.user): some["user"],
            plan.named(log.item): some["item"],
            plan.named(log.time): self._time(some["time"]),
        }
        for place, name in enumerate(log.category_names):
            columns[name] = some[f"c{place}"]
        for place, name in enumerate(log.numeric):
            columns[name] = some[f"n{place}"].cast(pl.Float32)
        for own, made in ((log.group, "group"), (log.weight, "weight")):
            if own is not None and made in some.columns:
                columns[own] = some[made]
        columns |= {plan.named(n): values[rows] for n, values in self._numbers.items()}
        columns[row_id_of(self.options)] = some["row_id" if "row_id" in some.columns else "line"]
        for place, name in enumerate(log.label_names):
            label = some[f"y{place}"]
            columns[plan.named(name)] = label.set(label < 0, None)
        return columns | self._histories(rows, past)

    def _time(self, time: pl.Series) -> pl.Series:
        scale = self.clock.scale
        if scale is None:
            moments: pl.Series = time.cast(pl.Datetime("us", "UTC"))
            return moments
        numbers = time.to_numpy()
        return pl.Series(values=numbers * -scale if scale < 0 else numbers // scale)

    @cached_property
    def _numbers(self) -> dict[str, Array]:
        """Of all n rows: shares of the last events, statistics, levels."""
        found: dict[str, Array] = {}
        user, time = self.frame["user"].to_numpy(), self.frame["time"].to_numpy()
        everything = Past.of(user, time, self.frame["event"].to_numpy())
        good = self.frame["y0"].to_numpy() == 1
        for name, length in zip(_lasts(self.options), self.options.plan.last, strict=True):
            found[name] = everything.share(good, length)
        numeric, levels = columns_of(self.counts, self.options)
        return found | numeric | levels

    def _histories(self, rows: Ints, past: Past) -> dict[str, Any]:
        log, plan = self.options.log, self.options.plan
        place, sizes = past.newest(rows, plan.history_length)
        offsets = np.append(0, np.cumsum(sizes)).astype(np.int32)

        def lists(values: Array) -> pa.Array:
            return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))

        def column(name: str) -> Array:
            return self.frame[name].to_numpy()[place]

        made = {HISTORY: lists(column("item"))}
        for name in plan.history_features:
            if name == "label":
                for number, label in enumerate(log.label_names):
                    known = column(f"y{number}")
                    made[f"{HISTORY}_{label}"] = lists(
                        np.where(known < 0, 2, known).astype(np.int8)
                    )
            elif name == "days_ago":
                now = np.repeat(self.frame["time"].to_numpy()[rows], sizes)
                days = ((now - column("time")) / DAY).astype(np.float32)
                made[f"{HISTORY}_days_ago"] = lists(days)
            elif name in log.category_names:
                values = column(f"c{log.category_names.index(name)}")
                made[f"{HISTORY}_{name}"] = lists(values)
            else:
                values = column(f"n{log.numeric.index(name)}").astype(np.float32)
                made[f"{HISTORY}_{name}"] = lists(values)
        return {plan.named(name): values for name, values in made.items()}

    def kept(self) -> Bools:
        """(n,) which events histories remember."""
        event: Bools = self.frame["event"].to_numpy()
        if "kept" in self.frame.columns:
            event = event & self.frame["kept"].to_numpy()
        elif self.options.plan.history == "positive":
            event = event & (self.frame["y0"].to_numpy() == 1)
        return event


class Writer:
    """Writes the parts, bucket after bucket; within a bucket rows are in order of time.

    Args:
        folder: of the files.
        options: what is asked.
        names: of the files, by part; labels of "test" stay apart.
    """

    def __init__(self, folder: Path, options: Options, names: tuple[str, ...] = PARTS) -> None:
        self.folder, self.options, self.names = folder, options, names
        self.rows = dict.fromkeys(names, 0)
        self._open = ExitStack()
        self._writers: dict[str, pq.ParquetWriter] = {}

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, bucket: Bucket) -> None:
        """All rows of a bucket."""
        frame, kept = bucket.frame, bucket.kept()
        user, time, part = (frame[name].to_numpy() for name in ("user", "time", "part"))
        past = Past.of(user, time, kept)
        cold = bucket.cold[frame["item"].to_numpy()]
        known_to_train = Past.of(user, time, kept & ~cold) if cold.any() else past
        in_time = np.argsort(time, kind="stable")
        for number, name in enumerate(self.names):
            rows = in_time[part[in_time] == number]
            for start in range(0, len(rows), _AT_A_TIME):
                some = rows[start : start + _AT_A_TIME]
                self._write(name, bucket.table(some, past if number else known_to_train))
            self.rows[name] += len(rows)

    def _write(self, name: str, columns: dict[str, Any]) -> None:
        plan, log = self.options.plan, self.options.log
        labels = list(map(plan.named, log.label_names))
        arrays = {n: v.to_arrow() if isinstance(v, pl.Series) else v for n, v in columns.items()}
        table = pa.table(arrays)
        key = row_id_of(self.options)
        if name == "test":
            # The labels of test stay apart: for measuring at the very end, out of readers' way.
            self._file("test_labels", table.select([key, *labels]))
        elif name in PARTS:
            table = table.drop_columns([key])
        elif log.weight in table.column_names:
            table = table.drop_columns([log.weight])
        self._file(name, table if name in PARTS[:2] else table.drop_columns(labels))

    def _file(self, name: str, table: pa.Table) -> None:
        if name not in self._writers:
            writer = pq.ParquetWriter(self.folder / f"{name}.parquet", table.schema)
            self._writers[name] = self._open.enter_context(writer)
        table = table.cast(self._writers[name].schema)
        self._writers[name].write_table(table, row_group_size=GROUP_ROWS)


def write_rows(
    folder: Path,
    sorted_in: Path,
    counted_in: Path | None,
    buckets: int,
    writer: Writer,
    about: tuple[Options, Clock, Bools],
) -> dict[str, Any]:
    """Write every bucket.

    Args:
        sorted_in: the folder of sorted buckets.
        counted_in: that of their statistics; None = there are none.
        about: options, clock and cold items.
    """
    options, clock, cold = about
    with writer, Progress(total=buckets, desc="rows", unit="bucket") as progress:
        for number in range(buckets):
            frame = read_bucket(sorted_in, "u", number)
            if frame is not None:
                counts = _read_counts(counted_in, number, frame.height, options)
                writer.add(Bucket(frame, counts, options, clock, cold))
            progress.update()
    return {"rows": writer.rows}


def _read_counts(folder: Path | None, number: int, rows: int, options: Options) -> Ints:
    counts = np.zeros((rows, _counts(options)), dtype=np.int64)
    found = None if folder is None else read_bucket(folder, "u", number)
    if found is not None:
        columns = [f"s{place}" for place in range(counts.shape[1])]
        counts[found["place"].to_numpy()] = found.select(columns).to_numpy()
    return counts

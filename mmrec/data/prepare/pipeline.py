"""The steps from raw files to the layout, each kept when it has finished.

log (typed, numbered) → dealt (buckets of users) → sorted (who is a row of what) → timed, counted
(statistics, by way of buckets of time) → rows, items. A step that was killed is made anew.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mmrec.data.prepare.buckets import Buckets, bucket_file, edges, frames, read_bucket, step
from mmrec.data.prepare.ids import grown, keys_in, numbered, read_maps, write_maps
from mmrec.data.prepare.items import place_pictures, read_catalogue, tags_of, write_items
from mmrec.data.prepare.negatives import Pool, with_negatives, write_pool
from mmrec.data.prepare.options import Options
from mmrec.data.prepare.past import Bools
from mmrec.data.prepare.read import open_log, sink
from mmrec.data.prepare.rows import PARTS, Writer, write_rows
from mmrec.data.prepare.split import Sorter, cold_items, time_bounds
from mmrec.data.prepare.statistics import TimeBuckets, asked, key_columns, write_statistics
from mmrec.data.prepare.times import Clock
from mmrec.errors import InputError, require
from mmrec.io.progress import Progress

MAPS, LOG, CATALOGUE = "maps", "log.parquet", "catalogue.parquet"


@dataclass(frozen=True)
class Pipeline:
    """One preparation.

    Attributes:
        events, items: files; items None = those of the log, about which nothing is known.
        options: what is asked.
        work: folder of finished steps.
        former: an earlier preparation, whose maps are continued and whose log is the past; rows
            are then the new events alone.
        grown_from: an earlier preparation of a log that has grown since: its maps are continued,
            and what it knew of items stays known.
    """

    events: str | Path
    items: str | Path | None
    options: Options
    work: Path
    former: Path | None = None
    grown_from: Path | None = None

    def run(self) -> dict[str, Any]:
        """Every step, to `work/rows` and `work/items`; returns facts for the report."""
        steps = {"log": self._log, "dealt": self._dealt}
        if self.options.plan.negatives and self.former is None:
            steps["pool"] = self._pool
        steps["sorted"] = self._sorted
        if self._counts:
            steps["counted"] = self._counted
        steps |= {"rows": self._rows, "items": self._items}
        facts: dict[str, Any] = {}
        for name, make in Progress(steps.items(), desc="prepare", unit="step"):
            facts |= step(self.work, name, make)
        return facts

    @property
    def log(self) -> Path:
        """The typed log with numbers for names."""
        return self.work / "log" / LOG

    @property
    def _before(self) -> Path | None:
        """Whose maps are continued."""
        return self.former or self.grown_from

    @property
    def _counts(self) -> bool:
        return bool(asked(self.options))

    def _facts(self) -> dict[str, Any]:
        return step(self.work, "log", self._log)

    def _clock(self) -> Clock:
        return Clock(**self._facts()["clock"])

    def _log(self, folder: Path) -> dict[str, Any]:
        """Read, check and number everything; the only step that sees the raw files."""
        options, former = self.options, self.former
        events, clock = open_log(self.events, options, folder, labelled=former is None)
        there = pl.all_horizontal(pl.col("user_key", "item_key", "time").is_not_null())
        empty = events.select(
            pl.col("user_key", "item_key", "time").is_null().sum(), read=pl.len()
        ).collect(engine="streaming")
        events = events.filter(there)
        catalogue, odd = read_catalogue(self.items, options)
        before = self._before
        known = {} if before is None else read_maps(before / MAPS)
        maps, unknown = self._grown_maps(known, catalogue, events)
        if unknown and options.plan.unknown_items == "drop":
            events = events.join(
                maps["item"].lazy(), left_on="item_key", right_on="key", how="semi"
            )
        sink(_numbered_log(events, maps, options), folder / "new.parquet")
        (folder / "typed.parquet").unlink()
        if before is not None:
            catalogue = _merged(pl.read_parquet(before / CATALOGUE), catalogue)
        _with_past(folder, former)
        write_maps(maps, folder / MAPS)
        catalogue.write_parquet(folder / CATALOGUE)
        facts = _facts_of(folder / LOG, options) | {"clock": vars(clock)}
        facts |= {"empty": empty.row(0, named=True), "unknown_items": unknown, "items_odd": odd}
        if former is None:
            _refuse_one_label(facts, options, self.events)
        return facts | {"shown": _shown(folder / LOG), "items": maps["item"].height}

    def _grown_maps(
        self, known: dict[str, pl.DataFrame], catalogue: pl.DataFrame, events: pl.LazyFrame
    ) -> tuple[dict[str, pl.DataFrame], int]:
        """Every map with what is new, and how many items only the log knows."""
        options, maps = self.options, dict(known)
        users = keys_in(events, "user_key")
        require(
            len(users), f"events with a user, an item and a time are needed, {self.events} has none"
        )
        maps["user"] = grown(known.get("user"), users)
        listed = grown(known.get("item"), catalogue["key"])
        everything = grown(listed, keys_in(events, "item_key"))
        unknown = everything.height - listed.height if self.items is not None else 0
        policy = options.plan.unknown_items
        if unknown and policy == "refuse":
            raise InputError(
                f"every item of the log stands in {self.items}, {everything['key'][listed.height]} "
                f"and {unknown - 1:,} others do not"
            )
        maps["item"] = listed if policy == "drop" and self.items is not None else everything
        for place, name in enumerate(options.log.category_names):
            maps[f"log_{name}"] = grown(known.get(f"log_{name}"), keys_in(events, f"c{place}"))
        if options.log.group is not None:
            maps["group"] = grown(known.get("group"), keys_in(events, "group_key"))
        for place, name in enumerate(options.items.category_names):
            maps[f"item_{name}"] = grown(known.get(f"item_{name}"), catalogue[f"c{place}"])
        maps["tag"] = grown(known.get("tag"), tags_of(catalogue)["tag"])
        return maps, unknown

    def _dealt(self, folder: Path) -> dict[str, Any]:
        """Events to buckets of users."""
        facts = self._facts()
        count = -(-facts["events"] // self.options.plan.events_in_memory)
        with (
            Buckets(folder, "u", count) as buckets,
            Progress(total=facts["events"], desc="users", unit="event") as progress,
        ):
            for frame in frames(self.log):
                buckets.add(frame, frame["user"].to_numpy() % count)
                progress.update(frame.height)
        return {"buckets": count}

    def _cold(self) -> Bools:
        plan, items = self.options.plan, self._facts()["items"] + 1
        return np.zeros(items, np.bool_) if self.former else cold_items(items, plan)

    def _pool(self, folder: Path) -> dict[str, Any]:
        """What negatives are drawn from."""
        facts, catalogue = self._facts(), pl.read_parquet(self.work / "log" / CATALOGUE)
        ids = pl.read_parquet(self.work / "log" / MAPS / "item.parquet")
        since = catalogue.select("key", time="since").drop_nulls().join(ids, on="key")
        since = since.select("time", item=pl.col("id").cast(pl.Int32))
        span = (facts["first"], facts["last"])
        return dict(write_pool(folder, self.log, self.options.plan, since, span))

    def _sorted(self, folder: Path) -> dict[str, Any]:
        """Buckets of users in order, and where statistics are asked for, dealt to times as well."""
        facts, plan = self._facts(), self.options.plan
        count = step(self.work, "dealt", self._dealt)["buckets"]
        low, high = facts["first"], facts["last"]
        bounds = (0, 0)
        if plan.split == "time" and self.former is None:
            bounds = time_bounds(self.log, facts["events"], low, high, plan)
        sorter = Sorter(plan, bounds, self._cold(), scoring=self.former is not None)
        cuts = edges(self.log, "time", low, high, count) if count > 1 else np.zeros(0, np.int64)
        draws = plan.negatives and self.former is None
        pool = Pool.open(self.work / "pool") if draws else None
        total: dict[str, int] = {}
        with (
            Buckets(folder, "t", len(cuts) + 1) as timed,
            Progress(total=count, desc="order", unit="bucket") as progress,
        ):
            for number in range(count):
                bucket = read_bucket(self.work / "dealt", "u", number)
                if bucket is None:
                    continue
                frame, found = sorter.sorted(bucket)
                if pool is not None:
                    frame, found["short"] = with_negatives(frame, pool, plan, number)
                frame.write_parquet(bucket_file(folder, "u", number), compression="lz4")
                total = {name: total.get(name, 0) + found[name] for name in found}
                if self._counts:
                    _deal_to_times(timed, frame, number, cuts, self.options)
                progress.update()
        return {"odd": total, "cuts": cuts.tolist()}

    def _counted(self, folder: Path) -> dict[str, Any]:
        """Statistics."""
        facts, cuts = self._facts(), step(self.work, "sorted", self._sorted)["cuts"]
        times = TimeBuckets(
            self.work / "sorted", np.array(cuts, np.int64), facts["first"], facts["last"]
        )
        maps = read_maps(self.work / "log" / MAPS)
        sizes = {name: maps[name].height + 1 for name in ("item", "user")}
        for place, name in enumerate(self.options.log.category_names):
            sizes[f"c{place}"] = maps[f"log_{name}"].height + 1
        buckets = step(self.work, "dealt", self._dealt)["buckets"]
        return dict(write_statistics(folder, times, self.options, sizes, buckets))

    def _rows(self, folder: Path) -> dict[str, Any]:
        """The click logs."""
        names = PARTS if self.former is None else ("rows",)
        return write_rows(
            folder,
            self.work / "sorted",
            self.work / "counted" if self._counts else None,
            step(self.work, "dealt", self._dealt)["buckets"],
            Writer(folder, self.options, names),
            (self.options, self._clock(), self._cold()),
        )

    def _items(self, folder: Path) -> dict[str, Any]:
        """The item table, captions and pictures."""
        log = self.work / "log"
        catalogue, maps = pl.read_parquet(log / CATALOGUE), read_maps(log / MAPS)
        write_items(folder, catalogue, maps, self.options)
        found = place_pictures(self.items, folder, catalogue, maps, self.options, self._before)
        return {"pictures": found}


def _numbered_log(
    events: pl.LazyFrame, maps: dict[str, pl.DataFrame], options: Options
) -> pl.LazyFrame:
    events = numbered(events, "user_key", "user", maps["user"])
    events = numbered(events, "item_key", "item", maps["item"])
    for place, name in enumerate(options.log.category_names):
        events = numbered(events, f"c{place}", f"c{place}", maps[f"log_{name}"])
    if options.log.group is not None:
        events = numbered(events, "group_key", "group", maps["group"])
    return events


def _with_past(folder: Path, former: Path | None) -> None:
    """`log.parquet`: the new events, behind those of the former log."""
    new = pl.scan_parquet(folder / "new.parquet").with_columns(new=pl.lit(True))
    if former is not None:
        old = pl.scan_parquet(former / LOG).with_columns(new=pl.lit(False))
        new = new.select(n for n in new.collect_schema() if n in old.collect_schema())
        new = pl.concat([old, new], how="diagonal")
    sink(new, folder / LOG)
    (folder / "new.parquet").unlink()


def _merged(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """What is known of items, the newer of two."""
    return pl.concat([old.join(new, on="key", how="anti"), new.select(old.columns)])


def _facts_of(log: Path, options: Options) -> dict[str, Any]:
    """Counts over the log that later steps and the report ask for."""
    table = pl.scan_parquet(log)
    new = pl.col("new")
    found = table.select(
        events=pl.len(),
        rows_in=new.sum(),
        first=pl.col("time").min(),
        last=pl.col("time").max(),
        users=pl.col("user").n_unique(),
        **{f"ones{n}": (pl.col(f"y{n}") == 1).sum() for n, _ in enumerate(options.log.label_names)},
        **{
            f"zeros{n}": (pl.col(f"y{n}") == 0).sum() for n, _ in enumerate(options.log.label_names)
        },
        **{f"below{n}": (pl.col(f"n{n}") < 0).sum() for n, _ in enumerate(options.log.numeric)},
        **{f"gone{n}": pl.col(f"n{n}").is_null().sum() for n, _ in enumerate(options.log.numeric)},
    ).collect(engine="streaming")
    return found.row(0, named=True)


def _refuse_one_label(facts: dict[str, Any], options: Options, events: str | Path) -> None:
    for place, name in enumerate(options.log.label_names if options.log.labels else ()):
        ones, zeros = facts[f"ones{place}"], facts[f"zeros{place}"]
        require(
            ones and zeros,
            f"a label is 0 in some events and 1 in others, {name} is 1 in {ones:,} and 0 in "
            f"{zeros:,} of {events}",
        )


def _shown(log: Path) -> int:
    """How many items have an event."""
    return int(pl.scan_parquet(log).select(pl.col("item").n_unique()).collect().item())


def _deal_to_times(
    timed: Buckets, frame: pl.DataFrame, number: int, cuts: Any, options: Options
) -> None:
    labels = [name for name in frame.columns if re.fullmatch(r"y\d+", name)]
    wanted = {"time", "event", "part", *labels, *key_columns(options)}
    some = frame.select(name for name in frame.columns if name in wanted).with_columns(
        pl.Series("place", np.arange(frame.height, dtype=np.int32)),
        bucket=pl.lit(number, dtype=pl.Int32),
    )
    timed.add(some, np.searchsorted(cuts, some["time"].to_numpy(), side="right"))

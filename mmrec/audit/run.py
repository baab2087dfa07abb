"""The audit: read every click log once, hold it to the checks, gather the report."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from mmrec.audit.checks.content import check_content
from mmrec.audit.checks.context import Array, Context
from mmrec.audit.checks.future import check_future
from mmrec.audit.checks.leaks import check_leaks
from mmrec.audit.checks.levels import check_levels
from mmrec.audit.checks.shape import check_shape
from mmrec.audit.checks.shift import check_shift
from mmrec.audit.checks.statistics import FAMILY_ERROR, Standard
from mmrec.audit.report import SEVERITIES, Finding, Report
from mmrec.audit.scan.images import DECODED
from mmrec.audit.scan.layout import Layout, locate
from mmrec.audit.scan.opening import MOST_CELLS, column_range, open_clicks
from mmrec.audit.scan.sample import ROWS, chosen
from mmrec.audit.scan.scan import CLOSE_USERS, Split, scan
from mmrec.audit.watch import Watch
from mmrec.data.items import ITEM, TAGS
from mmrec.data.microlens import SPLITS
from mmrec.data.schema import HISTORY, TARGET
from mmrec.errors import InputError
from mmrec.io.parquet import left_pad

TIMES = ("timestamp", "time", "ts", "datetime", "event_time")
TESTS_A_COLUMN = 12  # by size, by value, missing; against item and item_feature; between splits
TESTS_BESIDES = 40


def audit(
    root: str | Path,
    *,
    out: str | Path | None = None,
    time: str | None = None,
    images: int = DECODED,
    sample_rows: int = ROWS,
    progress: bool | None = None,
) -> Report:
    """Audit a data set in the MicroLens layout.

    Every row is read and counted once; what needs rows beside each other (AUCs, duplicates) is
    measured on whole users drawn at random, about `sample_rows` of them a split, and so is exact
    for smaller splits.

    Args:
        root: the directory DATA of `docs/data_format.md`.
        out: where to write audit.md, audit.json and audit.png; None writes nothing.
        time: the column that holds each row's time; None looks for one of `TIMES`.
        images: how many pictures to decode, drawn at random.
        sample_rows: rows to keep in memory, per split.
        progress: whether to show progress on stderr; None shows it on a terminal.

    Raises:
        InputError: no data there, or a click log that cannot be read at all. Whatever a file that
            can be read holds is a finding, not an error.
    """
    layout = locate(root)
    num_items, tags, findings = _items(layout)
    rows = {name: _rows(path) for name, path in layout.clicks.items()}
    hidden = not (sys.stderr.isatty() if progress is None else progress)
    with tqdm(
        total=sum(rows.values()), desc="rows", unit=" rows", unit_scale=True, disable=hidden
    ) as bar:
        context = _read(layout, num_items, time, sample_rows, bar.update)
    checks: dict[str, Callable[[], tuple[list[Finding], dict[str, Any]]]] = {
        "shape": lambda: check_shape(context),
        "leaks": lambda: check_leaks(context),
        "levels": lambda: check_levels(context),
        "future items": lambda: check_future(context),
        "shift": lambda: check_shift(context, tags),
        "content": lambda: check_content(context, most_images=images, progress=bar.set_postfix_str),
    }
    facts: dict[str, dict[str, Any]] = {}
    with tqdm(total=len(checks), unit=" checks", disable=hidden) as bar:
        for name, check in checks.items():
            bar.set_description(name)
            found, facts[name] = check()
            findings += found
            bar.update()
    report = Report(
        root=str(root),
        findings=tuple(sorted(findings, key=lambda f: SEVERITIES.index(f.severity))),
        facts={
            "shape": facts["shape"],
            "leaks": facts["leaks"] | facts["levels"] | facts["future items"],
            "shift": facts["shift"],
            "content": facts["content"],
            "standard": {
                "chance of a false finding, all tests together": FAMILY_ERROR,
                "standard errors from chance that are real": context.standard.z,
                "distance of an AUC from 0.5 that matters": context.standard.resolution,
            },
        },
    )
    if out is not None:
        report.write(out)
    return report


def _rows(path: Path) -> int:
    with open_clicks(path) as file:
        return int(file.metadata.num_rows)


def _read(
    layout: Layout,
    num_items: int | None,
    time: str | None,
    sample_rows: int,
    update: Callable[[int], object],
) -> Context:
    """Scan valid and test first, so that train can be searched for what they hold."""
    with open_clicks(layout.clicks["train"]) as file:
        names = file.schema_arrow.names
    if time is not None and time not in names:
        raise InputError(f"time must be a column of train, got {time}, train has {names}")
    time = time or next((name for name in TIMES if name in names), None)
    size = num_items or _highest(layout) + 1
    splits: dict[str, Split] = {}
    watches: dict[str, Watch] = {}
    wanted: list[Array] = []
    for name in ("valid", "test", "train"):
        if name not in layout.clicks:
            continue
        splits[name] = scan(
            name,
            layout.clicks[name],
            num_items=size,
            watches=tuple(watches.values()) if name == "train" else (),
            close_users=np.unique(np.concatenate(wanted)) if wanted else None,
            time=time,
            sample_rows=sample_rows,
            progress=update,
        )
        if name != "train" and splits[name].rows:
            watches[name] = Watch.of(splits[name].sample)
            users = np.unique(splits[name].sample["user"])
            wanted.append(users[chosen(users, CLOSE_USERS / max(1, len(users)))])
    valid = splits.get("valid", splits["train"])
    valid = valid if valid.labelled else splits["train"]
    tests = TESTS_BESIDES + TESTS_A_COLUMN * (len(names) + 2)
    standard = Standard.of(
        tests=tests, negatives=int(valid.labels[1]), positives=int(valid.labels[2])
    )
    ordered: dict[str, Split] = {name: splits[name] for name in SPLITS if name in splits}
    return Context(layout, ordered, watches, size, standard, time)


def _highest(layout: Layout) -> int:
    """The largest item id of the click logs, for a data set without item_info."""
    highest = 1
    for path in layout.clicks.values():
        with open_clicks(path) as file:
            for column in (TARGET, HISTORY):
                if column in file.schema_arrow.names:
                    span = column_range(file, column)
                    highest = max(highest, span[1] if span else 1)
    if highest > MOST_CELLS:
        raise InputError(
            f"item ids must be dense or item_info.parquet there, got ids up to {highest}"
        )
    return highest


def _items(layout: Layout) -> tuple[int | None, Array | None, list[Finding]]:
    """Number of items with the padding, their tags (N, T), and what is odd about item_info."""
    path = layout.tables.get("item_info")
    advice = "Write item_info.parquet again: one row an item, ids 1.. without gaps, 0 the padding."
    if path is None:
        sentence = "There is no item_info.parquet, so unknown ids cannot be told from known ones."
        return None, None, [Finding("serious", "no_item_info", sentence, advice)]
    try:
        with pq.ParquetFile(path) as file:
            names = [n for n in (ITEM, TAGS) if n in file.schema_arrow.names]
            table = file.read(columns=names)
        ids = table[ITEM].drop_null().to_numpy().astype(np.int64)
    except (pa.ArrowException, OSError, KeyError) as error:
        sentence = f"item_info.parquet cannot be read: {error}."
        return None, None, [Finding("serious", "damaged_table", sentence, advice)]
    real = ids[ids > 0]
    if not len(real) or real.max() > MOST_CELLS:
        sentence = f"item_info.parquet has {len(real):,} ids above 0, up to {real.max(initial=0)}."
        return None, None, [Finding("serious", "item_info_ids", sentence, advice)]
    size = int(real.max()) + 1
    gaps, again = size - 1 - len(np.unique(real)), len(ids) - len(np.unique(ids))
    findings = []
    if gaps or again or (ids < 0).any():
        findings.append(
            Finding(
                "serious",
                "item_info_ids",
                f"item_info.parquet leaves out {gaps:,} ids below {size}, repeats {again:,} and "
                f"has {int((ids < 0).sum()):,} below 0: rows do not line up with ids.",
                advice,
                {"gaps": gaps, "repeats": again},
            )
        )
    return size, _tags(table, size), findings


def _tags(table: Any, size: int) -> Array | None:
    if TAGS not in table.column_names:
        return None
    known = table.filter(pc.and_(table[ITEM].is_valid(), table[TAGS].is_valid()))
    lists = known[TAGS].combine_chunks()
    lengths = np.asarray(pc.list_value_length(lists)).astype(np.int64)
    values = pc.fill_null(lists.flatten(), 0)
    flat = np.asarray(values.to_numpy(zero_copy_only=False)).astype(np.int64)
    tags = np.zeros((size, int(lengths.max(initial=1))), dtype=np.int64)
    item = known[ITEM].to_numpy()
    inside = (item > 0) & (item < size)
    tags[item[inside]] = np.maximum(left_pad(flat, lengths, tags.shape[1]), 0)[inside]
    return tags

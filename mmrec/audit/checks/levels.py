"""Level columns against the item: does a row that disagrees with its item's level know the label?

A level such as likes_level should be a function of the item. Where rows of one label were given
the level of another moment, or of another item, the disagreement marks them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmrec.audit.checks.context import Array, Context, Ints, item_means, labelled
from mmrec.audit.checks.statistics import Measured, clusters_of, difference, measure, within
from mmrec.audit.report import Finding
from mmrec.audit.scan.scan import Split

UNKNOWN = -1


def check_levels(context: Context) -> tuple[list[Finding], dict[str, Any]]:
    """Every level column against the item's usual value in train, and against item_feature's."""
    findings: list[Finding] = []
    facts: dict[str, Any] = {}
    train = context.train
    given = _given_levels(context)
    for name, table in train.levels.items():
        rows_of_item = table[1:].sum(axis=1)
        modal = table[1:].max(axis=1)
        facts[name] = {
            "function of the item": bool((modal == rows_of_item).all()),
            "rows at their item's usual value": float(modal.sum() / max(1, rows_of_item.sum())),
            "rows at the commonest value": float(table.sum(axis=0).max() / max(1, table.sum())),
        }
        sources: dict[str, Ints | None] = {"usual value in train": None}
        sources |= {"item_feature": given[name]} if name in given else {}
        for source, levels in sources.items():
            for split in context.splits.values():
                if not split.labelled or name not in split.sample:
                    continue
                findings += _disagreement(context, split, name, source, levels, facts[name])
    return findings, ({"levels": facts} if facts else {})


def _disagreement(
    context: Context,
    split: Split,
    name: str,
    source: str,
    given: Ints | None,
    facts: dict[str, Any],
) -> list[Finding]:
    rows = labelled(split)
    value = np.nan_to_num(rows[name], nan=UNKNOWN).astype(np.int64)
    if given is None:
        known, differs = differs_from_usual(
            context.train.levels[name], rows["item"], value, leave_out=split is context.train
        )
    else:
        level = given[rows["item"]]
        known, differs = level != UNKNOWN, value != level
    if not known.any() or not differs[known].any():
        facts[f"rows that differ from {source}, {split.name}"] = 0.0
        return []
    label, flag = rows["label"][known], differs[known]
    cluster = clusters_of(rows["user"][known])
    measured = measure(label, flag, cluster)
    facts[f"rows that differ from {source}, {split.name}"] = float(flag.mean())
    facts[f"AUC of differing from {source}, {split.name}"] = measured.to_json()
    # An item that is often shown differs more and may be clicked more, and so may a value that is
    # common: only what still holds inside an item and inside a value is the disagreement's own.
    inside_item = within(rows["item"][known], flag, label, cluster)
    inside_value = within(value[known], flag, label, cluster)
    facts[f"its z inside items and inside values, {source}, {split.name}"] = [
        round(inside_item, 2),
        round(inside_value, 2),
    ]
    some = {column: values[known] for column, values in rows.items()}
    adds = added(context, some, flag, cluster)
    facts[f"what it adds to item means, {source}, {split.name}"] = adds.to_json()
    own = min(abs(inside_item), abs(inside_value)) > context.standard.z
    if not (own and context.standard.found(measured)):
        return []
    high = max(measured.value, 1 - measured.value)
    which = "negatives" if measured.value < 0.5 else "positives"
    moves = context.standard.real(adds, 0.0) and adds.value > context.standard.resolution
    return [
        Finding(
            "serious" if moves else "warning",
            "level_disagrees",
            f"In {split.name}, {name} differs from the item's {source} in {flag.mean():.1%} of "
            f"rows, and that marks {which}: AUC {high:.3f} from the disagreement alone, "
            f"{adds.value:+.3f} on top of item means. "
            + (
                "A model that can compare the two reads the label."
                if moves
                else "So little is what a level of the moment, as against a final one, may do."
            ),
            f"Leave {name} out, or take it from one source for every row; report an AUC with it "
            "only beside one without.",
            {
                "split": split.name,
                "column": name,
                "source": source,
                "share": float(flag.mean()),
                "auc": measured.to_json(),
                "z inside items": inside_item,
                "z inside values": inside_value,
                "adds": adds.to_json(),
            },
        )
    ]


def added(context: Context, rows: dict[str, Array], flag: Array, cluster: Array) -> Measured:
    """AUC that a flag adds to item means: what it is worth beside an honest model.

    logit(item mean) + w flag, less logit(item mean) alone, on one half of the rows; w is the log
    odds ratio of the flag in the other half, the item means are of the same half of train.
    """
    first, second = rows["fold"] == 0, rows["fold"] == 1
    positive = rows["label"] > 0

    def log_odds(label: Array) -> float:
        there, total = (flag & label & first).sum() + 0.5, (label & first).sum() + 1.0
        return float(np.log(there / (total - there)))

    mean = item_means(context.train, (0,))[rows["item"][second]].clip(1e-6, 1 - 1e-6)
    base = np.log(mean / (1 - mean))
    weight = log_odds(positive) - log_odds(~positive)
    return difference(positive[second], base + weight * flag[second], base, cluster[second])


def differs_from_usual(
    table: Array, item: Array, value: Array, *, leave_out: bool
) -> tuple[Array, Array]:
    """Whether each row differs from the commonest value of its item, and where that is known.

    With `leave_out` the row itself is taken from the counts first, so that a rare item does not
    agree with itself; ties count as agreement.

    Args:
        table: (N, V) rows of train by item and value.
        item, value: (n,) ids and values; a value outside the table always differs.

    Returns:
        (n,) known, False where no other row tells; (n,) differs.
    """
    inside = (value >= 0) & (value < table.shape[1])
    place = np.where(inside, value, 0)
    own = np.where(inside, table[item, place], 0).astype(np.int64)
    top = np.partition(table, -2, axis=1)[:, -2:] if table.shape[1] > 1 else np.c_[table * 0, table]
    highest, second = top[item, 1].astype(np.int64), top[item, 0].astype(np.int64)
    if leave_out:
        # Without itself, a row of the commonest value competes with the second commonest.
        rival = np.where(own == highest, second, highest)
        own = own - inside
        return np.maximum(own, rival) > 0, own < rival
    return highest > 0, own < highest


def _given_levels(context: Context) -> dict[str, Ints]:
    """Level columns of item_feature, (N,) by item, `UNKNOWN` where it has none."""
    path = context.layout.tables.get("item_feature")
    if path is None:
        return {}
    return read_levels(path, list(context.train.levels), context.num_items)


def read_levels(path: Path, names: list[str], num_items: int) -> dict[str, Ints]:
    """Integer columns of an item table, aligned to item ids."""
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            there = [n for n in names if n in schema.names and "item_id" in schema.names]
            there = [n for n in there if pa.types.is_integer(schema.field(n).type)]
            table = file.read(columns=["item_id", *there]) if there else None
    except (pa.ArrowException, OSError):
        return {}  # told of by the checks of content
    if table is None:
        return {}
    item = table["item_id"].fill_null(-1).to_numpy()
    inside = (item > 0) & (item < num_items)
    levels = {}
    for name in there:
        levels[name] = np.full(num_items, UNKNOWN, dtype=np.int64)
        levels[name][item[inside]] = table[name].fill_null(UNKNOWN).to_numpy()[inside]
    return levels

"""Future items: does a history hold what its user met only later?

Looked for in the rows of a few thousand users, which are all kept with their histories.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mmrec.audit.checks.context import Array, Context
from mmrec.audit.checks.statistics import lower_share
from mmrec.audit.report import Finding
from mmrec.audit.scan.sample import pair_keys
from mmrec.audit.scan.scan import Split


def check_future(context: Context) -> tuple[list[Finding], dict[str, Any]]:
    """By times where rows have them, and by train histories that hold valid's targets."""
    findings: list[Finding] = []
    facts: dict[str, Any] = {}
    if context.time is not None:
        findings += _by_time(context, facts)
    for name in ("valid", "test"):
        if name in context.splits:
            findings += _known_in_train(context, context.splits[name], facts)
    return findings, ({"future items": facts} if facts else {})


def _by_time(context: Context, facts: dict[str, Any]) -> list[Finding]:
    """A history item that the same user's rows meet for the first time only later."""
    close = [split for split in context.splits.values() if len(split.close.get("user", ()))]
    if not close:
        return []
    first_met = [_first_met(split) & ~np.isnan(split.close["time"]) for split in close]
    pairs = [pair_keys(s.close["user"], s.close["item"]) for s in close]
    pair = np.concatenate([p[met] for p, met in zip(pairs, first_met, strict=True)])
    time = np.concatenate([s.close["time"][m] for s, m in zip(close, first_met, strict=True)])
    order = np.lexsort((time, pair))
    pair, time = pair[order], time[order]
    first = np.r_[True, pair[1:] != pair[:-1]]
    pair, time = pair[first], time[first]  # the first time of each pair of user and item
    findings = []
    for split in close:
        user = np.repeat(split.close["user"], split.histories.shape[1])
        keys = pair_keys(user, split.histories.ravel())
        place = np.minimum(np.searchsorted(pair, keys), max(0, len(pair) - 1))
        known = (pair[place] == keys) if len(pair) else np.zeros(len(keys), dtype=np.bool_)
        later: Array = np.zeros(len(keys), dtype=np.bool_)
        now = np.repeat(split.close["time"], split.histories.shape[1])
        later[known] = time[place[known]] > now[known]
        later &= split.histories.ravel() != 0
        rows = np.asarray(later.reshape(split.histories.shape).any(axis=1))
        told = np.asarray(known.reshape(split.histories.shape).any(axis=1))
        facts[f"rows of {split.name} with a later item"] = f"{rows.sum():,} of {len(rows):,}"
        if rows.any():
            findings.append(
                Finding(
                    "serious",
                    "future_items",
                    f"{rows.sum():,} of {len(rows):,} histories of {split.name} looked at hold an "
                    f"item that the same user met only after the row's {context.time}: the model "
                    "is told what comes next.",
                    f"Build each history from what came before the row's {context.time}.",
                    {
                        "split": split.name,
                        "rows": int(rows.sum()),
                        "of": len(rows),
                        "with a known time": int(told.sum()),
                    },
                )
            )
    return findings


def _first_met(split: Split) -> Array:
    """(n,) rows that may be their user's first meeting with the item, as far as histories tell.

    Where people come back to items, a row may be a return to what they met before the log began:
    its own history then holds the item, or was too full to still hold it.
    """
    own: Array = (split.histories == split.close["item"][:, None]).any(axis=1)
    full: Array = (split.histories != 0).all(axis=1)
    return ~own & ~full if split.hits[:, 1].sum() else ~own


def _known_in_train(context: Context, split: Split, facts: dict[str, Any]) -> list[Finding]:
    """A target that is in a train history of its user, but not in its own, is known too early.

    Own histories that are full may have dropped what they held earlier, so they do not count.
    """
    train, rows = context.train, split.close
    if not len(rows.get("user", ())) or not len(train.close.get("user", ())):
        return []
    shared = np.isin(rows["user"], train.close["user"])
    full = (split.histories != 0).all(axis=1)
    own = (split.histories == rows["item"][:, None]).any(axis=1)
    asked = np.flatnonzero(shared & ~full & ~own & (rows["item"] != 0))
    if not len(asked):
        return []
    some = np.isin(train.close["user"], rows["user"][asked])
    there = np.unique(_history_pairs(train.close["user"][some], train.histories[some]))
    early = np.isin(pair_keys(rows["user"][asked], rows["item"][asked]), there)
    found, total = int(early.sum()), len(asked)
    facts[f"targets of {split.name} in train histories of their user"] = f"{found:,} of {total:,}"
    if not found:
        return []
    label = rows["label"][asked]
    marked = {
        name: float(early[label == value].mean())
        for name, value in (("positives", 1), ("negatives", 0))
        if (label == value).any()
    }
    surely = lower_share(found, total, context.standard.z)
    words = " and ".join(f"{share:.1%} of {name}" for name, share in marked.items())
    return [
        Finding(
            "serious" if surely > context.standard.resolution else "warning",
            "future_in_train",
            f"{found:,} of {total:,} targets of {split.name} looked at stand in a train history of "
            f"the same user though not in their own{f' ({words})' if words else ''}: train has "
            f"rows from after {split.name}, and tells its answers.",
            "Split by time within each user, or by user.",
            {"split": split.name, "rows": found, "of": total, **marked},
        )
    ]


def _history_pairs(user: Array, histories: Array) -> Array:
    real = histories != 0
    return pair_keys(np.repeat(user, histories.shape[1])[real.ravel()], histories[real])

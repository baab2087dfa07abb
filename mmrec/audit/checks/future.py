"""Future items: does a history hold what its user met only later?

Looked for in the rows of a few thousand users, which are all kept with their histories.
n rows, L entries of a history.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from mmrec.audit.checks.statistics import Standard
from mmrec.audit.findings import Finding
from mmrec.audit.scan.rows import Array, Rows, find, pair_keys
from mmrec.audit.scan.split import Split


@dataclass(frozen=True)
class LaterItems:
    """Rows of a split whose history holds an item that the user's rows show only after `time`.

    Attributes:
        of: rows looked at.
    """

    split: str
    time: str
    rows: int
    of: int


@dataclass(frozen=True)
class KnownInTrain:
    """Rows whose item is in a train history of their user, but not in their own.

    Attributes:
        of: rows looked at; `of_positives` and `of_negatives` shares by label, None where there is
            none or several.
    """

    split: str
    rows: int
    of: int
    of_positives: float | None
    of_negatives: float | None


@dataclass(frozen=True)
class FutureItems:
    """By split: what times tell, and what train's histories tell."""

    by_time: dict[str, LaterItems]
    in_train: dict[str, KnownInTrain]


def measure_future(splits: Mapping[str, Split], time: str | None) -> FutureItems:
    """By times where rows have them, and by train histories that hold valid's targets."""
    some = {name: split for name, split in splits.items() if split.has_users}
    rows = {name: split.followed for name, split in some.items() if len(split.followed.row)}
    timed = {name: some for name, some in rows.items() if time in some.others}
    known = {
        name: _known_in_train(name, rows[name], rows["train"])
        for name in ("valid", "test")
        if {name, "train"} <= {*rows}
    }
    return FutureItems(
        by_time=_by_time(splits, timed, time) if time and timed else {},
        in_train={name: found for name, found in known.items() if found is not None},
    )


def _by_time(
    splits: Mapping[str, Split], rows: Mapping[str, Rows], time: str
) -> dict[str, LaterItems]:
    """A history item that the same user's rows meet for the first time only later."""
    first = {name: _first_meetings(splits[name], some, time) for name, some in rows.items()}
    pair = np.concatenate([pair_keys(some.user, some.item) for some in first.values()])
    when = np.concatenate([some.others[time] for some in first.values()])
    order = np.lexsort((when, pair))
    pair, place = np.unique(pair[order], return_index=True)
    when = when[order][place]  # the first time of each pair of user and item
    return {name: _later(name, some, pair, when, time) for name, some in rows.items()}


def _first_meetings(split: Split, rows: Rows, time: str) -> Rows:
    """Rows that may be their user's first meeting with the item, as far as histories tell.

    Where people come back to items, a row may be a return to what they met before the log began:
    its own history then holds the item, or was too full to still hold it.
    """
    again = rows.hit | (rows.full & (split.counts.holding_target > 0))
    return rows.where(~again & ~np.isnan(rows.others[time]))


def _later(name: str, rows: Rows, pair: Array, when: Array, time: str) -> LaterItems:
    items, width = rows.history.ravel(), rows.history.shape[1]
    place, known = find(pair, pair_keys(np.repeat(rows.user, width), items))
    later = known & (items != 0)
    later[known] &= when[place[known]] > np.repeat(rows.others[time], width)[known]
    return LaterItems(name, time, int(later.reshape(-1, width).any(axis=1).sum()), len(rows.row))


def _known_in_train(name: str, rows: Rows, train: Rows) -> KnownInTrain | None:
    """A target that is in a train history of its user, but not in its own, is known too early.

    Own histories that are full may have dropped what they held earlier, so they do not count.
    """
    asked = rows.where(np.isin(rows.user, train.user) & ~rows.full & ~rows.hit & (rows.item != 0))
    if not len(asked.row):
        return None
    some = train.where(np.isin(train.user, asked.user))
    items = some.history.ravel()
    there = pair_keys(np.repeat(some.user, some.history.shape[1]), items)[items != 0]
    early = np.isin(pair_keys(asked.user, asked.item), there)
    one = len(asked.labels) == 1
    positives, negatives = (early[asked.label == label] if one else [] for label in (1, 0))
    return KnownInTrain(
        split=name,
        rows=int(early.sum()),
        of=len(early),
        of_positives=float(np.mean(positives)) if len(positives) else None,
        of_negatives=float(np.mean(negatives)) if len(negatives) else None,
    )


def judge_future(future: FutureItems, standard: Standard) -> Iterator[Finding]:
    """Anything from the future is serious where times prove it."""
    for later in future.by_time.values():
        if later.rows:
            yield Finding("serious", "future_items", later)
    for known in future.in_train.values():
        if known.rows:
            surely = standard.share(known.rows, known.of)
            yield Finding("serious" if surely else "warning", "future_in_train", known)

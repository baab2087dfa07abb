"""Shift: do valid and test ask about the same users, items and rates that train shows?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from mmrec.audit.checks.statistics import (
    Array,
    Measured,
    Standard,
    clustered_error,
    clusters_of,
    item_means,
    measure,
)
from mmrec.audit.findings import Finding, found
from mmrec.audit.scan.rows import Rows
from mmrec.audit.scan.split import Overlap, Split

# Effects by Cohen's convention (1988) for two normal distributions: d = 0.2 is small, 0.8 large.
# The AUC that tells one from the other is Phi(d / sqrt 2).
SMALL, LARGE = 0.556, 0.714
MIXED = 0.05  # of the users new to train, else they count as all shared
POPULARITY = "popularity"
TENTHS = (*(str(number) for number in range(1, 11)), "new")


@dataclass(frozen=True)
class NewItems:
    """Items of a split that are new to train, without the padding.

    Attributes:
        items: asked about; `items_asked_in_train` the share that train asks about too.
        rows: of the split; `new` the share of those about an item that train never asks about,
            `never_shown` about one that is not in its histories either.
    """

    split: str
    items: int
    items_asked_in_train: float
    rows: int
    new: float
    never_shown: float


@dataclass(frozen=True)
class Separation:
    """How well a column tells two splits apart.

    Attributes:
        auc: above 0.5 where `second` has the higher values.
        surely: lower end of the AUC in the direction that it has, at the audit's standard.
    """

    column: str
    first: str
    second: str
    auc: Measured
    surely: float


@dataclass(frozen=True)
class ItemMeans:
    """AUC of items' positive rates: of half of train on the other half and on valid; of all."""

    half_on_other_half: Measured
    half_on_valid: Measured
    train_on_valid: Measured


@dataclass(frozen=True)
class Rates:
    """Positive rates."""

    train: Measured
    valid: Measured


@dataclass(frozen=True)
class Shift:
    """Facts of shift.

    Attributes:
        in_train_too, new_items: by split.
        separation: every compared column of every two splits.
        item_means, rates: None without labels in train or valid.
        popularity, popularity_rate: by split and tenth of train's rows, the most popular items
            first and "new" for items that train never asks about: share of rows, positive rate.
    """

    in_train_too: dict[str, Overlap]
    new_items: dict[str, NewItems]
    separation: list[Separation]
    item_means: ItemMeans | None
    rates: Rates | None
    popularity: dict[str, dict[str, float]]
    popularity_rate: dict[str, dict[str, float | None]]


def measure_shift(splits: Mapping[str, Split], standard: Standard) -> Shift:
    """Overlap, popularity, rates."""
    train, valid = splits["train"], splits.get("valid")
    both = (train, valid) if valid and valid.counts.labelled and train.counts.measurable else None
    tenth = _tenths(train)
    return Shift(
        in_train_too=train.overlaps,
        new_items={
            name: _new_items(train, split)
            for name, split in splits.items()
            if name != "train" and split.counts.rows
        },
        separation=_separations(splits, standard),
        item_means=_item_means(*both) if both else None,
        rates=Rates(*(_rate(split.sample.labelled()) for split in both)) if both else None,
        popularity={name: _shares(split, tenth) for name, split in splits.items()},
        popularity_rate={
            name: _positives(split, tenth)
            for name, split in splits.items()
            if split.counts.labelled
        },
    )


def _new_items(train: Split, split: Split) -> NewItems:
    asked = train.targets.sum(axis=(0, 1)) > 0
    shown = asked | (train.in_history > 0)
    rows = split.targets.sum(axis=(0, 1))
    rows[0] = 0
    total, items = int(rows.sum()), rows > 0
    return NewItems(
        split=split.name,
        items=int(items.sum()),
        items_asked_in_train=float(asked[items].mean()) if items.any() else 0.0,
        rows=total,
        new=float(rows[~asked].sum() / max(1, total)),
        never_shown=float(rows[~shown].sum() / max(1, total)),
    )


def _separations(splits: Mapping[str, Split], standard: Standard) -> list[Separation]:
    """AUC 0.5 where two splits are alike.

    Popularity is counted in one half of train; the train rows to compare are of the other, and so
    not counted in their own popularity.
    """
    shown = splits["train"].targets[0].sum(axis=0)
    samples = {name: split.sample for name, split in splits.items() if len(split.sample.row)}
    if "train" in samples:
        samples["train"] = samples["train"].where(samples["train"].fold == 1)
    separations = []
    for first, second in (("train", "valid"), ("train", "test"), ("valid", "test")):
        if first not in samples or second not in samples:
            continue
        two = (samples[first], samples[second])
        label = np.repeat([0, 1], [len(rows.row) for rows in two])
        cluster = clusters_of(np.concatenate([rows.user for rows in two]))
        columns = {
            POPULARITY: [shown[rows.item] for rows in two],
            "history length": [rows.length for rows in two],
        }
        for name in splits[first].levels:
            if all(name in rows.others for rows in two):
                columns[name] = [np.nan_to_num(rows.others[name]) for rows in two]
        for name, values in columns.items():
            auc = measure(label, np.concatenate(values), cluster)
            surely = abs(auc.value - 0.5) + 0.5 - standard.z * auc.error
            separations.append(Separation(name, first, second, auc, surely))
    return separations


def _item_means(train: Split, valid: Split) -> ItemMeans:
    half, whole = item_means(train.targets, (0,)), item_means(train.targets)
    inner, outer = train.sample.labelled(), valid.sample.labelled()
    inner = inner.where(inner.fold == 1)
    some = ((half, inner), (half, outer), (whole, outer))
    return ItemMeans(*(measure(r.label, m[r.item], clusters_of(r.user)) for m, r in some))


def _rate(rows: Rows) -> Measured:
    label = rows.label.astype(float)
    error = clustered_error((label - label.mean()) / len(label), clusters_of(rows.user))
    return Measured(float(label.mean()), error, error, len(label))


def _tenths(train: Split) -> Array:
    """(N,) place in `TENTHS` of each item."""
    counts = train.targets.sum(axis=(0, 1)).astype(float)
    counts[0] = 0
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    tenth = np.full(len(counts), 9)
    tenth[order] = np.minimum(9, (10 * before / max(1.0, counts.sum())).astype(int))
    tenth[counts == 0] = 10
    return tenth


def _shares(split: Split, tenth: Array) -> dict[str, float]:
    rows = np.bincount(tenth, weights=split.targets.sum(axis=(0, 1)), minlength=11)
    return dict(zip(TENTHS, (rows / max(1.0, rows.sum())).tolist(), strict=True))


def _positives(split: Split, tenth: Array) -> dict[str, float | None]:
    negative, positive = (
        np.bincount(tenth, weights=rows, minlength=11) for rows in split.targets.sum(axis=0)
    )
    pairs = zip(TENTHS, (negative + positive).tolist(), positive.tolist(), strict=True)
    return {name: hits / rows if rows else None for name, rows, hits in pairs}


def judge_shift(shift: Shift, standard: Standard) -> Iterator[Finding]:
    """What makes an AUC on valid or test say something else than it seems to."""
    for overlap in shift.in_train_too.values():
        yield from _judge_overlap(overlap, standard)
    for items in shift.new_items.values():
        yield from found(
            items,
            (standard.share(round(items.new * items.rows), items.rows), "notice", "unseen_items"),
        )
    for apart in shift.separation:
        if standard.real(apart.auc) and apart.surely >= SMALL:
            if apart.column != POPULARITY:
                yield Finding("warning", "shift", apart)
            else:
                serious = apart.surely > LARGE
                yield Finding("serious" if serious else "warning", "popularity_shift", apart)
    means, rates, z = shift.item_means, shift.rates, standard.z
    if means is not None:
        inner, outer = means.half_on_other_half, means.half_on_valid
        lost = inner.value - outer.value
        least = max(z * math.hypot(inner.error, outer.error), standard.resolution)
        half = outer.value + z * outer.error < 0.5 + (inner.value - 0.5) / 2
        real = inner.value > 0.5 and lost >= least
        yield from found(means, (real, "serious" if half else "warning", "item_means_shift"))
    if rates is not None:
        train, valid = rates.train, rates.valid
        real = abs(valid.value - train.value) > z * math.hypot(train.error, valid.error)
        yield from found(rates, (real, "warning", "label_rate_shift"))


def _judge_overlap(overlap: Overlap, standard: Standard) -> Iterator[Finding]:
    new = 1 - overlap.users_found / max(1, overlap.users)
    copies = standard.share(overlap.rows_found, overlap.rows)
    many = standard.share(overlap.pairs_found, overlap.pairs)
    yield from found(
        overlap,
        (overlap.users_found > 0, "warning" if new >= MIXED else "notice", "users_shared"),
        (
            overlap.pairs_found > 0,
            "serious" if copies else "warning" if many else "notice",
            "rows_in_train",
        ),
    )

"""Shift: do valid and test ask about the same users, items and rates that train shows?"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

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
from mmrec.audit.findings import Finding, Name, Severity, found
from mmrec.audit.scan.rows import Rows
from mmrec.audit.scan.split import ByLabel, Overlap, Split

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
        rows: of the split; `new` the share of those about an item that train never asks about,
            `never_shown` about one that is not in its histories either.
    """

    split: str
    rows: int
    new: float
    never_shown: float


@dataclass(frozen=True)
class Separation:
    """How well a column tells two splits apart.

    Attributes:
        missing: whether it is missing, not its value, that does.
        auc: above 0.5 where `second` has the higher values, or lacks more of them.
        surely: lower end of the AUC in the direction that it has, at the audit's standard.
    """

    column: str
    first: str
    second: str
    auc: Measured
    surely: float
    missing: bool = False


@dataclass(frozen=True)
class Labels:
    """Whether what train says of labels holds for valid.

    Attributes:
        half_on_other_half, half_on_valid, train_on_valid: AUC of items' positive rates, of half of
            train on its other half and on valid, and of all of train.
        train_rate, valid_rate: positive rates.
    """

    half_on_other_half: Measured
    half_on_valid: Measured
    train_on_valid: Measured
    train_rate: Measured
    valid_rate: Measured


@dataclass(frozen=True)
class Shift:
    """Facts of shift.

    Attributes:
        in_train_too, new_items: by split.
        separation: every compared column of every two splits.
        popularity: by split and tenth of train's rows, the most popular items first and "new" for
            items that train never asks about: share of rows.
    """

    in_train_too: dict[str, Overlap]
    new_items: dict[str, NewItems]
    separation: list[Separation]
    popularity: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Rates:
    """Facts of a label.

    Attributes:
        labels: None where train or valid has none.
        popularity_rate: by split and tenth as `Shift.popularity`: positive rate.
    """

    labels: Labels | None
    popularity_rate: dict[str, dict[str, float]]


def measure_shift(splits: Mapping[str, Split], standard: Standard) -> Shift:
    """Overlap, popularity, columns."""
    train = splits["train"]
    others = [split for name, split in splits.items() if name != "train" and split.counts.rows]
    tenth = _tenths(train)
    return Shift(
        in_train_too=train.overlaps,
        new_items={split.name: _new_items(train, split) for split in others},
        separation=_separations(splits, standard),
        popularity={name: _by_tenth(split, tenth) for name, split in splits.items()},
    )


def measure_rates(splits: Mapping[str, Split], label: str) -> Rates:
    """Positive rates of a label."""
    train, tenth = splits["train"].by_label[label], _tenths(splits["train"])
    labelled = {n: s for n, s in splits.items() if s.by_label[label].counts.labelled}
    both = "valid" in labelled and train.counts.measurable
    return Rates(
        labels=_labels(splits["train"], splits["valid"], label) if both else None,
        popularity_rate={n: _rate_by_tenth(s.by_label[label], tenth) for n, s in labelled.items()},
    )


def _new_items(train: Split, split: Split) -> NewItems:
    asked = train.asked.sum(axis=0) > 0
    shown = asked | (train.in_history > 0)
    rows = split.asked.sum(axis=0)
    rows[0] = 0
    total = int(rows.sum())
    return NewItems(
        split=split.name,
        rows=total,
        new=float(rows[~asked].sum() / max(1, total)),
        never_shown=float(rows[~shown].sum() / max(1, total)),
    )


def _separations(splits: Mapping[str, Split], standard: Standard) -> list[Separation]:
    """AUC 0.5 where two splits are alike.

    Popularity is counted in one half of train; the train rows to compare are of the other, and so
    not counted in their own popularity.
    """
    shown = splits["train"].asked[0]
    samples = {name: split.sample for name, split in splits.items() if len(split.sample.row)}
    if "train" in samples:
        samples["train"] = samples["train"].where(samples["train"].fold == 1)
    separations = []
    for first, second in combinations(samples, 2):
        two = (samples[first], samples[second])
        label = np.repeat([0, 1], [len(rows.row) for rows in two])
        cluster = clusters_of(np.concatenate([rows.user for rows in two]))
        for name, missing, values in _compared(splits[first], two, shown):
            there = ~np.isnan(values)
            auc = measure(label[there], values[there], cluster[there])
            surely = abs(auc.value - 0.5) + 0.5 - standard.z * auc.error
            separations.append(Separation(name, first, second, auc, surely, missing))
    return separations


def _compared(split: Split, two: Sequence[Rows], shown: Array) -> Iterator[tuple[str, bool, Array]]:
    """Name, whether it is about missing values, and the values of both samples' rows, in turn."""
    yield POPULARITY, False, np.concatenate([shown[rows.item].astype(float) for rows in two])
    yield "history length", False, np.concatenate([rows.length.astype(float) for rows in two])
    for name in two[0].others:
        if name not in two[1].others or name in two[0].lists:
            continue
        values = np.concatenate([rows.others[name] for rows in two])
        if name in split.by_name:
            yield name, False, np.nan_to_num(values)
        elif name in split.roles.numeric or name not in split.types:  # else it has no such role
            absent = np.isnan(values)
            if name in split.roles.numeric and absent.any():
                yield name, True, absent.astype(float)
            yield name, False, values


def _labels(train: Split, valid: Split, label: str) -> Labels:
    targets = train.by_label[label].targets
    half, whole = item_means(targets, (0,)), item_means(targets)
    inner, outer = train.sample.labelled(label), valid.sample.labelled(label)
    other = inner.where(inner.fold == 1)

    def auc(means: Array, rows: Rows) -> Measured:
        return measure(rows.label, means[rows.item], clusters_of(rows.user))

    return Labels(
        half_on_other_half=auc(half, other),
        half_on_valid=auc(half, outer),
        train_on_valid=auc(whole, outer),
        train_rate=_rate(inner),
        valid_rate=_rate(outer),
    )


def _rate(rows: Rows) -> Measured:
    label = rows.label.astype(float)
    error = clustered_error((label - label.mean()) / len(label), clusters_of(rows.user))
    return Measured(float(label.mean()), error, error, len(label))


def _tenths(train: Split) -> Array:
    """(N,) place in `TENTHS` of each item."""
    counts = train.asked.sum(axis=0).astype(float)
    counts[0] = 0
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    tenth = np.empty(len(counts), dtype=np.int64)
    tenth[order] = np.minimum(9, (10 * before / max(1.0, counts.sum())).astype(int))
    tenth[counts == 0] = 10
    return tenth


def _by_tenth(split: Split, tenth: Array) -> dict[str, float]:
    """Share of rows."""
    rows = np.bincount(tenth, weights=split.asked.sum(axis=0), minlength=len(TENTHS))
    return dict(zip(TENTHS, (rows / max(1.0, rows.sum())).tolist(), strict=True))


def _rate_by_tenth(one: ByLabel, tenth: Array) -> dict[str, float]:
    """Positive rate, NaN without rows."""
    weights = one.targets.sum(axis=0)
    rest, hits = (np.bincount(tenth, weights=some, minlength=len(TENTHS)) for some in weights)
    rows = rest + hits
    rates = hits / np.where(rows > 0, rows, np.nan)
    return dict(zip(TENTHS, rates.tolist(), strict=True))


def judge_shift(shift: Shift, standard: Standard) -> Iterator[Finding]:
    """What makes an AUC on valid or test say something else than it seems to."""
    for overlap in shift.in_train_too.values():
        yield from _judge_overlap(overlap, standard)
    for items in shift.new_items.values():
        many = standard.share(round(items.new * items.rows), items.rows)
        yield from found(items, (many, "notice", "unseen_items"))
    for apart in shift.separation:
        differ, popular = standard.real(apart.auc), apart.column == POPULARITY
        large: Severity = "serious" if popular and apart.surely > LARGE else "warning"
        name: Name = "popularity_shift" if popular else "shift"
        yield from found(apart, (differ and apart.surely >= SMALL, large, name))


def judge_rates(rates: Rates, standard: Standard) -> Iterator[Finding]:
    """What of a label's rates does not hold for valid."""
    if rates.labels is not None:
        yield from _judge_labels(rates.labels, standard)


def _judge_overlap(overlap: Overlap, standard: Standard) -> Iterator[Finding]:
    new = 1 - overlap.users_found / max(1, overlap.users)
    copies = standard.share(overlap.rows_found, overlap.rows)
    many = standard.share(overlap.pairs_found, overlap.pairs)
    pairs: Severity = "serious" if copies else "warning" if many else "notice"
    return found(
        overlap,
        (overlap.users_found > 0, "warning" if new >= MIXED else "notice", "users_shared"),
        (overlap.pairs_found > 0, pairs, "rows_in_train"),
    )


def _judge_labels(labels: Labels, standard: Standard) -> Iterator[Finding]:
    inner, outer = labels.half_on_other_half, labels.half_on_valid
    lost, apart = inner.value - outer.value, labels.valid_rate.value - labels.train_rate.value
    lost_error = math.hypot(inner.error, outer.error)
    apart_error = math.hypot(labels.train_rate.error, labels.valid_rate.error)
    less = lost >= max(standard.z * lost_error, standard.resolution) and inner.value > 0.5
    half = outer.value + standard.z * outer.error < 0.5 + (inner.value - 0.5) / 2
    return found(
        labels,
        (less, "serious" if half else "warning", "item_means_shift"),
        (abs(apart) > standard.z * apart_error, "warning", "label_rate_shift"),
    )

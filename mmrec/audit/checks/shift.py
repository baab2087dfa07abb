"""Shift: do valid and test ask about the same users, items and rates that train shows?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mmrec.audit.checks.context import Array, Context, item_means, labelled
from mmrec.audit.checks.statistics import Measured, clustered_error, clusters_of, measure
from mmrec.audit.report import Finding
from mmrec.audit.scan.scan import Split
from mmrec.data.items import TAGS

# Effects by Cohen's convention (1988) for two normal distributions: d = 0.2 is small, 0.8 large.
# The AUC that tells one from the other is Phi(d / sqrt 2).
SMALL, LARGE = 0.556, 0.714


def check_shift(context: Context, tags: Array | None) -> tuple[list[Finding], dict[str, Any]]:
    """Overlap, popularity, rates; `tags` (N, T) of the items, or None."""
    facts: dict[str, Any] = {}
    findings = _overlap(context, facts) + _unseen(context, tags, facts)
    findings += _separation(context, facts)
    if context.valid is not None and min(context.train.labels[1:]) > 0:
        findings += _item_means(context, context.valid, facts)
        findings += _rates(context, context.valid, facts)
    facts["popularity"] = _deciles(context)
    return findings, facts


def _overlap(context: Context, facts: dict[str, Any]) -> list[Finding]:
    """Users, pairs and whole rows of valid and test that stand in train."""
    findings = []
    facts["in train too"] = {}
    for name, watch in context.watches.items():
        users, found = len(watch.users), int(watch.user_found.sum())
        pairs, pairs_found = len(watch.pairs), int(watch.pair_found.sum())
        keys, keys_found = len(watch.keys), int(watch.key_found.sum())
        facts["in train too"][name] = {
            "users": found / max(1, users),
            "user-item pairs": pairs_found / max(1, pairs),
            "whole rows": keys_found / max(1, keys),
        }
        if found:
            part = found < users and not _nearly_all(found, users)
            findings.append(
                Finding(
                    "warning" if part else "notice",
                    "users_shared",
                    f"{found:,} of {users:,} users of {name} are in train too: what "
                    "is learnt of a user there counts here, so this AUC says nothing about "
                    "new users" + (", and mixes known users with new ones." if part else "."),
                    "Right for a split in time within users; for new users, split by user."
                    + (" Report known and new users apart." if part else ""),
                    {"split": name, "users": users, "shared": found},
                )
            )
        if pairs_found:
            copies = context.standard.share(keys_found, keys)
            again = context.standard.share(pairs_found, pairs)
            findings.append(
                Finding(
                    "serious" if copies else "warning" if again else "notice",
                    "rows_in_train",
                    f"{pairs_found:,} of {pairs:,} user-item pairs of {name} are in train too, "
                    f"{keys_found:,} of {keys:,} with the same history: they can be learnt by "
                    "heart.",
                    "Keep a pair of user and item in one split only.",
                    {"split": name, "pairs": pairs_found, "whole rows": keys_found},
                )
            )
    return findings


def _nearly_all(found: int, users: int) -> bool:
    return (users - found) / users < 0.05


def _unseen(context: Context, tags: Array | None, facts: dict[str, Any]) -> list[Finding]:
    """Targets, and their tags, that train never shows."""
    seen = context.train.targets.sum(axis=(0, 1)) > 0
    met = seen | (context.train.in_history > 0)
    seen_tags = None
    if tags is not None:
        seen_tags = np.zeros(int(tags.max(initial=0)) + 1, dtype=np.bool_)
        seen_tags[tags[met].ravel()] = True
        seen_tags[0] = True
    facts["seen in train"] = {}
    findings = []
    for name in ("valid", "test"):
        split = context.splits.get(name)
        if split is None or not split.rows:
            continue
        rows = split.targets.sum(axis=(0, 1))
        rows[0] = 0
        total = max(1, int(rows.sum()))
        new, never = int(rows[~seen].sum()), int(rows[~met].sum())
        shown = np.flatnonzero(rows)
        group: dict[str, Any] = {"items asked about": len(shown)}
        group["of them, asked about in train too"] = float(seen[shown].mean()) if len(shown) else 0
        group["rows with a target new to train"] = new / total
        group["rows with an item train never shows at all"] = never / total
        if tags is not None and seen_tags is not None:
            bare = ~seen_tags[tags].all(axis=1)
            group[f"rows whose {TAGS} hold one new to train"] = int(rows[bare].sum()) / total
        facts["seen in train"][name] = group
        if context.standard.share(new, total):
            findings.append(
                Finding(
                    "notice",
                    "unseen_items",
                    f"{new / total:.1%} of rows of {name} ask about an item that train never asks "
                    f"about, {never / total:.1%} about one it never shows: their id says nothing.",
                    "Give content a way past the id (id_dropout), and report these rows apart.",
                    {"split": name, **group},
                )
            )
    return findings


def _separation(context: Context, facts: dict[str, Any]) -> list[Finding]:
    """How well single columns tell one split from another: AUC 0.5 if they are alike."""
    findings = []
    facts["AUC that tells splits apart"] = {}
    pairs = [("train", "valid"), ("train", "test"), ("valid", "test")]
    # Counts of one half of train: the train rows to compare are of the other, and so not counted
    # in their own popularity.
    shown = context.train.targets[0].sum(axis=0)
    for first, second in pairs:
        if first not in context.splits or second not in context.splits:
            continue
        a, b = context.splits[first], context.splits[second]
        for name, left, right in _compared(a, b, shown):
            if not len(left[0]) or not len(right[0]):
                continue
            label = np.r_[np.zeros(len(left[0])), np.ones(len(right[0]))]
            cluster = clusters_of(np.r_[left[1], right[1]])
            told = measure(label, np.r_[left[0], right[0]], cluster)
            facts["AUC that tells splits apart"].setdefault(name, {})[f"{first}, {second}"] = (
                told.to_json()
            )
            findings += _apart(context, name, first, second, told)
    return findings


def _compared(a: Split, b: Split, shown: Array) -> list[tuple[str, list[Array], list[Array]]]:
    def rows(split: Split) -> dict[str, Array]:
        if split.name != "train" or not split.sample:
            return split.sample
        half = split.sample["fold"] == 1
        return {name: values[half] for name, values in split.sample.items()}

    left, right = rows(a), rows(b)
    if not left or not right:
        return []
    columns = [("history length", left["length"], right["length"])]
    columns += [(n, left[n], right[n]) for n in a.levels if n in left and n in right]
    pairs = [
        (name, [np.nan_to_num(x), left["user"]], [np.nan_to_num(y), right["user"]])
        for name, x, y in columns
    ]
    popular = (shown[left["item"]], shown[right["item"]])
    return [("popularity", [popular[0], left["user"]], [popular[1], right["user"]]), *pairs]


def _apart(context: Context, name: str, first: str, second: str, told: Measured) -> list[Finding]:
    strength = abs(told.value - 0.5) + 0.5
    surely = strength - context.standard.z * told.error
    if not context.standard.real(told) or surely < SMALL:
        return []
    less = "lower" if told.value < 0.5 else "higher"
    size = "large" if surely > LARGE else "more than small"
    meaning = (
        f"a score from {first} need not hold for {second}"
        if first == "valid"
        else f"a model learns on other rows than {second} asks about"
    )
    popular = name == "popularity"
    return [
        Finding(
            "serious" if popular and size == "large" else "warning",
            "popularity_shift" if popular else "shift",
            f"{'Targets' if popular else 'Rows'} of {second} have a {less} {name} than those of "
            f"{first}: it tells the two apart with AUC {strength:.3f} (a {size} effect), so "
            f"{meaning}.",
            "A split in time does this; otherwise find out how the splits were drawn. Judge a "
            "model on rows like those it will serve.",
            {"column": name, "splits": [first, second], "auc": told.to_json()},
        )
    ]


def _item_means(context: Context, valid: Split, facts: dict[str, Any]) -> list[Finding]:
    """The item means of one half of train: on its other half, and on valid."""
    half = item_means(context.train, (0,))
    inner, outer = labelled(context.train), labelled(valid)
    other = inner["fold"] == 1
    inner = {name: values[other] for name, values in inner.items()}
    inside = measure(inner["label"], half[inner["item"]], clusters_of(inner["user"]))
    outside = measure(outer["label"], half[outer["item"]], clusters_of(outer["user"]))
    whole = item_means(context.train)
    full = measure(outer["label"], whole[outer["item"]], clusters_of(outer["user"]))
    facts["AUC of item means"] = {
        "half of train on the other half": inside.to_json(),
        "half of train on valid": outside.to_json(),
        "train on valid": full.to_json(),
    }
    lost = inside.value - outside.value
    error = math.hypot(inside.error, outside.error)
    z = context.standard.z
    if inside.value <= 0.5 or lost < max(z * error, context.standard.resolution):
        return []
    half_lost = outside.value + z * outside.error < 0.5 + (inside.value - 0.5) / 2
    return [
        Finding(
            "serious" if half_lost else "warning",
            "item_means_shift",
            f"The items' positive rates in train have AUC {inside.value:.3f} on other rows of "
            f"train but {outside.value:.3f} on valid: what an id learns does not carry over"
            + (", more than half of it is lost." if half_lost else " in full."),
            "Expect ids to overfit; weigh content more (id_dropout), and check how negatives were "
            "drawn in either split.",
            {"train": inside.to_json(), "valid": outside.to_json()},
        )
    ]


def _rates(context: Context, valid: Split, facts: dict[str, Any]) -> list[Finding]:
    """How far label rates differ."""
    a, b = labelled(context.train), labelled(valid)

    def rate(rows: dict[str, Array]) -> Measured:
        label = rows["label"].astype(float)
        error = clustered_error((label - label.mean()) / len(label), clusters_of(rows["user"]))
        return Measured(float(label.mean()), error, error, len(label))

    train, held = rate(a), rate(b)
    facts["positive rate"] = {"train": train.to_json(), "valid": held.to_json()}
    apart = held.value - train.value
    if abs(apart) <= context.standard.z * math.hypot(train.error, held.error):
        return []
    return [
        Finding(
            "warning",
            "label_rate_shift",
            f"Positives are {train.value:.1%} of train and {held.value:.1%} of valid: "
            "probabilities learnt on one are wrong on the other (logloss), though AUC is not "
            "touched by the rate alone.",
            "Calibrate on rows drawn like those to be served, before probabilities are used.",
            {"train": train.to_json(), "valid": held.to_json()},
        )
    ]


def _deciles(context: Context) -> dict[str, Any]:
    """By tenth of train's rows, the most popular items first: share of rows and positive rate."""
    counts = context.train.targets.sum(axis=(0, 1)).astype(float)
    counts[0] = 0
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    tenth = np.full(len(counts), 9)
    tenth[order] = np.minimum(9, (10 * before / max(1.0, counts.sum())).astype(int))
    tenth[counts == 0] = 10  # never asked about in train
    names = [*(f"tenth {number}" for number in range(1, 11)), "new to train"]
    table: dict[str, dict[str, float | None]] = {name: {} for name in names}
    for name, split in context.splits.items():
        negative, positive = split.targets.sum(axis=0)
        rows = np.bincount(tenth, weights=negative + positive, minlength=11)
        hits = np.bincount(tenth, weights=positive, minlength=11)
        for place, group in enumerate(table.values()):
            group[f"{name} share"] = float(rows[place] / max(1.0, rows.sum()))
            if split.labelled:
                some = rows[place] > 0
                group[f"{name} positive"] = float(hits[place] / rows[place]) if some else None
    return table

"""What a preparation met, in sentences; made of the facts that its steps left."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

from mmrec.data.prepare.options import Options


def sentences(facts: dict[str, Any], options: Options) -> list[str]:
    """The report, line by line."""
    return [*_counts(facts, options), *_odd_events(facts, options), *_odd_items(facts)]


def _counts(facts: dict[str, Any], options: Options) -> Iterator[str]:
    first, last = (_moment(facts[name]) for name in ("first", "last"))
    yield (
        f"{facts['events']:,} events of {facts['users']:,} users and {facts['shown']:,} items, "
        f"{first} to {last} UTC"
    )
    yield f"times: {facts['clock']['told']}"
    if _scoring(facts):
        yield _many(facts["rows"]["rows"], "row to score", "rows to score")
    else:
        yield ", ".join(f"{name} {count:,}" for name, count in facts["rows"].items()) + " rows"
    for place, name in enumerate(options.log.label_names):
        ones, zeros = facts[f"ones{place}"], facts[f"zeros{place}"]
        known = ones + zeros
        missing = facts["events"] - known
        more = f", of {missing:,} events it is not known" if missing else ""
        yield f"label {name}: {ones:,} of {known:,} positive{more}"
    plan = options.plan
    if plan.negatives:
        short = facts["odd"].get("short", 0)
        yield (
            f"negatives: {plan.negatives} drawn for each click, by {plan.negatives_by}; "
            f"{short:,} could not be, for want of items alive that the user did not click"
        )


def _odd_events(facts: dict[str, Any], options: Options) -> Iterator[str]:
    log, odd = options.log, facts["odd"]
    for name, column in (("user_key", log.user), ("item_key", log.item), ("time", log.time)):
        if facts["empty"][name]:
            told = _many(facts["empty"][name], "event has", "events have")
            yield f"{told} no value in column {column}, left out"
    if odd.get("repeats"):
        told = _many(odd["repeats"], "event repeats", "events repeat")
        yield f"{told} another in every column, left out"
    if odd.get("known_before"):
        told = _many(odd["known_before"], "new event is", "new events are")
        yield f"{told} in the log already: counted once"
    if odd.get("unlabelled"):
        told = _many(odd["unlabelled"], "event", "events")
        where = "no history and no statistic" if _scoring(facts) else "no row and no history"
        yield f"{told} without any label: in {where}"
    if odd.get("cold"):
        told = _many(odd["cold"], "event", "events")
        yield f"{told} of items that train does not know: no rows of train"
    for place, name in enumerate(log.numeric):
        if facts[f"below{place}"]:
            told = _many(facts[f"below{place}"], "event has", "events have")
            yield f"{told} a {name} below 0, kept as it is"
        if facts[f"gone{place}"]:
            told = _many(facts[f"gone{place}"], "event has", "events have")
            yield f"{told} no value in column {name}"


def _odd_items(facts: dict[str, Any]) -> Iterator[str]:
    odd, unknown = facts["items_odd"], facts["unknown_items"]
    if odd["no_key"]:
        yield f"{_many(odd['no_key'], 'item has', 'items have')} no key, left out"
    if odd["repeats"]:
        told = _many(odd["repeats"], "item stands", "items stand")
        yield f"{told} there again, the first row counts"
    if unknown:
        told = _many(unknown, "item of the log is", "items of the log are")
        yield f"{told} missing from the items' file"
    never = facts["items"] - facts["shown"]
    if never:
        yield f"{_many(never, 'item is', 'items are')} in no event"
    yield from _pictures(facts["pictures"])


def _pictures(found: dict[str, Any]) -> Iterator[str]:
    if not found:
        return
    yield f"pictures: {found['pictures']:,} placed, {found['without']:,} items without"
    if found["named"] and not found["found"]:
        told = _many(found["named"], "item names a picture", "items name pictures")
        yield f"{told}, and none of them is there: looked in {found['folder']}"
    if found["more"]:
        told = _many(found["more"], "more picture", "more pictures")
        yield f"{told} of items that have one already, left out"


def _scoring(facts: dict[str, Any]) -> bool:
    """Whether rows are to be scored, of one file."""
    return "rows" in facts["rows"]


def _many(count: int, one: str, several: str) -> str:
    """A count and its words."""
    return f"{count:,} {one if count == 1 else several}"


def _moment(microseconds: int) -> str:
    start = datetime(1970, 1, 1, tzinfo=timezone.utc)
    return f"{start + timedelta(microseconds=microseconds):%Y-%m-%d %H:%M:%S}"

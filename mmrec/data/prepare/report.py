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
            yield f"{facts['empty'][name]:,} events have no {column} and are left out"
    if odd.get("repeats"):
        yield f"{odd['repeats']:,} events repeat another in every column and are left out"
    if odd.get("known_before"):
        yield f"{odd['known_before']:,} new events are in the log already: counted once"
    if odd.get("unlabelled"):
        yield f"{odd['unlabelled']:,} events without any label are no rows and in no history"
    if odd.get("cold"):
        yield f"{odd['cold']:,} events of items that train does not know are no rows of train"
    for place, name in enumerate(log.numeric):
        if facts[f"below{place}"]:
            yield f"{facts[f'below{place}']:,} events have a {name} below 0, kept as it is"
        if facts[f"gone{place}"]:
            yield f"{facts[f'gone{place}']:,} events have no {name}"


def _odd_items(facts: dict[str, Any]) -> Iterator[str]:
    odd, unknown = facts["items_odd"], facts["unknown_items"]
    if odd["no_key"]:
        yield f"{odd['no_key']:,} items have no key and are left out"
    if odd["repeats"]:
        yield f"{odd['repeats']:,} items stand there again, the first row counts"
    if unknown:
        yield f"{unknown:,} items of the log are missing from the items' file"
    never = facts["items"] - facts["shown"]
    if never:
        yield f"{never:,} items are in no event"
    found = facts["pictures"]
    if found:
        yield f"pictures: {found['pictures']:,} placed, {found['without']:,} items without"
        if found["more"]:
            yield f"{found['more']:,} more pictures of items that have one already are left out"


def _moment(microseconds: int) -> str:
    start = datetime(1970, 1, 1, tzinfo=timezone.utc)
    return f"{start + timedelta(microseconds=microseconds):%Y-%m-%d %H:%M:%S}"

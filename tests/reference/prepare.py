"""What `mmrec.data.prepare` makes of a log, by loops over its events.

An event is a dict of user, item, time (seconds), labels (a tuple of 0, 1 or None), device, price;
no two are equal in everything.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import inf, log, nan
from typing import Any

Event = dict[str, Any]
DAY = 86_400


def counts(event: Event) -> bool:
    """Whether anything is known of it."""
    return any(label is not None for label in event["labels"])


def positive(event: Event) -> bool:
    return bool(event["labels"][0] == 1)


def history(events: list[Event], row: Event, length: int, kept: Callable[[Event], bool]) -> Any:
    """The newest events of the row's user before its time, oldest first."""
    past = [
        event
        for event in events
        if event["user"] == row["user"]
        and event["time"] < row["time"]
        and counts(event)
        and kept(event)
    ]
    return sorted(past, key=order)[-length:]


def order(event: Event) -> tuple[Any, ...]:
    """By time, then item, labels, price, number as text; unknown before known."""
    labels = tuple(-1 if label is None else label for label in event["labels"])
    price = -inf if event["price"] is None else event["price"]
    return (event["time"], event["item"], labels, price, str(event["number"]))


def statistic(events: list[Event], row: Event, of: str, days: int | None) -> list[float]:
    """log(1 + rows), and share of each label, of earlier events of the same item, user, …"""
    past = [
        event
        for event in events
        if event[of] == row[of]
        and event["time"] < row["time"]
        and (days is None or event["time"] >= row["time"] - days * DAY)
        and counts(event)
    ]
    found = [log(1 + len(past))]
    for place in range(len(row["labels"])):
        ones = sum(event["labels"][place] == 1 for event in past)
        found.append(ones / len(past) if past else nan)
    return found


def last_share(events: list[Event], row: Event, number: int) -> float:
    past = history(events, row, number, lambda event: True)
    return sum(map(positive, past)) / len(past) if past else nan


def parts_by_time(events: list[Event], shares: tuple[int, int]) -> list[int]:
    """Shares in tenths: the events so many from the first on, and what is of the same instant."""
    times = sorted(event["time"] for event in events)
    bounds = []
    for share in (shares[0], shares[0] + shares[1]):
        rank = int(len(times) * Fraction(share, 10))
        bounds.append(times[rank] if rank < len(times) else times[-1] + 1)
    return [sum(event["time"] >= bound for bound in bounds) for event in events]


def parts_by_user_time(events: list[Event], shares: tuple[int, int]) -> list[int]:
    found = []
    for event in events:
        own = sorted(
            (other for other in events if other["user"] == event["user"] and counts(other)),
            key=order,
        )
        rank = sum(order(other) < order(event) for other in own)
        bounds = [int(len(own) * Fraction(sum(shares[:n]), 10)) for n in (1, 2)]
        found.append(sum(rank >= bound for bound in bounds))
    return found

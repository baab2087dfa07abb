"""What `mmrec.datasets.chronology` computes, by loops over (user, item, time, liked)."""

from __future__ import annotations

from fractions import Fraction
from math import log, nan

Rating = tuple[int, int, int, bool]


def splits(ratings: list[Rating]) -> list[int]:
    """0, 1, 2: the first 80 %, next 10 %, last 10 % of each user's ratings."""
    result = []
    for user, item, time, _ in ratings:
        own = sorted((t, i) for u, i, t, _ in ratings if u == user)
        rank = own.index((time, item))
        train, known = int(len(own) * Fraction(8, 10)), int(len(own) * Fraction(9, 10))
        result.append(0 if rank < train else 1 if rank < known else 2)
    return result


def history(
    ratings: list[Rating], row: int, length: int, *, only_liked: bool
) -> list[tuple[int, int, float]]:
    """(item, liked, days ago) of what the row's user had rated before, newest last, padded left."""
    user, _, now, _ = ratings[row]
    past = []
    for other, item, time, liked in ratings:
        if other == user and time < now and (liked or not only_liked):
            past.append((time, item, liked))
    entries = [(item, int(liked), (now - time) / 86400) for time, item, liked in sorted(past)]
    entries = entries[-length:]
    return [(0, 0, 0.0)] * (length - len(entries)) + entries


def numbers(ratings: list[Rating], row: int, lengths: tuple[int, ...]) -> list[float]:
    """Shares of likes among the user's last so many, log counts of user and item, item's share."""
    user, item, now, _ = ratings[row]
    own = sorted((t, i, liked) for u, i, t, liked in ratings if u == user and t < now)
    others = [liked for _, i, t, liked in ratings if i == item and t < now]
    shares = [_mean([liked for *_, liked in own][-length:]) for length in lengths]
    return [*shares, log(1 + len(own)), log(1 + len(others)), _mean(others)]


def _mean(values: list[bool]) -> float:
    return sum(values) / len(values) if values else nan


def levels(ratings: list[Rating], split: list[int], row: int) -> tuple[int, int]:
    """likes_level and views_level of a row, from train rows before it."""
    _, item, now, _ = ratings[row]
    past = [
        liked
        for (_, i, t, liked), part in zip(ratings, split, strict=True)
        if i == item and t < now and part == 0
    ]
    return level_of_likes(sum(past), len(past)), level_of_views(len(past))


def level_of_likes(likes: int, count: int) -> int:
    share = Fraction(likes + 2, count + 4)
    level = 1
    for percent in (30, 35, 40, 45, 50, 55, 60, 65, 70):
        if share >= Fraction(percent, 100):
            level += 1
    return level


def level_of_views(count: int) -> int:
    level = 1
    while level < 10 and 2**level <= count + 1:
        level += 1
    return level

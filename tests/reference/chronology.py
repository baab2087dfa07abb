"""What `mmrec.datasets.chronology` computes, by loops over (user, item, time, liked)."""

from __future__ import annotations

from fractions import Fraction

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


def history(ratings: list[Rating], row: int, length: int) -> list[int]:
    """What the row's user had liked before, newest last, padded on the left."""
    user, _, time, _ = ratings[row]
    past = sorted((t, i) for u, i, t, liked in ratings if u == user and t < time and liked)
    items = [item for _, item in past][-length:]
    return [0] * (length - len(items)) + items


def levels(
    ratings: list[Rating], split: list[int], row: int, recent: int = 30
) -> tuple[int, int, int]:
    """likes_level, views_level and user_level of a row, from train rows before it."""
    user, item, time, _ = ratings[row]
    past = [
        liked
        for (_, i, t, liked), part in zip(ratings, split, strict=True)
        if i == item and t < time and part == 0
    ]
    own = sorted(
        (t, i, liked)
        for (u, i, t, liked), part in zip(ratings, split, strict=True)
        if u == user and t < time and part == 0
    )[-recent:]
    share = Fraction(sum(liked for *_, liked in own) + 2, len(own) + 4)
    return level_of_likes(sum(past), len(past)), level_of_views(len(past)), int(10 * share) + 1


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

"""Splits, histories, shares, counts and levels agree with loops, and know nothing of what comes
at or after the row's own second."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import chronology as slow
from slow_variants import thoroughly

from mmrec.datasets import chronology, movielens_clicks
from mmrec.datasets.chronology import History, Past, Ratings

# Few users, items and seconds: ties and repeated items are the rule. A user rates an item once.
RATINGS = st.dictionaries(
    st.tuples(st.integers(1, 3), st.integers(1, 11)),
    st.tuples(st.integers(0, 6), st.booleans()),
    min_size=1,
    max_size=30,
).map(lambda found: [(user, item, *rest) for (user, item), rest in found.items()])


def columns(ratings: list[slow.Rating]) -> Ratings:
    user, item, time, liked = (np.array(column) for column in zip(*ratings, strict=True))
    return Ratings(user=user, item=item, time=time, liked=liked)


def entries(history: History) -> list[list[tuple[int, int, float]]]:
    """Row by row as `slow.history` gives them."""
    lists = [matrix.tolist() for matrix in (history.item, history.liked, history.days_ago)]
    return [list(zip(*row, strict=True)) for row in zip(*lists, strict=True)]


WITH_LENGTH = given(RATINGS, st.integers(1, 7), st.booleans())
WITH_DRAWS = given(RATINGS, st.data())


@settings(max_examples=100, deadline=None)
@WITH_LENGTH
def test_everything_agrees_with_loops(
    ratings: list[slow.Rating], length: int, only_liked: bool
) -> None:
    known = columns(ratings)
    rows = np.arange(len(ratings))
    split = chronology.split_by_user(known.user, known.time, known.item)
    assert split.tolist() == slow.splits(ratings)

    past = Past(known, kept=known.liked) if only_liked else Past(known)
    history = past.history(rows, length)
    expected = [slow.history(ratings, row, length, only_liked=only_liked) for row in rows]
    assert [[entry[:2] for entry in row] for row in entries(history)] == [
        [entry[:2] for entry in row] for row in expected
    ]
    days = np.array([[entry[2] for entry in row] for row in expected], dtype=np.float32)
    np.testing.assert_array_equal(history.days_ago, days)
    chronology.check_history(history, rows, known, only_liked=only_liked)

    made = list(movielens_clicks.numbers(known, Past(known), last=(length, 2 * length)).values())
    slowly = [slow.numbers(ratings, row, (length, 2 * length)) for row in rows]
    assert all(column.dtype == np.float32 for column in made)
    np.testing.assert_allclose(np.stack(made, axis=1), np.array(slowly), rtol=1e-6)

    levels = movielens_clicks.levels(known, split).values()
    assert list(zip(*levels, strict=True)) == [
        slow.levels(ratings, split.tolist(), row) for row in rows
    ]


test_everything_agrees_with_loops_thoroughly = thoroughly(
    test_everything_agrees_with_loops, WITH_LENGTH, 3000
)


def test_levels_agree_with_loops_over_their_whole_range() -> None:
    for count in range(0, 1200, 7):
        for likes in range(0, count + 1, 11):
            got = int(chronology.likes_level(np.array(likes), np.array(count)))
            assert got == slow.level_of_likes(likes, count)
    count = np.arange(1200)
    assert chronology.views_level(count).tolist() == [slow.level_of_views(n) for n in count]
    everything = chronology.likes_level(np.arange(1000), np.full(1000, 1000))
    assert set(everything.tolist()) == set(range(1, 11))  # 0 is left to padding


@settings(max_examples=100, deadline=None)
@WITH_DRAWS
def test_nothing_depends_on_the_row_itself_or_on_later_rows(
    ratings: list[slow.Rating], data: st.DataObject
) -> None:
    known = columns(ratings)
    row = data.draw(st.integers(0, len(ratings) - 1))
    later = known.time >= known.time[row]  # the row itself and its ties too
    flipped = data.draw(st.lists(st.booleans(), min_size=len(later), max_size=len(later)))
    changed = replace(known, liked=known.liked ^ (later & np.array(flipped)))
    kept = np.flatnonzero(~later | (np.arange(len(later)) == row))
    alone = Ratings(known.user[kept], known.item[kept], known.time[kept], known.liked[kept])

    def seen(ratings: Ratings, row: int) -> list[float]:
        past = Past(ratings)
        numbers = movielens_clicks.numbers(ratings, past, last=(1, 3)).values()
        histories = [past.history(np.array([row]), 5)]
        histories += [Past(ratings, kept=ratings.liked).history(np.array([row]), 5)]
        lists = [m[0] for h in histories for m in (h.item, h.liked, h.days_ago)]
        return [*(float(column[row]) for column in numbers), *np.concatenate(lists).tolist()]

    np.testing.assert_array_equal(seen(known, row), seen(changed, row))
    np.testing.assert_array_equal(seen(known, row), seen(alone, kept.tolist().index(row)))


test_nothing_depends_on_the_row_itself_or_on_later_rows_thoroughly = thoroughly(
    test_nothing_depends_on_the_row_itself_or_on_later_rows, WITH_DRAWS, 3000
)


GOOD = Ratings(
    user=np.array([1, 1, 1, 2]),
    item=np.array([3, 4, 5, 4]),
    time=np.array([1, 2, 2, 1]) * 43_200,
    liked=np.array([True, True, False, True]),
)


def history_of(items: list[int], liked: list[int], days_ago: list[float]) -> History:
    kinds = zip((items, liked, days_ago), (np.int64, np.int8, np.float32), strict=True)
    return History(*(np.array([values], dtype=kind) for values, kind in kinds))


@pytest.mark.parametrize(
    ("row", "items", "liked", "days_ago"),
    [
        (2, [0, 4], [0, 1], [0, 0.0]),  # of the same second
        (0, [0, 4], [0, 1], [0, -0.5]),  # of a later second
        (2, [0, 5], [0, 0], [0, 0.0]),  # the row itself
        (3, [0, 3], [0, 1], [0, 0.0]),  # another user's
        (2, [3, 0], [1, 0], [0.5, 0]),  # padded on the right
        (2, [3, 9], [1, 1], [0.5, 0.5]),  # no item at all
        (2, [0, -3], [0, 1], [0, 0.5]),
        (2, [0, 3], [0, 0], [0, 0.5]),  # not what the user thought of it
        (2, [0, 3], [1, 1], [0, 0.5]),  # an opinion of the padding
        (2, [0, 3], [0, 1], [0, 0.25]),  # not when
        (2, [0, 3], [0, 1], [1, 0.5]),  # a time of the padding
    ],
)
def test_the_assertion_on_histories_fails_on_each_breach(
    row: int, items: list[int], liked: list[int], days_ago: list[float]
) -> None:
    good = history_of([0, 3], [0, 1], [0, 0.5])
    chronology.check_history(good, np.array([2]), GOOD, only_liked=True)
    with pytest.raises(AssertionError, match="something else than earlier ratings"):
        chronology.check_history(
            history_of(items, liked, days_ago), np.array([row]), GOOD, only_liked=False
        )


def test_histories_of_likes_hold_no_dislike() -> None:
    row_after = (1, 6, 129_600, True)
    later = Ratings(*map(np.append, vars(GOOD).values(), row_after))
    history, row = history_of([0, 5], [0, 0], [0, 0.5]), np.array([4])
    chronology.check_history(history, row, later, only_liked=False)
    with pytest.raises(AssertionError, match="something else than earlier ratings"):
        chronology.check_history(history, row, later, only_liked=True)

"""Splits, histories and levels agree with loops, and know nothing of what comes later."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import chronology as slow
from slow_variants import thoroughly

from mmrec.datasets import chronology

# Few users, items and seconds: ties and repeated items are the rule. A user rates an item once.
RATINGS = st.dictionaries(
    st.tuples(st.integers(1, 3), st.integers(1, 11)),
    st.tuples(st.integers(0, 6), st.booleans()),
    min_size=1,
    max_size=30,
).map(lambda found: [(user, item, *rest) for (user, item), rest in found.items()])


def columns(ratings: list[slow.Rating]) -> dict[str, np.ndarray]:
    user, item, time, liked = (np.array(column) for column in zip(*ratings, strict=True))
    return {"user": user, "item": item, "time": time, "liked": liked}


WITH_LENGTH = given(RATINGS, st.integers(1, 7))
WITH_DRAWS = given(RATINGS, st.data())


@settings(max_examples=100, deadline=None)
@WITH_LENGTH
def test_everything_agrees_with_loops(ratings: list[slow.Rating], length: int) -> None:
    known = columns(ratings)
    rows = np.arange(len(ratings))
    split = chronology.split_by_user(known["user"], known["time"], known["item"])
    assert split.tolist() == slow.splits(ratings)

    histories = chronology.Histories(**known, length=length).of(rows)
    assert histories.tolist() == [slow.history(ratings, row, length) for row in rows]
    chronology.check_histories(histories, rows, **known)

    train = (split == chronology.TRAIN).astype(np.int64)
    count = chronology.count_earlier(known["item"], known["time"], train)
    likes = chronology.count_earlier(known["item"], known["time"], train * known["liked"])
    own = {name: known[name] for name in ("user", "time", "item")}
    recent = chronology.recent_earlier(
        **own, kept=train == 1, weight=known["liked"].astype(np.int64), length=length
    )
    made = (chronology.likes_level(likes, count), chronology.views_level(count))
    got = zip(*made, chronology.user_level(*recent), strict=True)
    assert list(got) == [slow.levels(ratings, split.tolist(), row, length) for row in rows]


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
    later = known["time"] >= known["time"][row]  # the row itself and its ties too
    flipped = data.draw(st.lists(st.booleans(), min_size=len(later), max_size=len(later)))
    changed = known | {"liked": known["liked"] ^ (later & np.array(flipped))}

    def seen(columns: dict[str, np.ndarray]) -> list[int]:
        count = chronology.count_earlier(
            columns["item"], columns["time"], columns["liked"].astype(np.int64)
        )
        history = chronology.Histories(**columns, length=5).of(np.array([row]))[0]
        liked = columns["liked"].astype(np.int64)
        own = {name: columns[name] for name in ("user", "time", "item")}
        recent, _ = chronology.recent_earlier(
            **own, kept=np.ones(len(liked), dtype=bool), weight=liked, length=3
        )
        return [int(count[row]), int(recent[row]), *history.tolist()]

    assert seen(known) == seen(changed)


test_nothing_depends_on_the_row_itself_or_on_later_rows_thoroughly = thoroughly(
    test_nothing_depends_on_the_row_itself_or_on_later_rows, WITH_DRAWS, 3000
)


GOOD = {
    "user": np.array([1, 1, 1, 2]),
    "item": np.array([3, 4, 5, 4]),
    "time": np.array([1, 2, 2, 1]),
    "liked": np.array([True, True, False, True]),
}


@pytest.mark.parametrize(
    ("row", "history"),
    [
        (2, [0, 4]),  # of the same second
        (0, [0, 4]),  # of a later second
        (2, [0, 5]),  # the row itself, and no like
        (3, [0, 3]),  # another user's
        (2, [3, 0]),  # padded on the right
        (2, [3, 9]),  # no item at all
        (2, [0, -3]),
    ],
)
def test_the_assertion_on_histories_fails_on_each_breach(row: int, history: list[int]) -> None:
    chronology.check_histories(np.array([[0, 3]]), np.array([2]), **GOOD)
    with pytest.raises(AssertionError, match="something else than earlier likes"):
        chronology.check_histories(np.array([history]), np.array([row]), **GOOD)

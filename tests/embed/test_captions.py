from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrec import InputError
from mmrec.embed import Captions
from mmrec.embed.captions import visible


def test_title_and_tags_are_joined_and_padding_left_out() -> None:
    assert Captions()("Fun #cats", [0, 4, 17, 0]) == "Fun #cats #4 #17"
    assert Captions(template="{title}. tags: {tags}")("A", ["b", None]) == "A. tags: #b"
    assert Captions(template="{title}")("A", [3]) == "A"
    assert Captions(tag_prefix="", tag_separator=", ")("A", [3, 5]) == "A 3, 5"


@pytest.mark.parametrize("title", [None, "", "   ", "\n\t \0"])
def test_no_words_give_no_caption_whatever_the_template_says(title: str | None) -> None:
    assert Captions()(title, None) == ""
    assert Captions(template="a video: {title} {tags}")(title, [0, 0]) == ""


@pytest.mark.parametrize("template", ["", "{titel}", "{}", "{title", "{0}", "plain words"])
def test_a_template_that_names_something_else_is_refused(template: str) -> None:
    with pytest.raises(InputError, match="caption template"):
        Captions(template=template)


@given(st.text(max_size=300), st.lists(st.integers(0, 20), max_size=5))
def test_any_text_gives_one_line_that_survives_utf8(title: str, tags: list[int]) -> None:
    caption = Captions()(title, tags)
    assert caption == " ".join(caption.split())
    assert caption.encode("utf-8").decode("utf-8") == caption
    assert bool(caption) == bool(visible(title) or any(tags))


def test_endless_titles_are_cut() -> None:
    assert len(Captions()("x" * 10_000_000, [1])) == 2000
    assert Captions(longest=5)("ab cd ef", None) == "ab cd"


@pytest.mark.parametrize(
    "title", [None, "", " \n", "\u200b", "\x07\x1b", "\u00ad\ufeff", "\u3164", "\ufe0f"]
)
def test_what_cannot_be_seen_is_no_title(title: str | None) -> None:
    assert Captions()(title, []) == ""
    assert Captions()(title, [3]) == "#3"
    assert Captions()(None, ["\u200b", "pets"]) == "#pets"


def test_what_can_be_seen_is_kept_as_it_is() -> None:
    for title in ("ok", "क्‍ष", "👩‍👩‍👧", "!", "٣"):
        assert Captions()(title, []) == title

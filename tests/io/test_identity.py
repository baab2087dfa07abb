"""What was made from something else is refused, and the sentence names what differs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmrec import InputError
from mmrec.io.identity import bind_identity, require_same

MADE = {"encoder": {"name": "a", "sizes": (3, 5)}, "seed": 1, "options": {}}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({**MADE, "seed": 2}, "x was made with another seed: seed was 1 and is 2; do y"),
        (
            {**MADE, "encoder": {"name": "b", "sizes": (3, 5)}},
            "x was made with another encoder: name was 'a' and is 'b'; do y",
        ),
        (
            {"encoder": {"name": "a", "sizes": [3, 7], "more": None}, "seed": 1},
            "x was made with another encoder, options: encoder.sizes was [3, 5] and is [3, 7], "
            "options was {} and is 'absent', encoder.more was 'absent' and is None; do y",
        ),
        ({"encoder": 1, "seed": 2, "options": {"a": 1}}, "and 3 more; do y"),
        ({**MADE, "seed": "s" * 500}, f"seed was 1 and is '{'s' * 116}...; do y"),
    ],
)
def test_the_sentence_names_what_differs(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        require_same(MADE, given, where=Path("x"), remedy="do y")
    assert str(caught.value).endswith(sentence)


def test_tuples_are_lists_as_in_json() -> None:
    stored = json.loads(json.dumps(MADE))
    require_same(stored, MADE, where=Path("x"), remedy="do y")
    with pytest.raises(InputError, match="JSON-able"):
        require_same(stored, {"seed": object()}, where=Path("x"), remedy="do y")


def test_the_first_run_binds_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "_identity.json"
    bind_identity(path, MADE, remedy="do y")
    before = path.read_text()
    bind_identity(path, MADE, remedy="do y")
    assert path.read_text() == before
    with pytest.raises(InputError, match=f"{tmp_path} was made with another seed: .*; do y"):
        bind_identity(path, {**MADE, "seed": 3}, remedy="do y")
    path.write_text("{")
    with pytest.raises(InputError, match=r"_identity.json cannot be read .*; do y"):
        bind_identity(path, MADE, remedy="do y")

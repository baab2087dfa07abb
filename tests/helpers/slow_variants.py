"""Thorough variants of short tests: `-m slow` runs them, every other run leaves them out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings

SLOW = (pytest.mark.slow, pytest.mark.timeout(1800))


def thorough(*values: Any) -> Any:
    """Values of `parametrize` that are tried in the slow run alone."""
    return pytest.param(*values, marks=SLOW)


def thoroughly(test: Any, strategies: Callable[..., Any], examples: int) -> Any:
    """A hypothesis test once more, in the slow run alone: `strategies` is its `given(...)`."""
    more = settings(max_examples=examples, deadline=None)(strategies(test.hypothesis.inner_test))
    for mark in SLOW:
        more = mark(more)
    return more

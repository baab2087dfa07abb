"""Every name that a room gives in `__all__` says what it is, and has a place in the reference."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import mmrec

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
ROOMS = [
    module.name
    for module in pkgutil.walk_packages(mmrec.__path__, "mmrec.")
    if module.ispkg and hasattr(importlib.import_module(module.name), "__all__")
]


def written_below(module: ModuleType, name: str) -> str | None:
    """The string under the assignment of a constant, in its module or where that has it from."""
    body = ast.parse(inspect.getsource(module)).body
    for node, after in zip(body, [*body[1:], ast.Pass()], strict=True):
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            return written_below(importlib.import_module(str(node.module)), name)
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        if [getattr(target, "id", None) for target in targets] == [name]:
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            return str(after.value.value) if is_text else None  # type: ignore[attr-defined]
    return None


def docstring(module: ModuleType, name: str) -> str | None:
    value: Any = getattr(module, name)
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return written_below(module, name)
    text = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    return None if text and text.startswith(f"{name}(") else text  # a dataclass makes that itself


@pytest.mark.parametrize("room", ["mmrec", *ROOMS])
def test_every_name_has_a_docstring(room: str) -> None:
    module = importlib.import_module(room)
    silent = [name for name in module.__all__ if not docstring(module, name)]
    assert silent == []


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_in_the_reference(room: str) -> None:
    """That its names are there too is seen when the site is built (`docs/hooks.py`)."""
    assert any(f"\n::: {room}\n" in page.read_text() for page in REFERENCE.glob("*.md"))


def test_a_name_that_says_nothing_would_be_seen() -> None:
    assert docstring(importlib.import_module("mmrec.models.recipes"), "_BRISK") is None
    assert "draws" in str(docstring(importlib.import_module("mmrec.models"), "SEARCH_SPACE"))

"""Tutorials with their pictures, and after the build: every public name stands in the reference.

The names are read without importing the package: the site is built where torch need not be.
"""

import ast
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

PACKAGE = Path(__file__).parents[1] / "mmrec"
EXECUTED = PACKAGE.parent / "build" / "tutorials"  # by `make tutorials`


def on_files(files: Any, config: Any) -> Any:
    """A tutorial that was executed since it changed stands in the place of that without outputs."""
    for file in files:
        executed = EXECUTED / Path(file.src_uri).name
        if file.src_uri.endswith(".ipynb") and executed.exists():
            own = Path(file.abs_src_path)
            if executed.stat().st_mtime >= own.stat().st_mtime:
                file.abs_src_path = str(executed)
    return files


def public_names() -> list[str]:
    """Dotted names that the rooms' `__all__` give."""
    found = []
    for path in sorted(PACKAGE.rglob("__init__.py")):
        room = ".".join(path.parent.relative_to(PACKAGE.parent).parts)
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                found += [f"{room}.{name}" for name in ast.literal_eval(node.value)]
    return found


def on_env(env: Any, config: Any, files: Any) -> None:
    """All pages are rendered by now, and their anchors are known."""
    autorefs = config.plugins["autorefs"]
    known = {*autorefs._primary_url_map, *autorefs._secondary_url_map}
    # A function named as its module (`mmrec.metrics.auc.auc`) is known by its longer name, and the
    # names of `mmrec` itself by their rooms'.
    last = {name.rpartition(".")[2] for name in known}
    missing = [name for name in public_names() if not _is_known(name, known, last)]
    if missing:
        raise PluginError(f"no docstring, or not in docs/reference: {', '.join(missing)}")


def _is_known(name: str, known: set[str], last: set[str]) -> bool:
    room, _, short = name.rpartition(".")
    return name in known or f"{name}.{short}" in known or (room == "mmrec" and short in last)

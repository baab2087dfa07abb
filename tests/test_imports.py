"""Which room may import which, and what `import mmrec` must not load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from mmrec.data.microlens import MICROLENS

ROOT = Path(__file__).parents[1] / "mmrec"
BASE = {"errors", "io", "batch", "cli", "config", "devices", "schema"}
# What a room may import besides itself.
ALLOWED = {
    "errors": set(),
    "batch": set(),
    "devices": {"errors"},
    "cli": {"errors"},
    "config": {"errors", "io"},
    "schema": {"errors", "io"},
    "io": {"errors"},
    "metrics": {"errors"},
    "stream": {"errors", "io", "cli"},
    "data": BASE | {"stream"},
    "datasets": BASE | {"data", "metrics"},
    "embed": BASE | {"data"},
    "nn": {"errors"},
    "models": BASE | {"nn"},
    "train": BASE | {"metrics"},
    "analysis": BASE | {"data", "metrics", "models", "train"},
    "audit": BASE | {"data", "metrics"},
    "predict": BASE | {"data", "models", "nn", "stream", "train"},
    "serve": BASE | {"data", "models", "nn", "predict"},
    "commands": BASE | {"data", "models", "train", "analysis", "predict", "serve"},
    "__main__": {"cli", "errors"},
}
OPTIONAL = {"open_clip", "polars", "torchvision", "PIL", "matplotlib", "tensorboard", "pandas"}
OPTIONAL |= {"fastapi", "uvicorn", "onnx", "onnxruntime", "onnxscript"}
# Rooms whose files may import an optional package at their top.
TOP_LEVEL_OPTIONAL = {
    "datasets/movielens_csv.py": {"polars"},
    "data/prepare/times.py": {"polars"},
    "data/prepare/read.py": {"polars"},
    "data/prepare/ids.py": {"polars"},
    "data/prepare/buckets.py": {"polars"},
    "data/prepare/split.py": {"polars"},
    "data/prepare/negatives.py": {"polars"},
    "data/prepare/statistics.py": {"polars"},
    "data/prepare/items.py": {"polars"},
    "data/prepare/rows.py": {"polars"},
    "data/prepare/pipeline.py": {"polars"},
}
FILES = sorted(ROOT.rglob("*.py"))


def imports(path: Path, *, top: bool) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = list(tree.body) if top else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_rooms_import_only_what_the_design_allows() -> None:
    assert len(FILES) > 50
    for path in FILES:
        place = str(path.relative_to(ROOT))
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        allowed = ALLOWED[room] | {room}
        for name in imports(path, top=False):
            if name.startswith("mmrec."):
                assert name.split(".")[1] in allowed, f"{place} imports {name}"


def test_no_column_name_of_a_data_set_stands_elsewhere() -> None:
    """Everything runs over what a schema lists."""
    clicks, items = MICROLENS.clicks, MICROLENS.items
    names = {column for roles in (clicks.roles(), items.roles()) for column, _ in roles}
    names |= {*items.modalities.values(), items.title or ""}
    assert len(names) == 12
    for path in FILES:
        place = str(path.relative_to(ROOT))
        if place == "data/microlens.py" or place.startswith("datasets/"):
            continue
        nodes = ast.walk(ast.parse(path.read_text()))
        words = {node.value for node in nodes if isinstance(node, ast.Constant)}
        # What a model without a data set calls its only task.
        assert not names & (words - {"label"}), place


def test_optional_packages_are_imported_where_used() -> None:
    for path in FILES:
        place = str(path.relative_to(ROOT))
        packages = {name.split(".")[0] for name in imports(path, top=True)}
        assert not packages & (OPTIONAL - TOP_LEVEL_OPTIONAL.get(place, set())), place


def test_importing_mmrec_is_quick_and_loads_no_optional_package() -> None:
    code = (
        "import sys, time, torch; t = time.perf_counter(); import mmrec; "
        "took = time.perf_counter() - t; "
        f"print(took, sorted({OPTIONAL!r} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    took, loaded = said.stdout.split(maxsplit=1)
    assert loaded.strip() == "[]"
    assert float(took) < 2.0


def test_every_public_name_is_there() -> None:
    import mmrec

    assert [name for name in mmrec.__all__ if not hasattr(mmrec, name)] == []

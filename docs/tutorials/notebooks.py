"""Tutorials: from their sources to notebooks, and a run of them from top to bottom.

    python docs/tutorials/notebooks.py                # write *.ipynb of sources/*.py
    python docs/tutorials/notebooks.py --run          # run them; an error or a slow one fails
    python docs/tutorials/notebooks.py --run --out D  # and leave them with their pictures in D

Who changes a tutorial changes its source; the notebooks are committed without outputs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).parent
SOURCES = HERE / "sources"
SECONDS = 45  # that one may take on two cores


def cells(source: str) -> list[dict[str, Any]]:
    """The cells of a source: each begins at a line `# %%`, one of text at `# %% [markdown]`."""
    found = []
    for number, part in enumerate(source.split("# %%")[1:]):
        kind, _, body = part.partition("\n")
        lines = body.strip("\n").splitlines()
        if text := kind.strip() == "[markdown]":
            lines = [line.removeprefix("#").removeprefix(" ") for line in lines]
        elif lines[-1].startswith(("axis.", "axes[", "figure.")):
            lines[-1] += ";"  # shows the picture alone, not what the call gives
        cell: dict[str, Any] = {
            "cell_type": "markdown" if text else "code",
            "id": f"cell-{number}",
            "metadata": {},
            "source": [f"{line}\n" for line in lines[:-1]] + lines[-1:],
        }
        found.append(cell if text else cell | {"execution_count": None, "outputs": []})
    return found


def notebook(source: str) -> str:
    """What stands in the file."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    about = {"kernelspec": kernel, "language_info": {"name": "python"}}
    made = {"cells": cells(source), "metadata": about, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def place(source: Path) -> Path:
    """Where the notebook of a source stands."""
    return HERE / f"{source.stem}.ipynb"


def run(path: Path, out: Path | None) -> float:
    """The seconds that it took.

    Raises:
        CellExecutionError: of nbclient, with the cell and its traceback.
    """
    import nbformat
    from nbclient import NotebookClient

    content = nbformat.read(path, as_version=4)
    began = time.perf_counter()
    with TemporaryDirectory() as folder:
        where = {"metadata": {"path": folder}}
        NotebookClient(content, timeout=300, resources=where).execute()
    took = time.perf_counter() - began
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        nbformat.write(content, out / path.name)
    return took


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="of sources (all of them)")
    parser.add_argument("--run", action="store_true", help="run the notebooks instead")
    parser.add_argument("--out", type=Path, help="where they are left with their outputs")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="that one may take (45)")
    given = parser.parse_args()
    slow = []
    for source in sorted(SOURCES.glob("*.py")):
        if given.names and source.stem not in given.names:
            continue
        if not given.run:
            place(source).write_text(notebook(source.read_text()))
            continue
        took = run(place(source), given.out)
        print(f"{source.stem}: {took:.1f} s", flush=True)
        slow += [source.stem] * (took > given.seconds)
    if slow:
        sys.exit(f"error: a tutorial takes at most {given.seconds:g} s, too slow: {slow}")


if __name__ == "__main__":
    main()

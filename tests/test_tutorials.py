"""The notebooks are what their sources say, without outputs; `make tutorials` runs them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

TUTORIALS = Path(__file__).parents[1] / "docs" / "tutorials"
SOURCES = sorted((TUTORIALS / "sources").glob("*.py"))


@pytest.fixture
def notebooks(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(TUTORIALS))
    import notebooks

    yield notebooks
    del sys.modules["notebooks"]


def test_every_notebook_is_made_of_its_source(notebooks: Any) -> None:
    assert len(SOURCES) == 5
    assert sorted(TUTORIALS.glob("*.ipynb")) == [notebooks.place(source) for source in SOURCES]
    for source in SOURCES:
        made = notebooks.place(source).read_text()
        remedy = "python docs/tutorials/notebooks.py"
        assert made == notebooks.notebook(source.read_text()), f"{source.name}: {remedy}"


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_a_tutorial_has_words_code_and_pictures(notebooks: Any, source: Path) -> None:
    cells = json.loads(notebooks.place(source).read_text())["cells"]
    kinds = [cell["cell_type"] for cell in cells]
    assert kinds[:2] == ["markdown", "code"]
    assert kinds[-1] == "markdown"
    assert cells[0]["source"][0].startswith("# ")
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert sum("plt.subplots" in text for text in code) >= 2
    for number, text in enumerate(code):
        compile(text, f"{source.name}, cell {number}", "exec")
    assert "".join(code).count("\n") < 200


def test_a_notebook_that_fails_fails_the_run(notebooks: Any, tmp_path: Path) -> None:
    errors = pytest.importorskip("nbclient.exceptions")
    pytest.importorskip("ipykernel")
    path = tmp_path / "broken.ipynb"
    path.write_text(notebooks.notebook("# %%\nx = 1\n\n# %%\nassert x == 2, 'no'\n"))
    with pytest.raises(errors.CellExecutionError, match="AssertionError"):
        notebooks.run(path, None)

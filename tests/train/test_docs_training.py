"""The example of docs/guides/training.md runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest


def test_the_first_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "guides" / "training.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    exec(compile(blocks[0], "docs/guides/training.md", "exec"), {"__name__": "example"})
    area, path = capsys.readouterr().out.split()
    assert float(area) > 0.95
    assert Path(path).name.startswith("best-")

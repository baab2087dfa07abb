"""Links lead somewhere, and files that are named are there."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_link_leads_to_a_file() -> None:
    for page in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_every_file_that_contributing_names_is_there() -> None:
    named = re.findall(r"`([\w./]+\.(?:py|md)|[\w./]+/)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert len(named) > 15
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_drawings_are_what_their_script_draws() -> None:
    scope = runpy.run_path(str(ROOT / "docs" / "img" / "drawings.py"))
    for name, draw in scope["DRAWINGS"].items():
        assert draw() == (ROOT / "docs" / "img" / f"{name}.svg").read_text()


def test_the_quickstart_of_the_readme_is_the_example() -> None:
    """Its own test runs the example, so that no page has to run it again."""
    example = (ROOT / "examples" / "quickstart.py").read_text()
    assert f"```python\n{example}```" in (ROOT / "README.md").read_text()

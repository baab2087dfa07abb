"""The shortest example runs to its end and ranks."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "examples" / "quickstart.py"


def test_it_trains_and_scores() -> None:
    assert len(SCRIPT.read_text().splitlines()) <= 40
    said = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=True)
    found = re.search(r"valid AUC ([0-9.]+), of the truth ([0-9.]+)", said.stdout)
    assert found is not None
    assert 0.7 < float(found[1]) < float(found[2])
    assert "click probabilities" in said.stdout

"""`kill -9` at random moments: the run always resumes, and ends as an undisturbed one.

Two kills in every run, fifty in the slow one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from slow_variants import thorough
from toy_training import assert_same_state, state_of

SCRIPT = Path(__file__).parents[1] / "helpers" / "kill_training.py"


@pytest.mark.parametrize("kills", [2, thorough(50)])
def test_killed_at_random_moments_ends_as_undisturbed(tmp_path: Path, kills: int) -> None:
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), str(kills)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stderr
    assert "damaged" not in ended.stderr
    whole = state_of(tmp_path / "whole")
    outs = sorted(tmp_path.glob("killed*"))
    assert outs
    for out in outs:
        assert_same_state(state_of(out), whole)
        assert not list((out / "checkpoints").glob(".*"))

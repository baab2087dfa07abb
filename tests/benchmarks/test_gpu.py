"""What waits for a card is rehearsed: every step of `benchmarks/gpu.py` at toy sizes on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gpu
import pytest
import torch
from gpu_goals import judge
from gpu_peer import TorchPeer
from slow_variants import thorough

BENCHMARK = Path(gpu.__file__)


def rehearse(out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    asked = [sys.executable, str(BENCHMARK), "--device", "cpu", "--small", "--out", str(out)]
    return subprocess.run([*asked, *more], capture_output=True, text=True)


@pytest.mark.slow  # .ci/run calls it by itself
@pytest.mark.timeout(600)
def test_the_rehearsal_passes(tmp_path: Path) -> None:
    told = rehearse(tmp_path / "gpu.json", "--budget", "230")
    assert told.returncode == 0, told.stdout[-3000:] + told.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["provenance"]["torch"] == torch.__version__
    rows = {step["name"]: step["rows"] for step in found["steps"]}
    assert list(rows) == [step.name for step in gpu.STEPS]
    for name, some in rows.items():
        assert some, name
        assert not [row for row in some if "error" in row], name
    timed = [row for name in ("steps", "compile", "peer") for row in rows[name]]
    assert all(row["step_ms"] > 0 for row in timed)
    assert all(row["tflops_needed"] > 0 for row in rows["steps"] if row["mode"] == "eager")
    epochs = [*rows["epoch-reference"], *rows["epoch-default"]]
    assert [row["epochs"] for row in epochs if "recipe" in row and "batch" in row] == [1] * 5
    assert {row["predicted"] for row in rows["predict"]} == {100}


def test_what_does_not_fit_is_left_out(tmp_path: Path) -> None:
    told = rehearse(tmp_path / "gpu.json", "--budget", "1", "--only", "data", "embed")
    assert told.returncode != 0
    assert told.stderr.splitlines()[-1].endswith("these did not: data, embed")
    steps = json.loads((tmp_path / "gpu.json").read_text())["steps"]
    assert [step["state"] for step in steps] == ["left out", "left out"]


ENDS = {
    "cut off": "import time; time.sleep(60)",
    "failed": "raise SystemExit('it broke')",
    "done": "",
}


@pytest.mark.parametrize("state", ENDS)
def test_a_step_that_ends_badly_keeps_its_rows(
    state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a process that it started would go on."""

    def command(_: Any, __: Any, ___: Any, out: Path, ____: float) -> list[str]:
        write = f"open({str(out)!r}, 'w').write('[1]')"
        start = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'input()'])"
        return [sys.executable, "-c", f"{write}\n{start}\n{ENDS[state]}"]

    monkeypatch.setattr(gpu, "command", command)
    row = gpu.measure(gpu.STEPS[0], Namespace(), tmp_path, 3)
    assert (row["state"], row["rows"]) == (state, [1])
    assert state != "failed" or "it broke" in row["log"]


def test_goals_are_judged_by_their_own_figures() -> None:
    ours = {"recipe": "reference-fused", "batch": 128, "full": False, "samples_per_second": 900.0}
    full = {"recipe": "reference-fused", "batch": 2048, "full": True, "utilisation": 0.4}
    peer = {"batch": 128, "data": "on the device", "samples_per_second": 100.0}
    epoch = {"recipe": "reference-fused", "epoch_seconds": 61.0, "data_wait": 0.01}
    steps = [
        {"name": "steps", "rows": [{**ours, "batch": 1024, "samples_per_second": 1.0}, ours, full]},
        {"name": "peer", "rows": [peer]},
        {"name": "epoch-reference", "rows": [epoch]},
    ]
    met = {goal["goal"]: (goal["found"], goal["met"]) for goal in judge(steps)}
    assert met["samples/s to the peer's, batch 128"] == (9.0, True)
    assert met["epoch, reference, s"] == (61.0, False)
    assert met["data wait, reference, share"] == (0.01, True)
    assert met["utilisation, full histories"] == (0.4, True)
    assert met["epoch, default, s"] == (None, None)


@pytest.mark.skipif(not find_spec("fuxictr"), reason="needs the extra peers")
@pytest.mark.parametrize("rows", [thorough(5)])
def test_the_peer_in_torch_computes_what_fuxictr_computes(rows: int) -> None:
    """At full width: the same parameters, in their order, give the same probabilities."""
    from fuxictr_peer import PeerModel, import_fuxictr

    import_fuxictr()
    sizes = {"items": 23, "tags": 13, "length": 17}
    theirs, ours = PeerModel(**sizes).eval(), TorchPeer(**sizes).eval()
    pairs = list(zip(theirs.parameters(), ours.parameters(), strict=True))
    with torch.no_grad():
        for its, mine in pairs:
            mine.copy_(its)
        history = torch.randint(1, 23, (rows, 18)).masked_fill(torch.rand(rows, 18) < 0.4, 0)
        history[:, -2:] = 3
        padding = history[:, :-1] == 0
        user = {name: torch.randint(0, 11, (rows,)) for name in ("likes_level", "views_level")}
        item = {
            "item_id": history.flatten(),
            "item_tags": torch.randint(0, 13, (rows * 18, 5)),
            "item_emb_d128": torch.randn(rows * 18, 128),
        }
        torch.testing.assert_close(ours(user, item, padding), theirs(user, item, padding))

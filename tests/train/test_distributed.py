"""Two ranks (gloo, CPU) with half of each batch are the single process, and resume each other."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import ddp_training
import numpy as np
import pandas as pd
import pytest
import torch

from mmrec.train import World, load_checkpoint, read_log

SCRIPT = Path(ddp_training.__file__)


def launch(out: Path, ranks: int) -> None:
    """What torchrun does on one machine, without its supervisor."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = []
    for rank in range(ranks):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_PORT": port}
        place |= {"OMP_NUM_THREADS": 1}
        environment = os.environ | {k: str(v) for k, v in place.items()}
        command = [sys.executable, str(SCRIPT), str(out), json.dumps(list(ddp_training.RUNS))]
        processes.append(
            subprocess.Popen(
                command,
                env=environment | {"MASTER_ADDR": "127.0.0.1"},
                text=True,
                stderr=subprocess.PIPE,
            )
        )
    for process in processes:
        stderr = process.communicate(timeout=200)[1]
        assert process.returncode == 0, stderr
        (out / "stderr").write_text(
            "".join(line for line in stderr.splitlines(True) if "Warning" in line)
        )


@pytest.fixture(scope="module")
def outs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same runs by one process and by two; one of them begun by one and ended by two."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    for name in ddp_training.RUNS:
        ddp_training.train(one, name, World())
    ddp_training.crash_once(two)
    assert load_checkpoint(two / "resumed", "last").step == 15
    launch(two, 2)
    return one, two


def column(out: Path, event: str, name: str) -> list[float]:
    return [line[name] for line in read_log(out) if line["event"] == event]


@pytest.mark.parametrize("name", ddp_training.RUNS)
def test_two_ranks_are_one(outs: tuple[Path, Path], name: str) -> None:
    one, two = (out / name for out in outs)
    losses = column(one, "train", "loss")
    assert len(losses) == (14 if name == "accumulated" else 26)
    assert losses == pytest.approx(column(two, "train", "loss"), rel=0, abs=1e-5)
    # Of 2,500 pairs of rows one or two may stand so close that rounding turns them.
    for metric, tolerance in (("auc", 1e-3), ("logloss", 1e-5)):
        found = column(two, "valid", metric)
        assert column(one, "valid", metric) == pytest.approx(found, rel=0, abs=tolerance)
    weights, others = (load_checkpoint(out, "last").tensors for out in (one, two))
    for key, tensor in weights.items():
        torch.testing.assert_close(tensor, others[key], rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize("name", ddp_training.RUNS)
def test_the_predictions_file_is_the_same(outs: tuple[Path, Path], name: str) -> None:
    one, two = (pd.read_csv(out / name / "prediction.csv") for out in outs)
    assert one["ID"].tolist() == two["ID"].tolist() == list(range(101))
    np.testing.assert_allclose(one["click"], two["click"], rtol=0, atol=1e-5)


def test_ranks_raise_no_warning(outs: tuple[Path, Path]) -> None:
    assert (outs[1] / "stderr").read_text() == ""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are listed by /proc")
def test_threads_of_the_group_end_with_it(outs: tuple[Path, Path]) -> None:
    """Where something holds the group, they abort now and then as the interpreter leaves."""
    for rank in range(2):
        threads = (outs[1] / f"threads-{rank}").read_text()
        assert "python" in threads
        assert "gloo" not in threads, threads

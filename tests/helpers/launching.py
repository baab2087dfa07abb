"""The example under torchrun, without its supervisor."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

SCRIPT = Path(__file__).parent / "ddp_example.py"


def launch(ranks: int, *options: str, limit: float = 200) -> list[tuple[int, str, str]]:
    """What torchrun does on one machine, without its supervisor: (exit code, stdout, stderr)s."""
    command = [sys.executable, str(SCRIPT), *options]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    group = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_PORT": port}
    processes = []
    for rank in range(ranks):
        place = {"RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": 1, **group}
        # When a rank has gone, torch's own store may warn of it, with a stack; ours is the error.
        place["TORCH_CPP_LOG_LEVEL"] = "ERROR"
        environment = os.environ | {k: str(v) for k, v in place.items()}
        processes.append(
            subprocess.Popen(
                command,
                env=environment | {"MASTER_ADDR": "127.0.0.1"},
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
    until = time.monotonic() + limit
    try:
        outputs = [process.communicate(timeout=until - time.monotonic()) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(p.returncode, *output) for p, output in zip(processes, outputs, strict=True)]

"""Runs training in forked children and kills them at random moments; one import for all of them.

python kill_training.py OUT KILLS: OUT/whole is undisturbed, OUT/killed* were killed and went on.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from toy_training import ToyLoader, ToyModel, toy_config

from mmrec.train import fit


def one_call(out: Path) -> int:
    """The process id of a child in which `fit` runs."""
    child = os.fork()
    if child:
        return child
    try:
        fit(
            ToyModel(),
            ToyLoader(203, batch_size=8),
            ToyLoader(101, batch_size=8, data_seed=2, shuffle=False),
            config=toy_config(epochs=2, save_every_steps=3, evaluate_every=10, ema_decay=0.9),
            out=out,
            recipe={"kind": "toy"},
        )
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        os._exit(1)


def finish(out: Path) -> float:
    """Let it run to its end; seconds taken."""
    began = time.monotonic()
    if os.waitpid(one_call(out), 0)[1] != 0:
        sys.exit(f"{out} did not finish")
    return time.monotonic() - began


def main(root: Path, kills: int) -> None:
    torch.set_num_threads(1)
    dice = random.Random(int(os.environ.get("MMREC_SEED", "0")))
    duration = finish(root / "whole")
    done = runs = 0
    while done < kills:
        out = root / f"killed{runs}"
        runs += 1
        while done < kills:
            child = one_call(out)
            time.sleep(dice.random() * duration)
            os.kill(child, signal.SIGKILL)
            if os.waitpid(child, 0)[1] != signal.SIGKILL:
                break  # it had finished, or failed: the last call will tell
            done += 1
        finish(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

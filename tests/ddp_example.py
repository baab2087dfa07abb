"""The example with a recipe without dropout (which ranks draw for themselves) and small shards.

Adam divides by the gradient's size: eps keeps differences of rounding as small as they are.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import microlens_1m
import microlens_options
import torch

import mmrec.embed
from mmrec.cli import run
from mmrec.models import recipes


def still() -> recipes.Recipe:
    none = dict.fromkeys(("id_dropout", "sequence_dropout", "mlp_dropout", "user_dropout"), 0.0)
    return dataclasses.replace(recipes.small(), **none)


if __name__ == "__main__":
    torch.set_num_threads(1)
    recipes.RECIPES["still"] = still
    training = microlens_options.TRAINING
    training["still"] = dataclasses.replace(training["small"], epochs=2, batch_size=128)
    microlens_1m.TrainConfig = functools.partial(microlens_1m.TrainConfig, eps=1e-4)
    mmrec.embed.embed_items = functools.partial(mmrec.embed.embed_items, shard_size=32)
    run(microlens_1m.main)

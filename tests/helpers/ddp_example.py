"""The example with a recipe without dropout (which ranks draw for themselves) and small shards.

Adam divides by the gradient's size: eps keeps differences of rounding as small as they are.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import microlens_1m
import torch

from mmrec.cli import run
from mmrec.models import Recipe, recipes
from mmrec.train import batch_size


def still() -> Recipe:
    return recipes.small().changed(
        {
            "items.id_dropout": 0.0,
            "interaction.dropout": 0.0,
            "context.user_dropout": 0.0,
            "training.epochs": 2,
            "training.eps": 1e-4,
            "batch_size": None,
        }
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    recipes.RECIPES["still"] = still
    batch_size.USUAL = 128
    microlens_1m.embed_items = functools.partial(microlens_1m.embed_items, shard_size=32)
    run(microlens_1m.main)

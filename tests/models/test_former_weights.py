"""Weights of an earlier version give the same logits, whatever was renamed or reordered since.

The interaction is given its columns as they stood then; checkpoints of then are refused by their
format. The fixture holds five small rankers of commit a6b636c in float64, with their items, one
batch and its logits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mmrec import Batch
from mmrec.models import RECIPES, Inputs, Ranker, Recipe, build_ranker, small
from mmrec.nn.categorical import Vocabulary

FORMER = load_file(Path(__file__).parents[1] / "fixtures" / "rankers_a6b636c.safetensors")
# Former name -> name now, where it is another.
RENAMED = {"users.index.known": "user_index.known", "wide.index.known": "user_index.known"}
LEVELS = Vocabulary(torch.arange(11))

WIDTHS: dict[str, Any] = {
    "items.id_dim": 2,
    "items.tag_dim": 1,
    "items.content_dim": 3,
    "interaction.mlp": (7, 5),
    "interaction.head": (4, 3),
    "context.dim": 1,
}
TRANSFORMER = {"name": "transformer", "layers": 1, "heads": 2, "ff_dim": 5, "last": 0, "width": 4}
CHANGES: dict[str, dict[str, Any]] = {
    "former small": {
        "history.encoder": {"name": "parallel", "encoders": [TRANSFORMER, "mean"]},
        "history.tiers": 3,
        "interaction.head": (4,),
        "context.user_dim": 3,
    },
    "reference": {
        "items.fusion": {"name": "precomputed", "modality": "image", "learn_absent": False},
        "history.encoder.ff_dim": 5,
        "history.encoder.last": 2,
    },
    "reference-fused": {"history.encoder.ff_dim": 5, "history.encoder.last": 2},
    "light": {
        "history.encoder.ff_dim": 5,
        "history.encoder.width": 4,
        "interaction.bottleneck": 6,
    },
    "film-din-mix": {
        "items.fusion": "film",
        "history.encoder": {"name": "din", "hidden": (5,)},
        "interaction.cross": {"name": "mix", "depth": 2, "rank": 3, "num_experts": 2},
        "interaction.mlp": (7,),
        "interaction.head": (4,),
    },
}


@dataclass(frozen=True)
class Table:
    tags: Tensor
    vectors: dict[str, Tensor]
    present: dict[str, Tensor]
    num_tags: int = 13
    categorical: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.int64))
    numeric: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    widths: tuple[int, ...] = ()


# What `small` was then, where it is another now.
FORMER_SMALL: dict[str, Any] = {
    "items.fusion": "attention",
    "items.components": 0,
    "history.encoded": None,
    "history.affinity": 0,
    "history.recency": 0,
    "interaction.cross": {"name": "full", "depth": 2},
    "context.wide": True,
}


def renamed(former: dict[str, Tensor]) -> dict[str, Tensor]:
    """One head was `head`; each context column had a table of its own, without an unknown row."""
    state = {
        RENAMED.get(key, key).replace("_moments", ".moments"): value
        for key, value in former.items()
    }
    state = {
        key.replace("items.image.m", "items.modalities.image.m").replace(
            "items.text.m", "items.modalities.text.m"
        ): value
        for key, value in state.items()
    }
    state = {
        re.sub(r"fusion\.(image|text)\.", r"fusion.project.\1.", key): value
        for key, value in state.items()
    }
    state = {
        f"heads.0.{key.removeprefix('head.')}" if key.startswith("head.") else key: value
        for key, value in state.items()
    }
    tables = [state.pop(key) for key in sorted(state) if key.startswith("context.")]
    unknown = torch.zeros(1, tables[0].shape[1], dtype=torch.float64)
    state["categorical.table.weight"] = torch.cat([row for t in tables for row in (unknown, t)])
    state["categorical.known"] = torch.cat([LEVELS.known] * len(tables))
    return state


class InFormerOrder(nn.Module):
    """The interaction, given the parts as they stood then: history and item before the user."""

    def __init__(self, ranker: Ranker) -> None:
        super().__init__()
        self.interaction = ranker.interaction
        parts: list[Any] = [ranker.users, ranker.sequence, ranker.categorical, ranker.items]
        widths = [0 if part is None else part.out_dim for part in parts]
        widths.append(int(ranker.interaction.in_dim) - sum(widths))
        users, sequence, categorical, items, rest = torch.arange(sum(widths)).split(widths)
        self.order = torch.cat([sequence, items, users, categorical, rest])

    def forward(self, x: Tensor) -> Any:
        return self.interaction(x[:, self.order])


def inputs(state: dict[str, Tensor]) -> Inputs:
    return Inputs(categorical=(LEVELS, LEVELS), known_users=state.get(Ranker.KNOWN_USERS))


def batch() -> Batch:
    former = part("batch")
    return Batch.of(categorical=former.pop("context"), **former)


def table() -> Table:
    former = part("table")
    names = ("image", "text")
    return Table(
        tags=former["tags"],
        vectors={name: former[name] for name in names},
        present={name: former[f"has_{name}"] for name in names},
    )


def part(prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}/"
    return {k.removeprefix(start): v for k, v in FORMER.items() if k.startswith(start)}


@pytest.mark.parametrize("name", CHANGES)
def test_logits_are_the_same(name: str) -> None:
    base: Recipe = RECIPES[name]() if name in RECIPES else small().changed(FORMER_SMALL)
    recipe = base.changed(WIDTHS | CHANGES[name])
    name = name.removeprefix("former ")
    state = renamed(part(name))
    ranker = build_ranker(recipe, table(), inputs(state), estimate=False)
    ranker.double().eval().load_state_dict(state)
    ranker.interaction = InFormerOrder(ranker)
    torch.testing.assert_close(ranker(batch()), FORMER[f"{name}@logit"], rtol=0, atol=1e-10)


def test_other_weights_would_be_noticed() -> None:
    recipe = RECIPES["light"]().changed(WIDTHS | CHANGES["light"])
    ranker = build_ranker(recipe, table(), inputs({})).double().eval()
    assert not torch.allclose(ranker(batch()), FORMER["light@logit"], atol=1e-3)

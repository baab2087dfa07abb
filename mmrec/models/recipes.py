"""Named recipes. Next: `build.py`, which makes a ranker of one."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmrec.config import TrainConfig
from mmrec.errors import require
from mmrec.io.plain import read_toml
from mmrec.models.recipe import (
    ContextRecipe,
    HistoryRecipe,
    InteractionRecipe,
    ItemsRecipe,
    Recipe,
)
from mmrec.nn.part import Part

_BRISK = TrainConfig(  # of `light`
    epochs=4,
    learning_rate=2e-3,
    weight_decay=0.01,
    embedding_weight_decay=0.01,
    schedule="cosine",
    warmup_steps=50,
    save_every_seconds=60.0,
)


def reference() -> Recipe:
    """The challenge winner's widths: 267,882,497 parameters on its 91,718 items and 11,740 tags.

    Its content is a ready 128-d vector an item: the fusion is trained beforehand, without clicks.
    """
    return Recipe(
        items=ItemsRecipe(
            id_dim=64,
            tag_dim=64,
            pretrain_epochs=3,
            standardize=False,
            unknown_id=False,
            id_dropout=0.0,
        ),
        history=HistoryRecipe(
            encoder=Part(
                "transformer", {"layers": 2, "heads": 1, "ff_dim": 256, "dropout": 0.2, "last": 16}
            ),
            newest=None,
        ),
        interaction=InteractionRecipe(
            cross=Part("full", {"depth": 3}), mlp=(1024, 512, 256), head=(64, 32)
        ),
        context=ContextRecipe(dim=64, user_dim=0, wide=False),
        training=TrainConfig(epochs=5, learning_rate=5e-4, save_every_seconds=60.0),
        batch_size=128,
    )


def reference_fused() -> Recipe:
    """The reference's widths with raw image and text features, the fusion trained on clicks."""
    return reference().changed({"items.pretrain_epochs": 0})


def light() -> Recipe:
    """The reference's item vectors with a twentieth of its weights.

    The history goes out pooled instead of flattened, and the crosses run behind a bottleneck.
    """
    settings = {
        "items.standardize": True,
        "items.unknown_id": True,
        "items.id_dropout": 0.1,
        "history.encoder.last": 0,
        "history.encoder.width": 256,
        "interaction.bottleneck": 512,
        "interaction.cross.depth": 3,
        "interaction.mlp": (512, 256),
        "context.wide": True,
        "training": dataclasses.replace(_BRISK, learning_rate=1e-3),
        "batch_size": 512,
    }
    return reference_fused().changed(settings)


def small() -> Recipe:
    """Trains in half a minute on one core; the default, chosen in docs/measurements/index.md.

    Of the newest items it averages the vectors, by `affinity` it sees what of the target's kind was
    there and liked, by `recency` how much was liked of late; content is compressed before it is
    fused. All of the user's side can be computed once for many candidates.
    """
    return Recipe(
        items=ItemsRecipe(fusion=Part("concat"), content_dim=32, components=32),
        history=HistoryRecipe(encoder=Part("mean"), newest=100, encoded=30, affinity=2, recency=4),
        interaction=InteractionRecipe(
            cross=Part("full", {"depth": 2}), mlp=(128, 64), dropout=0.4, head=()
        ),
        context=ContextRecipe(user_dropout=0.0, wide=False),
        training=TrainConfig(
            epochs=8,
            learning_rate=12e-3,
            decoupled=False,
            embedding_weight_decay=4e-4,
            ema_decay=0.995,
            schedule="plateau",
            plateau_factor=0.5,
            save_every_seconds=60.0,
        ),
    )


SEARCH_SPACE: dict[str, tuple[Any, ...]] = {
    "training.learning_rate": (4e-3, 8e-3, 12e-3),
    "training.embedding_weight_decay": (2e-4, 4e-4, 8e-4),
    "training.ema_decay": (0.98, 0.99, 0.995),
    "interaction.dropout": (0.2, 0.3, 0.4, 0.5),
    "interaction.mlp": ((64,), (128, 64), (256, 128)),
    "interaction.cross.depth": (1, 2),
    "items.id_dim": (8, 16),
    "items.content_dim": (16, 32, 64),
    "items.components": (32, 64),
    "history.newest": (30, 100),
    "batch_size": (512, 1024),
}
"""What `--search` draws from: setting -> values. For `small`, as in benchmarks/peers.py."""


def search_space(recipe: Recipe) -> dict[str, tuple[Any, ...]]:
    """What of `SEARCH_SPACE` the recipe has.

    A fused vector that goes out stays as wide as it is; what is searched is the width of the
    content inside the ranker.
    """
    items, space = recipe.items, dict(SEARCH_SPACE)
    widths = space.pop("items.content_dim")
    if items.fusion is None or recipe.ready_vectors:
        del space["items.components"]
    if items.content_width is not None:
        space["items.content_width"] = widths
    elif items.fusion is not None and not recipe.ready_vectors:
        space["items.content_dim"] = widths
    if recipe.interaction.cross is None:
        del space["interaction.cross.depth"]
    if not items.id_dim:
        del space["items.id_dim"]
    return space


RECIPES: dict[str, Callable[[], Recipe]] = {
    "light": light,
    "reference": reference,
    "reference-fused": reference_fused,
    "small": small,
}
"""Name -> what makes the recipe; `get_recipe` and `--recipe` look here."""


def get_recipe(name: str) -> Recipe:
    """The recipe of that name, one of `RECIPES`, or that of a TOML file.

    A file holds what differs from `small`, or from the recipe that its `base` names:

        base = "light"
        [items]
        fusion = "gmu"

    Raises:
        InputError: no such recipe or file, or a setting that no recipe has.
    """
    if name in RECIPES:
        return RECIPES[name]()
    require(
        name.endswith(".toml"),
        f"recipe must be one of {', '.join(sorted(RECIPES))} or a .toml file, got {name!r}",
    )
    settings = read_toml(Path(name))
    base = get_recipe(str(settings.pop("base", "small")))
    dotted: dict[str, object] = {}
    for room, values in settings.items():
        if isinstance(values, dict):
            dotted |= {f"{room}.{setting}": value for setting, value in values.items()}
        else:
            dotted[room] = values
    return base.changed(dotted)

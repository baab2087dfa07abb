"""A trained ranker from the files of its run, to score or to train on.

Its catalogue may have changed since: `mmrec.models.restore` matches it by keys.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmrec.errors import InputError, require
from mmrec.io.files import write_json
from mmrec.io.identity import require_same
from mmrec.io.plain import from_plain, to_plain
from mmrec.models import Inputs, Ranker, Recipe, get_recipe
from mmrec.models.inputs import DataLike, OriginalItems
from mmrec.models.pretrain import fused_again
from mmrec.models.restore import FORGET_AFTER, Former, continued, restored
from mmrec.schema import Schema
from mmrec.train.state.checkpoint import Checkpoint, load_checkpoint, load_weights

SOURCES = "sources.json"
RANKER = "ranker"  # the folder of the ranker in that of a whole run


@dataclass(frozen=True)
class TrainedRun:
    """The best checkpoint of a ranker's training, and what lies beside it."""

    checkpoint: Checkpoint

    @classmethod
    def open(cls, path: Path) -> TrainedRun:
        """Of a run, or of the folder that holds it; see `load_ranker`."""
        checkpoint = load_checkpoint(find_run(path))
        require(
            {"recipe", "inputs"} <= set(checkpoint.recipe),
            f"{checkpoint.path} makes no ranker here: a ranker is described by its recipe and "
            "inputs",
        )
        return cls(checkpoint)

    @property
    def folder(self) -> Path:
        """`out` of the `fit` that wrote it."""
        return self.checkpoint.path.resolve().parent.parent

    @property
    def schema(self) -> Schema | None:
        """The roles of the columns of training, its columns of vectors among them."""
        schema = self.checkpoint.recipe["inputs"]["schema"]
        return None if schema is None else Schema.from_dict(schema)

    def features_of(self, data: Path | None) -> Path | None:
        """The features of training, where they are still there.

        Args:
            data: the data set at hand; of another than that of training they are not. None = any.
        """
        try:
            told = json.loads((self.folder / SOURCES).read_text())
        except (OSError, ValueError):
            return None
        path = None if told["features"] is None else self.folder / told["features"]
        elsewhere = data is not None and (self.folder / told["data"]).resolve() != data.resolve()
        return path if path is not None and path.exists() and not elsewhere else None

    def ranker(self, items: OriginalItems, data: DataLike | None = None) -> Ranker:
        """See `load_ranker`."""
        former = self._former(data)
        try:
            items = fused_again(former, items, self.folder.parent)
            ranker, state = restored(former, items, widths=None if data is None else data.widths)
        except InputError as error:
            raise InputError(f"{self.checkpoint.path} makes no ranker here: {error}") from error
        load_weights(ranker, self.checkpoint, state)
        return ranker

    def continued(
        self, items: OriginalItems, data: DataLike, inputs: Inputs, **options: Any
    ) -> tuple[Ranker, Inputs]:
        """See `continue_ranker`."""
        former, path = self._former(data), self.checkpoint.path
        try:
            items = fused_again(former, items, self.folder.parent)
            ranker, state, inputs = continued(former, items, inputs, **options)
        except InputError as error:
            raise InputError(f"{path} cannot be trained on here: {error}") from error
        load_weights(ranker, self.checkpoint, state)
        return ranker, replace(inputs, start=self.checkpoint.content["tensors"]["sha256"])

    def _former(self, data: DataLike | None) -> Former:
        """The ranker, its columns being those of the data."""
        if data is not None and self.schema is not None:
            require_same(
                _read_by_a_ranker(self.schema),
                _read_by_a_ranker(data.schema),
                where=self.checkpoint.path,
                remedy="predict with the columns that it was trained on",
            )
        return Former(self.checkpoint.recipe, self.checkpoint.part("model"))


def write_sources(out: Path, *, data: Path, features: Path | None) -> None:
    """Leave in `out`, of `fit`, where data and features were read; paths from there."""

    def seen(path: Path) -> str:
        return os.path.relpath(path.resolve(), out.resolve())

    out.mkdir(parents=True, exist_ok=True)
    told = {"data": seen(data), "features": None if features is None else seen(features)}
    write_json(out / SOURCES, told)


def continued_run(path: Path | None, out: Path) -> TrainedRun | None:
    """The run that another one, in `out`, trains on; None = none is given.

    Raises:
        InputError: see `load_ranker`; they are the same.
    """
    if path is None:
        return None
    run = TrainedRun.open(path)
    require(
        run.folder not in (out.resolve(), (out / RANKER).resolve()),
        f"a run is continued in another folder than its own, got {path} for --continue-from and "
        f"{out} for --out",
    )
    return run


def starting_recipe(name: str | None, former: TrainedRun | None) -> Recipe:
    """The recipe of that name; where none is given that of the former run, else `small`.

    Settings of training are not a ranker's: they are those of `small`. The recipe of a second stage
    tells nothing of its first, so that of two stages must be named again.
    """
    usual = get_recipe(name or "small")
    if name is not None or former is None:
        return usual
    recipe = from_plain(Recipe, former.checkpoint.recipe["recipe"])
    if recipe.ready_vectors:
        return usual
    return replace(recipe, training=usual.training, batch_size=usual.batch_size)


def load_ranker(path: Path, items: OriginalItems, data: DataLike | None = None) -> Ranker:
    """The best ranker of a training run, from its checkpoint alone.

    Args:
        path: `out` of `fit` or a folder that holds it as `ranker`, its directory of checkpoints,
            or one checkpoint's JSON file. Its recipe must be `mmrec.models.describe`'s.
        items: the item table, which is no part of a checkpoint. Its items are matched by their
            keys with those of training: known ones have their vectors wherever they stand, new
            ones the learned unknown. Of a two-stage run, the features that the first stage fused
            or their fused vectors.
        data: what will be predicted; its columns must be those that the ranker was trained on.

    Raises:
        InputError: no checkpoint, no such recipe in it, another schema, features that were made
            otherwise, or, where there are no keys, a catalogue that has not just grown at its end.
    """
    return TrainedRun.open(path).ranker(items, data)


def continue_ranker(
    path: Path,
    items: OriginalItems,
    data: DataLike,
    inputs: Inputs,
    *,
    recipe: Recipe | None = None,
    forget_after: int = FORGET_AFTER,
) -> tuple[Ranker, Inputs]:
    """A ranker that `fit` trains on with new rows, in another `out`, from the best one of a run.

    New items and users start at the learned unknown; items that are gone are dropped. The
    optimizer starts afresh. Describe it with the inputs that come back.

    Args:
        path, items: see `load_ranker`.
        data: the new rows, and `inputs` what they show (`Inputs.of`).
        recipe: with settings of its training; all else as before. None = as before.
        forget_after: trainings without a row of a user or value after which it is dropped.

    Raises:
        InputError: see `load_ranker`; a recipe of another ranker.
    """
    options = {"recipe": recipe, "forget_after": forget_after}
    return TrainedRun.open(path).continued(items, data, inputs, **options)


def find_run(path: Path) -> Path:
    """`path`, or the ranker in it where it is the folder of a whole run."""
    inside = Path(path) / RANKER
    return inside if (inside / "checkpoints").is_dir() else Path(path)


def _read_by_a_ranker(schema: Schema) -> dict[str, Any]:
    """The columns whose place in a batch or in the item table means something to a ranker."""
    clicks, items = to_plain(schema.clicks), to_plain(schema.items)
    roles = ["history", "target", "user", "labels", "categorical", "numeric"]
    roles += ["history_categorical", "history_numeric"]
    found = {name: clicks[name] for name in roles}
    return found | {f"items.{name}": items[name] for name in ("tags", "categorical", "numeric")}

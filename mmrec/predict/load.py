"""A trained ranker from the files of its run, to score or to train on.

Its catalogue may have changed since: `mmrec.models.restore` matches it by keys.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from mmrec.errors import InputError, require
from mmrec.io.identity import require_same
from mmrec.io.plain import to_plain
from mmrec.models import Inputs, Ranker, Recipe
from mmrec.models.inputs import DataLike, OriginalItems
from mmrec.models.pretrain import fused_again
from mmrec.models.restore import Former, continued, restored
from mmrec.schema import Schema
from mmrec.train.state.checkpoint import Checkpoint, load_checkpoint, load_weights

RANKER = "ranker"  # the folder of the ranker in that of a whole run


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
    checkpoint, former = _read(path, data)
    try:
        items = fused_again(former, items, _run_of(checkpoint).parent)
        ranker, state = restored(former, items, widths=None if data is None else data.widths)
    except InputError as error:
        raise InputError(f"{checkpoint.path} makes no ranker here: {error}") from error
    load_weights(ranker, checkpoint, state)
    return ranker


def continue_ranker(
    path: Path,
    items: OriginalItems,
    data: DataLike,
    inputs: Inputs,
    *,
    recipe: Recipe | None = None,
) -> tuple[Ranker, Inputs]:
    """A ranker that `fit` trains on with new rows, in another `out`, from the best one of a run.

    New items and users start at the learned unknown; items that are gone are dropped. The
    optimizer starts afresh. Describe it with the inputs that come back.

    Args:
        path, items: see `load_ranker`.
        data: the new rows, and `inputs` what they show (`Inputs.of`).
        recipe: with settings of its training; all else as before. None = as before.

    Raises:
        InputError: see `load_ranker`; a recipe of another ranker.
    """
    checkpoint, former = _read(path, data)
    try:
        items = fused_again(former, items, _run_of(checkpoint).parent)
        ranker, state, inputs = continued(former, items, inputs, recipe=recipe)
    except InputError as error:
        raise InputError(f"{checkpoint.path} cannot be trained on here: {error}") from error
    load_weights(ranker, checkpoint, state)
    return ranker, replace(inputs, start=checkpoint.content["tensors"]["sha256"])


def find_run(path: Path) -> Path:
    """`path`, or the ranker in it where it is the folder of a whole run."""
    inside = Path(path) / RANKER
    return inside if (inside / "checkpoints").is_dir() else Path(path)


def _read(path: Path, data: DataLike | None) -> tuple[Checkpoint, Former]:
    """A checkpoint of a ranker with the columns of the data."""
    checkpoint = load_checkpoint(find_run(path))
    described = checkpoint.recipe
    require(
        {"recipe", "inputs"} <= set(described),
        f"{checkpoint.path} makes no ranker here: a ranker is described by its recipe and inputs",
    )
    trained = described["inputs"]["schema"]
    if data is not None and trained is not None:
        require_same(
            _read_by_a_ranker(Schema.from_dict(trained)),
            _read_by_a_ranker(data.schema),
            where=checkpoint.path,
            remedy="predict with the columns that it was trained on",
        )
    return checkpoint, Former(described, checkpoint.part("model"))


def _run_of(checkpoint: Checkpoint) -> Path:
    """`out` of the `fit` that wrote it."""
    return checkpoint.path.resolve().parent.parent


def _read_by_a_ranker(schema: Schema) -> dict[str, Any]:
    """The columns whose place in a batch or in the item table means something to a ranker."""
    clicks, items = to_plain(schema.clicks), to_plain(schema.items)
    roles = ["history", "target", "user", "labels", "categorical", "numeric"]
    roles += ["history_categorical", "history_numeric"]
    found = {name: clicks[name] for name in roles}
    return found | {f"items.{name}": items[name] for name in ("tags", "categorical", "numeric")}

"""A ranker to serve, from the folder of its training."""

from __future__ import annotations

import json
from pathlib import Path

from mmrec.data.clicks import ClickData
from mmrec.data.items import ItemTable
from mmrec.errors import InputError
from mmrec.models.ranker import Ranker
from mmrec.predict.load import SOURCES, TrainedRun
from mmrec.schema import Schema


def open_run(
    path: Path, data: Path | None, items: ItemTable | None
) -> tuple[Ranker, Schema | None]:
    """The ranker over the items at hand, and what its columns are called.

    Args:
        data: the data set's folder; None = that of the training.
        items: the item table, in place of that of `data`.
    """
    run = TrainedRun.open(path)
    if items is None:
        items = _items(run, _data_of(run) if data is None else data)
    return run.ranker(items), run.schema


def _items(run: TrainedRun, root: Path) -> ItemTable:
    trained = {} if run.schema is None else run.schema.items.modalities
    data = ClickData.open(root).with_modalities(dict(trained))
    features = run.features_of(data.root) or data.features
    return ItemTable.read(data.item_info, data.schema.items, features)


def _data_of(run: TrainedRun) -> Path:
    try:
        told = json.loads((run.folder / SOURCES).read_text())
        return run.folder / str(told["data"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"{run.folder} does not say where its data are: give the data set's folder (data)"
        ) from None

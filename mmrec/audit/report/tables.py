"""Facts as what JSON knows, and as Markdown tables. Facts are the dataclasses of `facts.py`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

from mmrec.audit.checks.statistics import Measured

LONGEST = 5  # values that a cell shows; longer lists, which plots need, stay in the JSON
LABELS = {
    "roles": "column",
    "by_label": "rows by label",
    "fatal": "lacks what training needs",
    "num_items": "items, with the padding",
    "length_quantiles": "length at 5, 25, 50, 75, 95 %",
    "means": "AUC of means, out of fold",
    "scores": "AUC of single columns and of the order of rows",
    "target_in_history": "target in history, train",
    "inside_items": "z inside items",
    "inside_values": "z inside values",
    "by_time": "items that are met only later",
    "in_train": "targets in train histories of their user",
    "separation": "AUC that tells splits apart",
    "auc": "AUC",
    "labels": "AUC of item means, and positive rates",
    "popularity": "share of rows by tenth of popularity",
    "popularity_rate": "positive rate by tenth of popularity",
    "norm_quantiles": "norm at 5, 50, 95 %",
    "probe": "AUC of content on valid",
    "z": "standard errors from chance that are real",
    "resolution": "distance of an AUC from 0.5 that matters",
}


def plain(value: Any) -> Any:
    """Only what JSON knows: dataclasses become objects, NaN and infinity null."""
    if isinstance(value, Measured):
        return value.to_json()
    if is_dataclass(value):
        value = vars(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def tables(facts: Any) -> list[str]:
    """Lines of Markdown: the single figures of a dataclass, then a table for each group."""
    single: dict[str, Any] = {}
    lines: list[str] = []
    for name, value in vars(facts).items():
        if isinstance(value, list) and value:
            body = [[_text(cell) for cell in vars(record).values()] for record in value]
            lines += [f"{_label(name)}:", ""]
            lines += _table([[_label(field) for field in vars(value[0])], *body])
        elif isinstance(value, dict):
            columns = {key: _opened(item) for key, item in value.items()}
            grid = all(isinstance(column, dict) for column in columns.values())
            lines += _grid(name, columns if grid else {"figure": columns})
        elif isinstance(_opened(value), dict):
            lines += _grid(name, {"figure": _opened(value)})
        elif not isinstance(value, list) and value is not None:
            single[_label(name)] = value
    return _grid("what", {"figure": single}) + lines


def _opened(value: Any) -> Any:
    """A dataclass of figures by label; anything else as it is."""
    if isinstance(value, Measured) or not is_dataclass(value):
        return value
    return {_label(name): item for name, item in vars(value).items()}


def _grid(name: str, columns: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A table of what is known by column and key; the longer side goes down the page."""
    body = []
    for key in dict.fromkeys(key for column in columns.values() for key in column):
        cells = [column.get(key) for column in columns.values()]
        if any(_shown(cell) for cell in cells) and cells != [*columns]:
            body.append([key, *(_text(cell) for cell in cells)])
    rows: list[Sequence[str]] = [[_label(name), *columns], *body]
    if not body:
        return []
    return _table(rows if len(body) >= len(columns) else [*zip(*rows, strict=True)])


def _shown(cell: Any) -> bool:
    return not isinstance(cell, (list, dict)) or 0 < len(cell) <= LONGEST


def _label(name: str) -> str:
    return LABELS.get(name, name.replace("_", " "))


def _text(value: Any) -> str:
    if isinstance(value, Measured):
        return f"{value:.4f}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items()) or "–"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(item) for item in value) or "–"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float) and math.isnan(value):
        return "–"
    formats = {int: ",", float: ".4g"}
    return format(value, formats.get(type(value), ""))


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return [f"| {' | '.join(line)} |" for line in lines] + [""]

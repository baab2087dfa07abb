"""`mmrec prepare EVENTS ITEMS DEST`; with `--like DATA` or `--grow DATA`: EVENTS [ITEMS] DEST."""

from __future__ import annotations

import argparse
from typing import Any

from mmrec.cli import program, run
from mmrec.data.prepare import (
    Catalogue,
    Log,
    Options,
    Plan,
    prepare,
    prepare_grown,
    prepare_like,
)
from mmrec.data.prepare.options import IMAGES, NEGATIVES, UNITS, UNKNOWN_ITEMS
from mmrec.errors import require

_LOG = ("user", "item", "time", "label", "categorical", "numeric", "group", "weight")


def main(arguments: list[str] | None = None) -> None:
    """Prepare, and print the report."""
    parser = _parser()
    given = parser.parse_args(arguments)
    require(given.like is None or given.grow is None, "give --like or --grow, not both")
    data = given.like or given.grow
    if data is not None:
        more = _options_in(given, parser)
        require(
            not more,
            f"with --like and --grow the options are those of {data}, got {', '.join(more)}",
        )
        require(len(given.paths) in (2, 3), "with --like and --grow give EVENTS [ITEMS] DEST")
        events, *items, dest = given.paths
        again = prepare_like if given.grow is None else prepare_grown
        made = again(data, events, dest, *(path for path in items if path != "-"))
    else:
        require(len(given.paths) == 3, "give EVENTS ITEMS DEST; - stands for no items")
        for name in ("user", "item", "time"):
            require(getattr(given, name), f"--{name} is needed: the column of the {name}")
        events, items_path, dest = given.paths
        made = prepare(events, None if items_path == "-" else items_path, dest, _options(given))
    print(*made.report, f"wrote {made.root}", sep="\n")


def _options_in(given: argparse.Namespace, parser: argparse.ArgumentParser) -> list[str]:
    """What was given besides paths and whose options count, as it is typed."""
    return [
        f"--{name.replace('_', '-')}"
        for name, value in vars(given).items()
        if name not in ("paths", "like", "grow") and value is not parser.get_default(name)
    ]


def _options(given: argparse.Namespace) -> Options:
    def some(kind: Any, **more: Any) -> Any:
        names = {name: name for name in kind.__dataclass_fields__} | more
        values = {
            name: getattr(given, flag) for name, flag in names.items() if hasattr(given, flag)
        }
        chosen = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
            if value is not None
        }
        return kind(**chosen)

    return Options(
        log=some(Log, labels="label"),
        items=some(
            Catalogue, id="item_key", categorical="item_categorical", numeric="item_numeric"
        ),
        plan=some(Plan, levels="levels"),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program("mmrec.data.prepare"),
        description="Make a data set of a log and a table of items (docs/start/your_data.md).",
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="EVENTS ITEMS DEST")
    parser.add_argument(
        "--like", metavar="DATA", help="rows to score, as an earlier output has them"
    )
    parser.add_argument(
        "--grow", metavar="DATA", help="the whole log again, grown, with the numbers of DATA"
    )
    _add_log(parser.add_argument_group("columns of the events").add_argument)
    _add_items(parser.add_argument_group("columns of the items").add_argument)
    _add_plan(parser.add_argument_group("how rows are made").add_argument)
    return parser


def _add_log(add: Any) -> None:
    add("--user", metavar="COLUMN")
    add("--item", metavar="COLUMN")
    add("--time", metavar="COLUMN")
    add("--label", nargs="+", metavar="LABEL", help="columns of 0 and 1, or NAME=COLUMN>=VALUE")
    add("--categorical", nargs="+", metavar="COLUMN", help="COLUMN[:min=N][:hash=N]")
    add("--numeric", nargs="+", metavar="COLUMN")
    add("--group", metavar="COLUMN", help="rows ranked against each other")
    add("--weight", metavar="COLUMN", help="of the row in the loss")
    add("--row-id", nargs="+", metavar="COLUMN", help="names a row (its number in the file)")
    add("--time-unit", choices=tuple(UNITS), help="of times that are numbers (by their size)")
    add("--time-format", help="of times that are text, %%d/%%m/%%Y say (ISO 8601)")
    add("--time-zone", help="of times that name none (UTC)")
    add("--delimiter", help="of CSV (a comma)")


def _add_items(add: Any) -> None:
    add("--item-key", metavar="COLUMN", help="the items' key (as in the events)")
    add("--title", metavar="COLUMN")
    add("--description", metavar="COLUMN")
    add("--category-path", metavar="COLUMN", help="levels from wide to narrow")
    add("--tags", metavar="COLUMN")
    add("--item-categorical", nargs="+", metavar="COLUMN")
    add("--item-numeric", nargs="+", metavar="COLUMN")
    add("--image", metavar="COLUMN", help="file names, or bytes, or a template such as {sku}.jpg")
    add("--image-folder", metavar="DIR", help="where pictures lie (beside the items' file)")
    add("--since", metavar="COLUMN", help="when the item could first be shown")
    add("--separator", help="between tags, levels and pictures in one text (|)")


def _add_plan(add: Any) -> None:
    add("--history", help="positive (default), all, or COLUMN==VALUE")
    add("--history-length", type=int, help="the newest so many (50)")
    add("--history-features", nargs="*", metavar="WHAT", help="label, days_ago, columns (days_ago)")
    add("--split", help="time (default), user-time, user, or a column of train, valid and test")
    add("--shares", nargs=3, type=float, help="of train, valid and test (0.8 0.1 0.1)")
    add("--cold", type=float, help="share of items that train does not know (0)")
    add("--statistics", nargs="+", metavar="OF", help="item, user, categorical columns")
    add("--windows", nargs="+", type=int, metavar="DAYS", help="of statistics, besides so far")
    add("--last", nargs="+", type=int, metavar="N", help="positives among a user's last N events")
    add("--levels", action="store_true", help="rows and positives of the item in ten steps")
    add("--negatives", type=int, metavar="N", help="drawn for each click of a log of clicks")
    add("--negatives-by", choices=NEGATIVES)
    add("--unknown-items", choices=UNKNOWN_ITEMS, help="that the items' file lacks (keep)")
    add("--images", choices=IMAGES, help="how pictures get there (hardlink)")
    add("--seed", type=int)
    add("--events-in-memory", type=int, help="about so many at a time (1,000,000)")


if __name__ == "__main__":
    run(main)

"""A shop's raw files as they come: strings for ids, CSV, pictures by SKU, some of all missing."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmrec.datasets.covers import draw_cover, draw_title

COLUMNS = ("order", "customer", "sku", "moment", "click", "buy", "device", "price")
OPTIONS = shlex.split(
    "--user customer --item sku --time moment --label click buy --row-id order "
    "--categorical device --numeric price --statistics item user --windows 7 "
    "--title name --description about --category-path shelf --item-categorical brand "
    "--item-numeric grams --image {sku}.jpg --image-folder PICTURES"
)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([header, *rows])
    return path


def sku(number: int) -> str:
    return f"SKU-{number * 7919 % 100_003:05}-{'ABC'[number % 3]}"


def make_raw_shop(
    root: Path, *, items: int = 3000, users: int = 2000, events: int = 20_000, pictures: int = 150
) -> Path:
    """Write `events.csv`, `items.csv`, `pictures/<sku>.jpg`, and `new_events.csv`, `new_items.csv`.

    Clicks follow the taste of the customer for one of five fields, which title and picture show.
    """
    (root / "pictures").mkdir(parents=True)
    rng = np.random.default_rng(0)
    field = rng.integers(0, 5, items + 10)
    rows = [_item(number, int(field[number]), rng) for number in range(items + 10)]
    header = ("sku", "name", "about", "shelf", "brand", "grams")
    write_csv(root / "items.csv", header, rows[:items])
    write_csv(root / "new_items.csv", header, rows[items:])
    for number in [*range(pictures), *range(items, items + 5)]:
        cover = draw_cover(int(field[number]), int(field[number]), rng)
        (root / "pictures" / f"{sku(number)}.jpg").write_bytes(cover)
    some = _events(rng, events, range(users), field[:items])
    order = rng.permutation(events)
    lines = [some[place] for place in order.tolist()]
    write_csv(root / "events.csv", COLUMNS, [*lines, lines[0], ("x", "", "", "", 0, 0, "", "")])
    new = _events(rng, 40, range(users - 20, users + 20), field, start=1_720_000_000, name="n")
    few = [line[:4] + line[6:] for line in new]  # nobody knows yet who will click
    write_csv(root / "new_events.csv", COLUMNS[:4] + COLUMNS[6:], few)
    return root


def _item(number: int, field: int, rng: np.random.Generator) -> list[str]:
    title = "" if number % 17 == 0 else draw_title(field, rng)
    about = f'A "thing",\nnumber {number}' if number % 3 else ""
    grams = "" if number % 11 == 0 else f"{rng.uniform(50, 500):.1f}"
    return [sku(number), title, about, f"Home|Aisle {field}", f"brand {number % 40}", grams]


def _events(
    rng: np.random.Generator,
    count: int,
    users: range,
    field: np.ndarray[Any, Any],
    *,
    start: int = 1_700_000_000,
    name: str = "o",
) -> list[tuple[Any, ...]]:
    user = rng.integers(users.start, users.stop, count)
    item = (rng.random(count) ** 2 * len(field)).astype(int)
    item[: count // 4] = len(field) - 1 - item[: count // 4] // 100
    seconds = start + np.sort(rng.integers(0, 5_000_000, count))
    moment = np.datetime_as_string(seconds.astype("datetime64[s]")).tolist()
    liked = user % 5 == field[item]
    click = rng.random(count) < np.where(liked, 0.7, 0.15)
    buy = click & (rng.random(count) < 0.4)
    device = np.array(["phone", "desktop", "tablet", ""])[rng.integers(0, 4, count)].tolist()
    price = np.where(rng.random(count) < 0.1, np.nan, rng.lognormal(3, 1, count) - 1)
    return [
        (
            f"{name}-{place:06}",
            f"{customer:04x}-cust",
            sku(thing),
            f"{moment[place]}Z",
            int(click[place]),
            int(buy[place]),
            device[place],
            "" if np.isnan(price[place]) else f"{price[place]:.2f}",
        )
        for place, (customer, thing) in enumerate(zip(user.tolist(), item.tolist(), strict=True))
    ]

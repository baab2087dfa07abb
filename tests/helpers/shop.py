"""A shop's log with something planted in every role, in columns of the shop's own names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmrec.schema import FILE, Categorical, Clicks, Items, Schema

SKUS, CUSTOMERS, LONGEST = 41, 300, 6
SELLERS = 1_000_000
SCHEMA = Schema(
    Clicks(
        history="seen",
        target="sku",
        labels=("click", "buy"),
        user="customer",
        row_id="request",
        time="moment",
        weight="importance",
        categorical=(
            Categorical("device"),
            Categorical("hour"),
            Categorical("country", min_count=5),
            Categorical("coupons"),
            Categorical("seller", hash_size=4096),
        ),
        numeric=("price", "position", "discount"),
        history_categorical=(Categorical("liked"),),
        history_numeric=("days_ago",),
    ),
    Items(
        id="sku",
        categorical=(Categorical("brand"), Categorical("colour")),
        numeric=("grams",),
        modalities={"image": "clip_image", "text": "clip_text"},
        title="name",
    ),
)
PLAIN = Schema(Clicks("seen", "sku", ("click",)), Items("sku", modalities=SCHEMA.items.modalities))


def make_shop(
    folder: Path, rows: tuple[int, int, int] = (8000, 2500, 700), *, schema: Schema = SCHEMA
) -> Path:
    """Write train, valid, test, item_info, features and schema.json."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    brand, colour = rng.integers(0, 7, SKUS), rng.integers(-2, 2, SKUS)
    grams = np.where(rng.random(SKUS) < 0.2, np.nan, rng.uniform(50, 500, SKUS))
    taste = 1.2 * rng.choice([-1, 1], 7)[brand] + 0.8 * rng.choice([-1, 1], 4)[colour + 2]
    taste += np.where(np.isnan(grams), -1.5, np.nan_to_num(grams - 275) / 75)
    for number, (split, count) in enumerate(zip(("train", "valid", "test"), rows, strict=True)):
        table = _rows(np.random.default_rng(number + 1), count, taste)
        if split == "test":
            table = table.drop_columns(["click", "buy", "importance", "moment"])
        else:
            table = table.drop_columns(["request"])
        pq.write_table(table, folder / f"{split}.parquet", row_group_size=997)
    ids = np.arange(SKUS)
    info = {"sku": ids, "brand": brand, "colour": colour, "grams": grams}
    pq.write_table(pa.table(info), folder / "item_info.parquet")
    vectors = {name: list(rng.normal(size=(SKUS, 3))) for name in ("clip_image", "clip_text")}
    content = {"sku": ids, **vectors, "has_image": ids % 3 > 0, "has_text": ids % 5 > 0}
    pq.write_table(pa.table(content), folder / "features.parquet")
    (folder / FILE).write_text(json.dumps(schema.to_dict()))
    return folder


def _rows(rng: np.random.Generator, n: int, taste: np.ndarray) -> pa.Table:
    length = rng.integers(0, LONGEST + 1, n)
    there = np.arange(LONGEST) >= (LONGEST - length)[:, None]
    liked, days = rng.integers(0, 2, (n, LONGEST)), rng.uniform(0, 40, (n, LONGEST))
    days[rng.random(days.shape) < 0.1] = np.nan
    device, hour = rng.integers(0, 5, n), rng.integers(0, 24, n)
    country = rng.choice([-7, 3, 40, 1_000], n)
    coupons = [rng.integers(0, 6, size).tolist() for size in rng.integers(0, 4, n)]
    shops = np.random.default_rng(9).choice(SELLERS, 40, replace=False) * 1_000_003
    seller = rng.choice(shops, n)
    price = np.where(rng.random(n) < 0.15, np.nan, rng.lognormal(3, 0.5, n))
    position = rng.integers(1, 21, n)
    discount = np.where(rng.random(n) < 0.5, np.nan, rng.random(n))
    sku = rng.integers(1, SKUS, n)
    mean_liked = (np.where(liked, 1, -1) * there).sum(1) / np.maximum(length, 1)
    recent = ((np.nan_to_num(days, nan=99) < 20) & there).sum(1) / np.maximum(length, 1)
    coupon = np.array([np.mean([(-1.0) ** c for c in row]) if row else 0.0 for row in coupons])
    logit = 0.9 * np.array([-1, 1, 0, 1, -1])[device] + 1.2 * np.where(hour < 8, 1, -0.5)
    logit += 0.9 * np.sign(country - 10) * (country != 40) + 1.2 * coupon
    logit += 1.0 * np.where(seller // 1_000_003 % 2, 1, -1)
    logit += np.where(np.isnan(price), 1.0, -0.15 * (np.nan_to_num(price) - 20))
    logit += 0.08 * (10 - position) + np.where(np.isnan(discount), -0.8, 0.8)
    logit += 1.2 * mean_liked + 2.0 * (recent - 0.4) + 0.9 * taste[sku]
    click = rng.random(n) < 1 / (1 + np.exp(-logit))
    buy = click & (rng.random(n) < 1 / (1 + np.exp(-0.7 * logit)))
    # Rows that count for nothing say the opposite.
    importance = rng.choice([0.0, 0.5, 2.0], n, p=[0.2, 0.4, 0.4])
    click, buy = (np.where(importance == 0, ~label, label) for label in (click, buy))

    def lists(values: np.ndarray) -> list[np.ndarray]:
        return [row[mask] for row, mask in zip(values, there, strict=True)]

    history = rng.integers(1, SKUS, (n, LONGEST))
    unknown = rng.random(n) < 0.3
    return pa.table(
        {
            "request": [f"r-{number:06}" for number in range(n)],
            "customer": rng.integers(1, CUSTOMERS, n),
            "moment": np.arange(n) + 1_700_000_000,
            "seen": lists(history),
            "liked": lists(liked),
            "days_ago": lists(days),
            "sku": sku,
            "device": device,
            "hour": hour,
            "country": country,
            "coupons": coupons,
            "seller": seller,
            "price": price,
            "position": position,
            "discount": discount,
            "importance": importance,
            "click": pa.array(click.astype(np.int8)),
            "buy": pa.array(np.where(unknown, 0, buy).astype(np.int8), mask=unknown),
        }
    )

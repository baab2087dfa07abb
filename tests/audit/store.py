"""A sound log of a store, with a column in every role, to plant faults in.

Each customer meets articles in time order and never the same twice; a row's history is what was met
before, with whether it was clicked and how many days ago. Customers belong to one split each.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmrec.schema import FILE, Categorical, Clicks, Items, Schema

ARTICLES, WIDTH, DIM = 151, 7, 5
SPLITS, COUNTRIES = ("train", "valid", "test"), (-7, 3, 1_000)
SCHEMA = Schema(
    Clicks(
        history="seen",
        target="article",
        labels=("click", "buy"),
        row_id="request",
        time="moment",
        group="page",
        weight="importance",
        categorical=(
            Categorical("device", limit=4),
            Categorical("country"),
            Categorical("shop", hash_size=97),
            Categorical("coupons", limit=9),
        ),
        numeric=("price", "position"),
        history_categorical=(Categorical("clicked", limit=2),),
        history_numeric=("days_ago",),
    ),
    Items(
        id="article",
        key="code",
        tags="kinds",
        categorical=(Categorical("brand", limit=6), Categorical("colours")),
        numeric=("grams",),
        modalities={"cover": "cover_vector", "words": "words_vector"},
        title="name",
    ),
)
PLAIN = Schema(Clicks("seen", "article", ("click",)), Items("article"))


@dataclass
class Store:
    """Columns by split and of the item tables, before they are written."""

    rng: np.random.Generator
    clicks: dict[str, dict[str, Any]]
    info: dict[str, Any]
    features: dict[str, Any]
    names: list[str]
    schema: Schema = SCHEMA
    raw: str | None = None
    kinds: dict[str, pa.DataType] = field(default_factory=dict)

    def with_clicks(self, **roles: Any) -> None:
        """Change roles of the click log's columns."""
        self.schema = replace(self.schema, clicks=replace(self.schema.clicks, **roles))

    def write(self, root: Path) -> Path:
        root.mkdir(parents=True)
        for name, columns in self.clicks.items():
            unknown = ("click", "buy", "importance", "page", "moment") if name == "test" else ()
            self._write(root / f"{name}.parquet", columns, without=unknown)
        self._write(root / "item_info.parquet", self.info)
        self._write(root / "features.parquet", self.features)
        titles = {"article": np.arange(1, ARTICLES), "name": self.names}
        self._write(root / "item_feature.parquet", titles)
        (root / FILE).write_text(self.raw or json.dumps(self.schema.to_dict()))
        return root

    def _write(self, path: Path, columns: dict[str, Any], without: tuple[str, ...] = ()) -> None:
        arrays = {
            name: pa.array(values, self.kinds.get(name), from_pandas=False)
            for name, values in columns.items()
            if name not in without
        }
        pq.write_table(pa.table(arrays), path)


@dataclass
class Articles:
    """What decides clicks: (ARTICLES,) each, article 0 being the padding."""

    brand: np.ndarray
    quality: np.ndarray
    home: np.ndarray
    shop: np.ndarray
    weight: np.ndarray
    cost: np.ndarray


def make_store(seed: int = 0, *, customers: int = 500) -> Store:
    """Labels depend on article, brand, device, country, coupons, price, and what was clicked."""
    rng = np.random.default_rng(seed)
    articles = Articles(
        brand=rng.integers(0, 6, ARTICLES),
        quality=rng.normal(0, 0.6, ARTICLES),
        home=rng.choice(COUNTRIES, ARTICLES),
        shop=rng.choice(2**62, ARTICLES) - 2**61,
        weight=np.r_[0, rng.pareto(1.5, ARTICLES - 1) + 0.2],
        cost=rng.lognormal(3, 0.5, ARTICLES),
    )
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in SPLITS}
    for customer in range(customers):
        split = SPLITS[int(np.searchsorted([0.6, 0.8], rng.random()))]
        rows[split] += _rows_of(customer, articles, rng)
    clicks: dict[str, dict[str, Any]] = {}
    for name, some in rows.items():
        some = [some[place] for place in rng.permutation(len(some))]
        clicks[name] = {column: [row[column] for row in some] for column in some[0]}
        clicks[name]["request"] = [f"{name}-{number:05}" for number in rng.permutation(len(some))]
    names = [f"article {number}" for number in range(1, ARTICLES)]
    return Store(rng, clicks, *_tables(articles.brand, rng), names)


def _rows_of(customer: int, articles: Articles, rng: np.random.Generator) -> list[dict[str, Any]]:
    """One customer's rows in the order of time."""
    favourite, country = rng.integers(0, 6), rng.choice(COUNTRIES, p=[0.5, 0.3, 0.2])
    drawn = articles.weight / articles.weight.sum()
    met = rng.choice(ARTICLES, rng.integers(5, 12), replace=False, p=drawn)
    day, clicked = np.sort(rng.uniform(0, 300, len(met))), np.zeros(len(met), dtype=int)
    rows = []
    for step, article in enumerate(met):
        device, coupons = rng.integers(0, 4), rng.integers(0, 9, rng.integers(0, 4))
        price = articles.cost[article] * rng.lognormal(0, 0.2)
        price = np.nan if rng.random() < 0.2 else price
        logit = articles.quality[article] + 1.0 * (articles.brand[article] == favourite) - 1.0
        logit += 0.5 * (device == 0) + 1.0 * (articles.home[article] == country)
        logit += 0.3 * (3 in coupons) - 0.02 * (np.nan_to_num(price, nan=20) - 20)
        logit += 0.5 * clicked[:step][-3:].mean() if step else 0.0
        clicked[step] = rng.random() < 1 / (1 + np.exp(-logit))
        ago = np.where(rng.random(step) < 0.1, np.nan, day[step] - day[:step])
        bought = int(clicked[step] and rng.random() < 0.6)
        rows.append(
            {
                "customer": customer,
                "seen": met[:step][-WIDTH:].tolist(),
                "clicked": clicked[:step][-WIDTH:].tolist(),
                "days_ago": ago[-WIDTH:].tolist(),
                "article": int(article),
                "moment": int(day[step] * 86_400),
                "page": customer * 10 + step // 4,
                "importance": float(rng.choice([0.5, 1.0])),
                "device": int(device),
                "country": int(country),
                "shop": int(articles.shop[article]),
                "coupons": coupons.tolist(),
                "price": float(price),
                "position": int(rng.integers(1, 20)),
                "click": int(clicked[step]),
                "buy": None if rng.random() < 0.3 else bought,
            }
        )
    return rows


def _tables(brand: np.ndarray, rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    """Columns of the item table and of the feature file, whose covers show the brand."""
    ids = np.arange(ARTICLES)
    info = {
        "article": ids,
        "code": [f"a{number}" for number in ids],
        "kinds": [[]] + [[int(b) + 1, 9] for b in brand[1:]],
        "brand": brand,
        "colours": [rng.integers(-2, 3, rng.integers(0, 3)).tolist() for _ in ids],
        "grams": np.where(rng.random(ARTICLES) < 0.2, np.nan, rng.lognormal(5, 1, ARTICLES)),
    }
    vectors = rng.normal(size=(2, ARTICLES, DIM))
    vectors[0, ids, np.minimum(brand, DIM - 1)] += 2
    covers, words = (list(some) for some in vectors)
    features = {"article": ids, "cover_vector": covers, "words_vector": words}
    return info, features | {"has_cover": ids % 4 > 0}

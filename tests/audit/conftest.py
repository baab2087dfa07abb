"""Small data sets whose truth is known: sound ones, and ones with a single defect planted."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmrec.audit import Report, audit

sys.path.insert(0, str(Path(__file__).parent))

from store import Store, make_store

ITEMS, WIDTH, DIM, KINDS = 241, 13, 16, 5
SPLITS = ("train", "valid", "test")


@dataclass
class Made:
    """Columns by split, and the item tables, before they are written."""

    rng: np.random.Generator
    clicks: dict[str, dict[str, np.ndarray]]
    vectors: np.ndarray
    tags: np.ndarray
    levels: dict[str, np.ndarray]
    titles: list[str]
    images: dict[int, bytes] = field(default_factory=dict)

    def write(self, root: Path) -> Path:
        nested = root / "MicroLens_1M_x1"
        nested.mkdir(parents=True)
        for name, columns in self.clicks.items():
            columns = {k: v for k, v in columns.items() if not (name == "test" and k == "label")}
            if name == "test":
                columns = {"ID": np.arange(len(columns["user_id"])), **columns}
            write_table(nested / f"{name}.parquet", columns)
        item = np.arange(ITEMS)
        info = {"item_id": item, "item_tags": self.tags, "item_emb_d128": self.vectors}
        write_table(nested / "item_info.parquet", info)
        levels = {name: values[1:] for name, values in self.levels.items()}
        write_table(
            root / "item_feature.parquet",
            {"item_id": item[1:], "item_title": self.titles, **levels},
        )
        if self.images:
            (root / "item_images").mkdir()
            for number, content in self.images.items():
                (root / "item_images" / f"{number}.jpg").write_bytes(content)
        return root


def write_table(path: Path, columns: dict[str, Any]) -> None:
    arrays = {}
    for name, values in columns.items():
        matrix = isinstance(values, np.ndarray) and values.ndim == 2
        arrays[name] = pa.array(list(values) if matrix else values)
    pq.write_table(pa.table(arrays), path)


def make(
    seed: int = 0,
    *,
    users: int = 500,
    split: str = "users",
    picture: Callable[[np.random.Generator], bytes] | None = None,
) -> Made:
    """Sound data: each user meets items in time order, likes some, and never the same twice.

    Labels depend on the item's quality and on the user's taste for its kind, which vectors and
    tags show. `split="users"` gives each user to one split; `"time"` gives the last rows of every
    user to valid and test.
    """
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, KINDS, ITEMS)
    quality = rng.normal(0, 0.7, ITEMS)
    weight = rng.pareto(1.5, ITEMS) + 0.2
    weight[0] = 0
    rows: list[dict[str, Any]] = []
    for user in rng.permutation(users) + 1:
        favourite = rng.integers(0, KINDS)
        past, events = rng.integers(0, 7), rng.integers(4, 10)
        taste = weight * np.where(kind == favourite, 3.0, 1.0)
        met = rng.choice(ITEMS, past + events, replace=False, p=taste / taste.sum())
        time = np.sort(rng.integers(0, 10**6, past + events))
        draw = rng.random()
        for step in range(past, past + events):
            logit = quality[met[step]] + 1.2 * (kind[met[step]] == favourite) - 1.0
            late = (step - past) / events
            by_user = "train" if draw < 0.6 else "valid" if draw < 0.8 else "test"
            by_time = "train" if late < 0.6 else "valid" if late < 0.8 else "test"
            history = np.zeros(WIDTH, dtype=np.int64)
            before = met[:step][-WIDTH:]
            history[WIDTH - len(before) :] = before
            rows.append(
                {
                    "split": by_user if split == "users" else by_time,
                    "user_id": int(user),
                    "item_seq": history,
                    "item_id": int(met[step]),
                    "label": int(rng.random() < 1 / (1 + np.exp(-logit))),
                    "timestamp": int(time[step]),
                }
            )
    order = rng.permutation(len(rows))
    popular = np.argsort(np.argsort(weight[1:])) * 10 // (ITEMS - 1) + 1
    noisy = np.argsort(np.argsort(weight[1:] * rng.lognormal(0, 0.5, ITEMS - 1)))
    levels = {
        "views_level": np.r_[0, popular],
        "likes_level": np.r_[0, noisy * 10 // (ITEMS - 1) + 1],
    }
    clicks = {}
    for name in SPLITS:
        some = [rows[i] for i in order if rows[i]["split"] == name]
        names = ("user_id", "item_seq", "item_id", "label", "timestamp")
        columns = {column: np.array([row[column] for row in some]) for column in names}
        clicks[name] = columns | {k: v[columns["item_id"]] for k, v in levels.items()}
    vectors = rng.normal(0, 1, (ITEMS, DIM))
    vectors[np.arange(ITEMS), kind] += 3
    vectors[0] = 0
    tags = np.c_[np.zeros((ITEMS, 4), dtype=np.int64), kind + 1]
    tags[0] = 0
    titles = [f"title {i} of kind {kind[i]}" for i in range(1, ITEMS)]
    images = {i: picture(rng) for i in range(1, ITEMS)} if picture else {}
    return Made(rng, clicks, vectors, tags, levels, titles, images)


def jpeg(rng: np.random.Generator) -> bytes:
    """A tiny noisy JPEG."""
    from io import BytesIO

    out = BytesIO()
    pixels = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, format="JPEG")
    return out.getvalue()


@pytest.fixture(scope="session")
def made() -> Callable[..., Made]:
    return make


@pytest.fixture(scope="session")
def picture() -> Callable[[np.random.Generator], bytes]:
    return jpeg


@pytest.fixture
def audited(made: Callable[..., Any], tmp_path: Path) -> Callable[..., Report]:
    """Audit of the data that `plant` leaves behind."""

    def run(plant: Callable[[Any], None] | None = None, **how: Any) -> Report:
        data = made(**how)
        if plant is not None:
            plant(data)
        return audit(data.write(tmp_path / f"data{len(list(tmp_path.iterdir()))}"))

    return run


@pytest.fixture
def stored(tmp_path: Path) -> Callable[..., Report]:
    """Audit of the store that `plant` leaves behind."""

    def look(plant: Callable[[Store], None] | None = None, **how: Any) -> Report:
        store = make_store(**how)
        if plant is not None:
            plant(store)
        return audit(store.write(tmp_path / f"store{len(list(tmp_path.iterdir()))}"))

    return look

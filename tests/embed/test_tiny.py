"""The small CLIP that is trained on the spot: it learns, and the same seed gives the same files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from toy_encoder import read_output

from mmrec import InputError
from mmrec.embed import OpenClipEncoder, embed_items, train_tiny_clip

COLOURS = {"red": (200, 40, 30), "green": (30, 190, 60), "blue": (40, 60, 210)}


@pytest.fixture
def coloured(tmp_path: Path) -> tuple[Path, Path]:
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    names = list(COLOURS)
    for i in range(1, 91):
        noise = rng.normal(0, 25, (40, 32, 3)) + COLOURS[names[i % 3]]
        Image.fromarray(noise.clip(0, 255).astype(np.uint8), "RGB").save(images / f"{i}.jpg")
    items = tmp_path / "items.parquet"
    titles = [f"a {names[i % 3]} thing" for i in range(1, 91)]
    pq.write_table(pa.table({"item_id": range(1, 91), "item_title": titles}), items)
    return items, images


def test_it_learns_and_is_deterministic(coloured: tuple[Path, Path], tmp_path: Path) -> None:
    items, images = coloured
    options = {"items": items, "images": images, "seed": 3, "steps": 30, "batch_size": 30}
    made = train_tiny_clip(out=tmp_path / "a", **options)
    again = train_tiny_clip(out=tmp_path / "b", workers=2, **options)
    assert made.weights.read_bytes() == again.weights.read_bytes()
    encoder = OpenClipEncoder(model_name=made.config, pretrained=made.weights, device="cpu")
    embed_items(encoder.towers, items=items, images=images, out=tmp_path / "out", workers=0)
    output = read_output(tmp_path / "out")
    image, text = np.array(output["image_emb"]), np.array(output["text_emb"])
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    best = (image @ text[:3].T).argmax(axis=1)  # captions of the three colours
    assert (best == np.arange(90) % 3).mean() > 0.95


def test_nothing_to_learn_from_is_one_sentence(coloured: tuple[Path, Path], tmp_path: Path) -> None:
    items, _ = coloured
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "1.jpg").touch()
    with pytest.raises(InputError, match="at least 2 items with picture and caption, got 0 of 90"):
        train_tiny_clip(items=items, images=tmp_path / "empty", out=tmp_path / "x")
    with pytest.raises(InputError, match="steps is at least 1"):
        train_tiny_clip(items=items, images=tmp_path, out=tmp_path / "x", steps=0)

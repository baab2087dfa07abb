"""A small random CLIP, a toy encoder without open_clip, items, and a folder of odd pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from odd_pictures import ODDITIES, encoded, photo
from toy_encoder import ToyEncoder, write_items

from mmrec.embed import OpenClipEncoder, TinyClip, save_model
from mmrec.embed.tiny import make_model

CONFIG = {
    "embed_dim": 37,
    "vision_cfg": {
        "image_size": 48, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8,
    },
    "text_cfg": {
        "context_length": 29, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2,
    },
}  # fmt: skip


@pytest.fixture
def toy() -> ToyEncoder:
    return ToyEncoder()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyClip:
    """A randomly initialised CLIP as a config and a safetensors file."""
    return save_model(make_model(CONFIG, seed=1), CONFIG, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def clip(tiny: TinyClip) -> OpenClipEncoder:
    return OpenClipEncoder(model_name=tiny.config, pretrained=tiny.weights, device="cpu")


@pytest.fixture
def shop(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Make `count` items with pictures: (items file, images folder)."""

    def make(count: int, size: tuple[int, int] = (40, 30)) -> tuple[Path, Path]:
        images = tmp_path / "images"
        images.mkdir()
        for i in range(1, count + 1):
            if i % 13:  # some have none
                (images / f"{i}.jpg").write_bytes(encoded(photo(*size, seed=i)))
        return write_items(tmp_path / "items.parquet", range(1, count + 1)), images

    return make


@pytest.fixture(scope="session")
def odd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`<n>.jpg` for the n-th oddity, counted from 1, beside names that are no ids."""
    folder = tmp_path_factory.mktemp("odd")
    for number, odd in enumerate(ODDITIES, 1):
        odd.make(folder / f"{number}.jpg")
    (folder / "фото 🎬.jpg").write_bytes(encoded(photo(20, 20)))
    (folder / "notes.txt").write_text("x")
    return folder

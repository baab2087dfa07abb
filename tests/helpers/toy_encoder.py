"""An encoder without open_clip, and small items files: what extraction's tests run on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from mmrec.embed import Encoder, Preprocessing, towers


@dataclass
class ToyEncoder:
    """The protocol in twenty lines: random projections of pixels and of letter counts."""

    image_dim: int = 11
    text_dim: int = 7
    name: str = "toy"
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    threads: int | None = None
    preprocessing: Preprocessing = field(default_factory=lambda: Preprocessing(size=(16, 16)))
    pictures: int = 0
    captions: int = 0

    def __post_init__(self) -> None:
        draw = torch.Generator().manual_seed(self.seed)
        self._image = torch.randn(3 * 16 * 16, self.image_dim, generator=draw)
        self._text = torch.randn(128, self.text_dim, generator=draw)

    @property
    def towers(self) -> dict[str, Encoder]:
        return towers(self)

    def fingerprint(self) -> dict[str, object]:
        return {"toy": self.seed}

    def encode_image(self, pixels: Tensor) -> Tensor:
        self.pictures += len(pixels)
        return pixels.flatten(1) @ self._image / 10

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        rows = torch.zeros(len(captions), 128, dtype=torch.int64)
        for row, caption in enumerate(captions):
            for letter in caption:
                rows[row, ord(letter) % 128] += 1
        return rows

    def encode_text(self, tokens: Tensor) -> Tensor:
        self.captions += len(tokens)
        return tokens.float() @ self._text


def write_items(path: Path, ids: Sequence[int], titles: Sequence[str | None] | None = None) -> Path:
    rng = random.Random(0)
    table = pa.table(
        {
            "item_id": pa.array(ids, pa.int64()),
            "item_title": titles if titles is not None else [f"title {i} #tag{i % 5}" for i in ids],
            "item_tags": [[rng.randrange(1, 50) for _ in range(i % 4)] for i in ids],
            "other": [0.5] * len(ids),
        }
    )
    pq.write_table(table, path)
    return path


def read_output(out: Path) -> dict[str, list[object]]:
    table = pa.concat_tables(pq.read_table(p) for p in sorted(out.glob("*.parquet")))
    return {name: table.column(name).to_pylist() for name in table.column_names}


def shard_bytes(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(out.glob("*.parquet"))}

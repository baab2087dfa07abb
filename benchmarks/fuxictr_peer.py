"""The reference model in PyPI fuxictr's own layers, fed as the challenge's loader feeds it.

Assembled here from the public classes of fuxictr 2.3.10 (`pip install 'mmrec[peers]'`) to be
measured against, not to be used.

B rows, L history, D = 256 item width.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from mmrec.errors import InputError

USER_FEATURES = ("likes_level", "views_level")
Fed = tuple[dict[str, Tensor], dict[str, Tensor], Tensor, Tensor]
"""User features, item features of history and target, padding (B, L), labels (B,)."""


def import_fuxictr() -> None:
    """Make `fuxictr.pytorch.layers` importable.

    It imports ray, h5py and polars for its preprocessing, which no layer uses: where they are not
    installed, empty stand-ins take their places.
    """
    if "fuxictr" in sys.modules:
        return
    if find_spec("fuxictr") is None:
        raise InputError("the peer needs fuxictr: pip install 'mmrec[peers]' or --peer-path DIR")
    if find_spec("ray") is None:
        for name in ("ray", "ray.data", "ray.data.datasource"):
            sys.modules[name] = MagicMock()
        sys.modules["ray.data.datasource.filename_provider"] = MagicMock()
    for name in ("h5py", "polars"):
        if find_spec(name) is None:
            sys.modules[name] = MagicMock()


class PeerModel(nn.Module):
    """Batch dict -> probabilities (B,), with the widths of the first-placed solution."""

    def __init__(self, *, items: int, tags: int, length: int, content: int = 128) -> None:
        super().__init__()
        from fuxictr.features import FeatureMap
        from fuxictr.pytorch.layers import CrossNetV2, FeatureEmbedding, MLP_Block

        features = FeatureMap("speed", ".")
        levels = {"source": "user", "type": "categorical", "vocab_size": 11, "padding_idx": 0}
        for name in USER_FEATURES:
            features.features[name] = dict(levels)
        item: dict[str, Any] = {"source": "item", "padding_idx": 0}
        features.features["item_id"] = item | {"type": "categorical", "vocab_size": items}
        features.features["item_tags"] = item | {
            "type": "sequence",
            "vocab_size": tags,
            "feature_encoder": "layers.MaskedAveragePooling()",
        }
        features.features["item_emb_d128"] = item | {
            "type": "embedding",
            "embedding_dim": content,
            "feature_encoder": "nn.Identity()",  # frozen content goes in as it is
        }
        self.length, width = length, 64 + 64 + content
        self.embedding = FeatureEmbedding(features, embedding_dim=64)
        layer = nn.TransformerEncoderLayer(
            2 * width, nhead=1, dim_feedforward=256, dropout=0.2, batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
        self.pooled = nn.Linear(2 * width, 2 * width)
        wide = 17 * 2 * width + width + 2 * 64
        self.cross = CrossNetV2(wide, 3)
        self.deep = MLP_Block(wide, hidden_units=[1024, 512, 256], dropout_rates=0.2)
        self.head = MLP_Block(
            wide + 256, hidden_units=[64, 32], output_dim=1, output_activation="sigmoid"
        )

    def forward(self, user: dict[str, Tensor], item: dict[str, Tensor], padding: Tensor) -> Tensor:
        rows = len(padding)
        context = self.embedding(user, flatten_emb=True)
        vectors = self.embedding(item, flatten_emb=True).view(rows, self.length + 1, -1)
        target = vectors[:, -1]
        pairs = torch.cat(
            [vectors[:, :-1], target.unsqueeze(1).expand(-1, self.length, -1)], dim=-1
        )  # (B, L, 2D)
        seen = self.encoder(pairs, src_key_padding_mask=padding)
        filled = seen.masked_fill(padding.unsqueeze(-1), -1e9)
        last, pooled = seen[:, -16:].flatten(1), self.pooled(filled.amax(dim=1))
        wide = torch.cat([last, pooled, target, context], dim=-1)
        crossed = torch.cat([self.cross(wide), self.deep(wide)], dim=-1)
        probability: Tensor = self.head(crossed).squeeze(-1)
        return probability


def make_step(model: nn.Module, device: torch.device) -> Callable[[Fed], None]:
    """Adam, clipping at 10, float32, cross-entropy of probabilities: as fuxictr trains."""
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)

    def step(fed: Fed) -> None:
        user, item, padding, label = fed
        user, item = ({k: v.to(device) for k, v in part.items()} for part in (user, item))
        optimizer.zero_grad()
        loss = F.binary_cross_entropy(model(user, item, padding.to(device)), label.to(device))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        loss.item()  # fuxictr adds up the loss on the host in every step

    return step


class PeerLoader:
    """The challenge's way: rows in memory, every batch's item rows looked up by pandas."""

    def __init__(self, train: Path, item_info: Path, *, batch_size: int) -> None:
        frame = pd.read_parquet(train)
        self.history = np.array(frame.pop("item_seq").to_list())
        self.columns = {name: frame[name].to_numpy() for name in frame.columns}
        self.items = pd.read_parquet(item_info)
        rows: Any = range(len(frame))
        self.loader = DataLoader(rows, batch_size=batch_size, shuffle=True, collate_fn=self.collate)

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor], Tensor, Tensor]]:
        return iter(self.loader)

    def collate(
        self, rows: list[int]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor, Tensor]:
        """User features, item features of history and target, padding mask, labels."""
        history, target = self.history[rows], self.columns["item_id"][rows]
        ids = np.concatenate([history, target[:, None]], axis=1).ravel()
        found = self.items.iloc[ids]
        item = {
            "item_id": torch.from_numpy(ids),
            "item_tags": torch.from_numpy(np.array(found["item_tags"].to_list())),
            "item_emb_d128": torch.from_numpy(np.array(found["item_emb_d128"].to_list())).float(),
        }
        user = {name: torch.from_numpy(self.columns[name][rows]) for name in USER_FEATURES}
        label = torch.from_numpy(self.columns["label"][rows]).float()
        return user, item, torch.from_numpy(history == 0), label

"""No public call leaves a trace in the caller's process: generators, threads, warnings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from callers_world import world
from shop import make_shop
from shop_training import RECIPE, train
from toy_encoder import ToyEncoder

from mmrec import ClickData, ItemTable, build_ranker, predict
from mmrec.analysis import diagnose_tasks
from mmrec.audit import audit
from mmrec.data.artifacts import write_fused
from mmrec.data.counts import count_clicks
from mmrec.datasets.covers import write_captioned_covers
from mmrec.datasets.synthetic import SyntheticConfig, make_synthetic
from mmrec.embed import embed_items, train_tiny_clip
from mmrec.models.pretrain import pretrained_vectors
from mmrec.stream.repack import repack
from mmrec.train import score


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    make_shop(root / "data", (1200, 400, 200))
    write_captioned_covers(root / "pairs", count=24)
    # What torch imports at its first step, and open_clip, set variables of their own, once.
    pytest.importorskip("open_clip")
    train(root / "data", root / "first", **{"training.epochs": 1})
    return root


def works(shop: Path, out: Path) -> dict[str, Callable[[], object]]:
    data = ClickData.open(shop / "data")
    items = ItemTable.read(data.item_info, data.schema.items, data.features)
    covers = {"items": shop / "pairs" / "item_feature.parquet", "images": shop / "pairs"}
    torch.manual_seed(1)
    two = RECIPE.changed({"items.pretrain_epochs": 1, "items.fusion": "attention"})
    small = SyntheticConfig(num_items=60, rows=(300, 90, 90), content="features")
    plain = ClickData.open(make(out / "plain", small))
    table = ItemTable.read(plain.item_info, plain.schema.items, plain.features)
    ranker = build_ranker(RECIPE, table)
    return {
        "open": lambda: ClickData.open(shop / "data"),
        "stream": lambda: list(data.loader("train", batch_size=100, shuffle=True)),
        "stream in workers": lambda: list(data.loader("train", batch_size=100, workers=2)),
        "count": lambda: count_clicks(data.train, data.schema.clicks, data.num_items),
        "repack": lambda: repack(data.train, out / "packed"),
        "train": lambda: train(shop / "data", out / "run", **{"training.epochs": 1}),
        "pretrain": lambda: pretrained_vectors(
            two, items, data.histories("train", batch_size=64), out / "vectors"
        ),
        "score": lambda: score(ranker, plain.loader("valid"), device="cpu"),
        "predict": lambda: predict(ranker, plain.loader("test"), device="cpu"),
        "diagnose": lambda: diagnose_tasks(
            ranker, plain.loader("valid"), device="cpu", replicates=20, progress=False
        ),
        "audit": lambda: audit(shop / "data", out=out / "audit", progress=False),
        "synthetic": lambda: make(out / "synthetic", small),
        "embed": lambda: embed_items(
            ToyEncoder().towers, **covers, out=out / "features", workers=1
        ),
        "tiny clip": lambda: train_tiny_clip(**covers, out=out / "clip", steps=2),
        "artifacts": lambda: write_fused(
            out, data.item_info, torch.zeros(data.num_items, 4), data.schema.items
        ),
    }


def make(root: Path, config: SyntheticConfig) -> Path:
    make_synthetic(root, config)
    return root


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_every_public_call_leaves_the_world_as_it_was(shop: Path, tmp_path: Path) -> None:
    for name, work in works(shop, tmp_path).items():
        torch.manual_seed(123)
        np.random.seed(5)  # noqa: NPY002
        before = world()
        work()
        after = world()
        if name == "train":  # fresh weights are drawn by the caller's generator, after a seed
            before["torch"] = after["torch"]
        assert after == before, name

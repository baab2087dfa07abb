"""Two ranks (gloo, CPU) run the whole example as one process does, and fail with one voice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from launching import launch

from mmrec.datasets.synthetic import SyntheticConfig, make_synthetic
from mmrec.embed.tiny import TINY_CONFIG, make_model, save_model
from mmrec.train import load_checkpoint

# Ranks add their gradients in another order than one process does: 6.2e-8 of a probability
# (2026-11-23, 2 shared CPU cores, torch 2.15).
BOUND = 1e-6


def options(source: Path, out: Path) -> list[str]:
    clip = source / "clip"
    files = ["--data", str(source / "data"), "--out", str(out)]
    model = ["--model", str(clip / "model.json"), "--pretrained", str(clip / "model.safetensors")]
    quick = ["--workers", "0", "--no-audit", "--no-ablation", "--quiet", "--device", "cpu"]
    return [*files, *model, *quick, "--recipe", "still"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("source")
    sizes = SyntheticConfig(num_items=97, rows=(1300, 301, 211), history_length=11)
    make_synthetic(root / "data", sizes)
    save_model(make_model(TINY_CONFIG), TINY_CONFIG, root / "clip")
    return root


@pytest.fixture(scope="module")
def outs(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What one process leaves behind, and what two do."""
    found = []
    for ranks in (1, 2):
        out = tmp_path_factory.mktemp(f"ranks{ranks}") / "out"
        said = launch(ranks, *options(source, out))
        assert [code for code, _, _ in said] == [0] * ranks, said
        assert "valid, ranker" in said[0][1]
        assert all(stdout == "" for _, stdout, _ in said[1:])
        assert all("epoch 2" in stderr for _, _, stderr in said[:1])
        assert all(stderr == "" for _, _, stderr in said[1:])
        found.append(out)
    return found[0], found[1]


def test_the_predictions_file_is_the_same(outs: tuple[Path, Path]) -> None:
    one, two = (pd.read_csv(out / "prediction.csv") for out in outs)
    assert one["ID"].tolist() == two["ID"].tolist() == list(range(211))
    difference = float(np.abs(one["Task1&2"] - two["Task1&2"]).max())
    print(f"largest difference of a probability: {difference:.2g}")
    assert difference < BOUND
    assert one["Task1&2"].std() > 1e3 * BOUND  # or all would agree with all


def test_both_ranks_worked(outs: tuple[Path, Path]) -> None:
    """The same shards and global batches, whoever made them."""
    first, second = (sorted(p.name for p in (out / "features").glob("*.parquet")) for out in outs)
    assert first == second
    assert len(first) == 4  # 97 items, 32 a shard
    one, two = (load_checkpoint(out / "ranker", "last") for out in outs)
    assert one.step == two.step == 2 * 11
    assert one.content["training data"] == two.content["training data"]
    for out in outs:
        assert json.loads((out / "batch_size.json").read_text()) == {"batch_size": 128}


def test_files_and_figures_are_those_of_one_process(outs: tuple[Path, Path]) -> None:
    names = [{str(path.relative_to(out)) for path in out.rglob("*")} for out in outs]
    assert names[0] == names[1]
    one, two = (json.loads((out / "metrics.json").read_text()) for out in outs)
    assert one["valid"]["logloss"] == pytest.approx(two["valid"]["logloss"], abs=BOUND)
    one, two = (pd.read_parquet(out / "item_info.parquet") for out in outs)
    vectors = [np.stack(table["item_emb_d128"]) for table in (one, two)]
    np.testing.assert_allclose(*vectors, rtol=0, atol=1e-5)


def failed(said: list[tuple[int, str, str]], word: str) -> None:
    """Every rank leaves with code 2, and one of them says why in one sentence."""
    assert [code for code, _, _ in said] == [2] * len(said), said
    lines = [line for _, _, stderr in said for line in stderr.splitlines() if line.strip()]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert word in lines[0]


def test_bad_data_end_both_ranks_with_one_sentence(tmp_path: Path) -> None:
    """The first rank fails alone, while the other waits for it."""
    options = ["--data", str(tmp_path / "nowhere"), "--out", str(tmp_path), "--device", "cpu"]
    failed(launch(2, *options, limit=60), "nowhere")


def test_a_mistake_of_all_ranks_is_one_sentence(source: Path, outs: tuple[Path, Path]) -> None:
    """Both refuse the checkpoints of another seed."""
    failed(launch(2, *options(source, outs[1]), "--seed", "5", limit=120), "seed")

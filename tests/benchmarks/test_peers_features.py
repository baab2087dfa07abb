"""What the peers are given, compared with loops."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import peers_trees as trees
import pytest
import torch
from peers_rows import Rows, content_of, read_rows

from mmrec.datasets.click_model import ClickModel
from mmrec.datasets.synthetic import SyntheticConfig, make_synthetic


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    root = tmp_path_factory.mktemp("peers")
    config = SyntheticConfig(
        num_items=120, rows=(300, 60, 50), content="features", model=ClickModel(liked_weight=1.0)
    )
    make_synthetic(root, config)
    found = read_rows(root)
    generator = np.random.default_rng(0)
    for name, batch in (("train", found.train), ("valid", found.valid)):
        found.time[name] = generator.integers(0, 20, len(batch)).astype(np.float64)
    return found


@pytest.mark.parametrize("of", ["user", "target"])
def test_statistics_count_earlier_rows_of_train_alone(rows: Rows, of: str) -> None:
    label = rows.train.labels[:, 0].numpy()
    ids = getattr(rows.train, of).numpy()
    for split in ("train", "valid"):
        asked, found = getattr(rows.split(split), of).numpy(), trees.before(rows, split, of)
        for at in range(len(asked)):
            earlier = (ids == asked[at]) & (rows.time["train"] < rows.time[split][at])
            share = (label[earlier].sum() + 5 * label.mean()) / (earlier.sum() + 5)
            np.testing.assert_allclose(found[at], [share, earlier.sum()], rtol=1e-5)


def test_a_row_of_train_is_no_part_of_its_own_share(rows: Rows) -> None:
    before = trees.other_folds(rows, "train", "target")
    label, kept = rows.train.labels, rows.train.labels.clone()
    try:
        label[7] = 1 - label[7]
        shift = 5 * (float(label.mean()) - float(kept.mean()))
        after = trees.other_folds(rows, "train", "target")
    finally:
        label.copy_(kept)
    same = rows.train.target == rows.train.target[7]
    moved = np.abs(after - before)[:, 0] > abs(shift) + 1e-6
    assert not moved[7]
    assert moved[same.numpy()].sum() == moved.sum()


def test_similarities_are_those_of_a_loop(rows: Rows) -> None:
    batch = rows.valid
    image = trees.unit_rows(trees.modalities(rows)[0])
    found = trees.similarities(batch, image, rows.sign)
    assert found.shape == (60, 10)
    there = image.any(1)
    for at in range(60):
        past = [int(i) for i in batch.history[at]]
        cosine = [float(image[batch.target[at]] @ image[i]) for i in past]
        usable = [i != 0 and bool(there[i]) and bool(there[batch.target[at]]) for i in past]
        liked = [int(sign) == 1 for sign in batch.history_categorical[at, :, 0]]
        expected = []
        for wanted in (True, False):
            group = [u and s == wanted for u, s in zip(usable, liked, strict=True)]
            of = [c for c, g in zip(cosine, group, strict=True) if g]
            newest = [c for c, g in zip(cosine[-10:], group[-10:], strict=True) if g]
            closest = sorted(of)[-5:]
            expected += [max(of, default=np.nan)]
            expected += [sum(x) / len(x) if x else np.nan for x in (closest, of, newest)]
        for temperature in (0.05, 0.2):
            weight = [u * np.exp(c / temperature) for c, u in zip(cosine, usable, strict=True)]
            share = sum(w for w, s in zip(weight, liked, strict=True) if s)
            expected.append(share / sum(weight) if any(usable) else np.nan)
        np.testing.assert_allclose(found[at], expected, rtol=1e-3, atol=1e-4)


def test_components_keep_the_distances_of_items(rows: Rows) -> None:
    content, _ = content_of(rows.root)
    assert content.shape == (121, 112)  # all of 64 + 48
    spread = content.std(0)
    assert bool((spread[:-1] + 1e-4 >= spread[1:]).all())
    assert not content[0].any()


@pytest.mark.skipif(not find_spec("fuxictr"), reason="needs the extra peers")
@pytest.mark.parametrize("name", ["dcnv2", "din", "finalmlp"])
def test_padding_is_inert_and_each_row_is_ranked_by_itself(rows: Rows, name: str) -> None:
    from peers_fuxictr import Peer, logits_of, tables_of
    from peers_search import draw

    tables = tables_of(rows.root)
    torch.manual_seed(0)
    model = Peer(tables, draw(name, 1, 0)[0], name)
    for weight in model.inputs.parameters():
        torch.nn.init.normal_(weight)
    row = {key: value.clone() for key, value in tables.rows["valid"].items()}
    row["history"][:, :9] = 0
    whole = logits_of(model, row)
    row["history_categorical"][:, :9] = 3 - row["history_categorical"][:, :9].clamp(max=2)
    row["liked"][:, :9] = ~row["liked"][:, :9]
    np.testing.assert_allclose(logits_of(model, row), whole, rtol=1e-4, atol=1e-5)
    order = torch.arange(len(whole)).flip(0)
    moved = logits_of(model, {key: value[order] for key, value in row.items()})
    np.testing.assert_allclose(moved[::-1], whole, rtol=1e-4, atol=1e-5)
    row["liked"], row["history_categorical"][:] = ~row["liked"], 2
    assert np.abs(logits_of(model, row) - whole).max() > 1e-3

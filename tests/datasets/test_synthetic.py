"""Synthetic data: the layout, its determinism, and the click model that it is drawn from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.metrics import log_loss, roc_auc_score

from mmrec.data.clicks import ClickData
from mmrec.data.items import ItemTable
from mmrec.data.microlens import MICROLENS
from mmrec.datasets.click_model import (
    KINDS,
    ClickModel,
    LatentItems,
    by_kind,
    draw_distinct,
    draw_distinct_by_kind,
    draw_items,
    draw_users,
    echo,
    liked,
    logits,
    probability_unaware,
)
from mmrec.datasets.covers import write_captioned_covers
from mmrec.datasets.synthetic import SyntheticConfig, make_synthetic
from mmrec.errors import InputError
from mmrec.schema import Categorical, Schema

SMALL = SyntheticConfig(num_items=97, rows=(1500, 400, 300), history_length=11, seed=3)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("synthetic")
    make_synthetic(place, SMALL)
    return place


def digest(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(f.relative_to(root)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_it_is_in_the_layout_and_passes_every_check(root: Path) -> None:
    data = ClickData.open(root)
    assert data.rows == {"train": 1500, "valid": 400, "test": 300}
    assert (data.num_items, data.widths["item_seq"]) == (98, 11)
    assert data.images is not None
    assert data.item_feature is not None
    assert Schema.read(root / "schema.json") == data.schema == MICROLENS


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    root: Path, tmp_path: Path
) -> None:
    make_synthetic(tmp_path / "same", SMALL)
    make_synthetic(tmp_path / "other", dataclasses.replace(SMALL, seed=4))
    assert digest(tmp_path / "same") == digest(root)
    mine, other = digest(root), digest(tmp_path / "other")
    assert mine.pop("schema.json") == other.pop("schema.json")
    assert all(other.get(name) != value for name, value in mine.items())


def test_the_oracle_is_that_of_the_true_probabilities(root: Path) -> None:
    truth = pq.read_table(root / "oracle.parquet").to_pandas()
    said = json.loads((root / "synthetic.json").read_text())["oracle"]
    labels = {
        name: pq.read_table(root / "MicroLens_1M_x1" / f"{name}.parquet")["label"].to_numpy()
        for name in ("train", "valid")
    }
    labels["test"] = pq.read_table(root / "test_labels.parquet")["label"].to_numpy()
    for split, label in labels.items():
        probability = truth[truth.split == split].probability.to_numpy()
        assert said[split]["auc"] == pytest.approx(roc_auc_score(label, probability), abs=1e-12)
        assert said[split]["logloss"] == pytest.approx(log_loss(label, probability), abs=1e-9)
        # The labels are drawn from these probabilities: the sum stays within 4 standard errors.
        spread = np.sqrt((probability * (1 - probability)).sum())
        assert abs(label.sum() - probability.sum()) < 4 * spread


def test_splits_share_no_user_and_no_target_stands_in_its_history(root: Path) -> None:
    users = {}
    for name in ("train", "valid", "test"):
        table = pq.read_table(root / "MicroLens_1M_x1" / f"{name}.parquet")
        users[name] = set(table["user_id"].to_pylist())
        for history, target in zip(
            table["item_seq"].to_pylist(), table["item_id"].to_pylist(), strict=True
        ):
            assert target not in history
    assert not users["train"] & users["valid"]
    assert not users["valid"] & users["test"]


def test_some_items_are_never_shown_by_train(root: Path) -> None:
    shown: set[int] = set()
    table = pq.read_table(root / "MicroLens_1M_x1" / "train.parquet")
    for history, target in zip(
        table["item_seq"].to_pylist(), table["item_id"].to_pylist(), strict=True
    ):
        shown |= {target, *history}
    unseen = set(range(1, 98)) - shown
    assert len(unseen) == 10
    valid = pq.read_table(root / "MicroLens_1M_x1" / "valid.parquet")["item_id"].to_pylist()
    assert unseen & set(valid)


def test_some_covers_are_missing_some_cut_off_and_the_rest_of_many_sizes(root: Path) -> None:
    folder = root / "item_images" / "item_images"
    sizes, broken = set(), 0
    for path in folder.iterdir():
        try:
            with Image.open(path) as picture:
                picture.load()
                sizes.add(picture.size)
        except OSError:
            broken += 1
    assert broken > 0
    assert len(list(folder.iterdir())) < 97
    assert len(sizes) > 3


def pair_taste(shift: int, items: LatentItems, item: int) -> float:
    """2 where the words are those that go with the cover, else -1/2."""
    return 2.0 if items.words[item] == (items.cover[item] + shift) % KINDS else -0.5


def test_the_click_model_is_the_sum_it_says() -> None:
    rng = np.random.default_rng(1)
    items, users = draw_items(13, rng), draw_users(7, rng)
    model = ClickModel(pair_weight=0.7)
    for user in range(7):
        for item in range(13):
            expected = (
                model.bias
                + model.id_weight * items.quality[item]
                + model.image_weight * users.cover_taste[user][items.cover[item]]
                + model.text_weight * users.words_taste[user][items.words[item]]
                + model.interaction_weight * items.suits[item]
                + model.pair_weight * pair_taste(int(users.pair_shift[user]), items, item)
                + model.popularity_weight * items.popularity[item]
            )
            got = logits(model, items, users, np.array([user]), np.array([item]))
            assert got[0] == pytest.approx(expected, abs=1e-12)


def test_earlier_items_count_by_the_kind_of_their_cover() -> None:
    rng = np.random.default_rng(1)
    items, users = draw_items(13, rng), draw_users(7, rng)
    assert set(users.opinion.ravel().tolist()) == {-1, 1}
    lengths = rng.integers(0, 6, (7, 1))
    histories = np.where(np.arange(5) >= 5 - lengths, rng.integers(1, 14, (7, 5)), 0)
    opinion = liked(items, users, histories)
    for user in range(7):
        said = {}
        for item, like in zip(histories[user].tolist(), opinion[user].tolist(), strict=True):
            assert like == (item > 0 and users.opinion[user, items.cover[item - 1]] == 1)
            if item:
                said[int(items.cover[item - 1])] = 1 if like else -1
        for item in range(13):
            got = echo(items, users, histories, np.array([user]), np.array([item]))
            assert got.tolist() == [said.get(int(items.cover[item]), 0)]


def test_who_does_not_know_what_was_liked_takes_the_mean_of_both() -> None:
    logit, term = np.array([-1.0, 0.5, 2.0]), np.array([1.5, 0.0, -1.5])
    expected = [
        (1 / (1 + math.exp(-x - t)) + 1 / (1 + math.exp(-x + t))) / 2
        for x, t in zip(logit.tolist(), term.tolist(), strict=True)
    ]
    np.testing.assert_allclose(probability_unaware(logit, term), expected, rtol=1e-14)


def read_split(root: Path, name: str) -> dict[str, np.ndarray]:
    table = pq.read_table(root / "MicroLens_1M_x1" / f"{name}.parquet")
    return {column: np.array(table[column].to_pylist()) for column in table.column_names}


def test_clicks_depend_on_whether_earlier_items_were_liked(tmp_path: Path) -> None:
    plain = dataclasses.replace(SMALL, content="features", rows=(6000, 900, 900))
    config = dataclasses.replace(plain, model=ClickModel(bias=0.0, liked_weight=2.0))
    make_synthetic(tmp_path / "plain", plain)
    oracle = make_synthetic(tmp_path / "liked", config)
    assert make_synthetic(tmp_path / "liked", config) == oracle
    data = ClickData.open(tmp_path / "liked")
    (feature,) = data.schema.clicks.history_categorical
    assert feature == Categorical("history_liked", limit=2)

    kinds = draw_items(config.num_items, np.random.default_rng(config.seed)).cover
    truth = pq.read_table(tmp_path / "liked" / "oracle.parquet").to_pandas()
    for name in ("train", "valid", "test"):
        rows, before = (read_split(tmp_path / place, name) for place in ("liked", "plain"))
        for column in set(before) - {"label"}:
            np.testing.assert_array_equal(rows[column], before[column])  # liked or not changed none
        known = truth[truth.split == name]
        assert oracle[name]["auc"] > oracle[name]["auc_unaware"] + 0.05
        history, like = rows["item_seq"], rows["history_liked"]
        same = (history > 0) & (kinds[history - 1] == kinds[rows["item_id"] - 1][:, None])
        assert not like[history == 0].any()
        echoed = np.where(same.any(1), np.where((same & (like == 1)).any(1), 1, -1), 0)
        assert not ((same & (like == 1)).any(1) & (same & (like == 0)).any(1)).any()
        # The term is 2 up, 2 down or nothing against what those see who do not know.
        gap = known.probability.to_numpy() - known.unaware.to_numpy()
        np.testing.assert_array_equal(np.sign(gap), echoed)
        if name != "test":
            up, down = (rows["label"][echoed == sign].mean() for sign in (1, -1))
            assert up > down + 0.2


def test_neither_modality_alone_tells_how_well_they_suit() -> None:
    items = draw_items(20_000, np.random.default_rng(2))
    matrix = np.zeros((KINDS, KINDS))
    matrix[items.cover, items.words] = items.suits
    np.testing.assert_allclose(matrix.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(matrix.mean(axis=1), 0, atol=1e-12)
    assert matrix.std() == pytest.approx(1.0)


def test_neither_modality_alone_tells_which_combinations_a_user_likes() -> None:
    cover, words = np.divmod(np.arange(KINDS * KINDS), KINDS)
    nothing = np.zeros(KINDS * KINDS)
    items = LatentItems(cover, words, quality=nothing, popularity=nothing, suits=nothing)
    users = draw_users(40, np.random.default_rng(3))
    assert len(set(users.pair_shift.tolist())) == KINDS
    model = ClickModel(0.0, 0.0, 0.0, 0.0, 0.0, pair_weight=1.0)
    every = np.arange(KINDS * KINDS)[None, :]
    matrix = logits(model, items, users, np.arange(40)[:, None], every).reshape(40, KINDS, KINDS)
    np.testing.assert_allclose(matrix.mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(matrix.mean(axis=2), 0, atol=1e-12)
    np.testing.assert_allclose(matrix.std(axis=(1, 2)), 1, atol=1e-12)


def test_ready_features_tell_the_kinds_and_come_in_the_pictures_place(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, content="features", missing_images=0.2)
    make_synthetic(tmp_path, config)
    assert not (tmp_path / "item_images").exists()
    data = ClickData.open(tmp_path)
    assert data.features is not None
    table = ItemTable.read(data.item_info, data.schema.items, data.features)
    assert 0.05 < 1 - table.present["image"][1:].float().mean() < 0.4
    assert table.present["text"][1:].all()
    drawn = draw_items(config.num_items, np.random.default_rng(config.seed))
    there = table.present["image"][1:].numpy()
    for vectors, kinds in (
        (table.vectors["image"][1:].float().numpy()[there], drawn.cover[there]),
        (table.vectors["text"][1:].float().numpy(), drawn.words),
    ):
        centres = np.stack([vectors[kinds == kind].mean(0) for kind in range(KINDS)])
        nearest = ((vectors[:, None] - centres) ** 2).sum(-1).argmin(1)
        assert (nearest == kinds).mean() > 0.95


@pytest.mark.parametrize("overlap", [0.0, 1.0])
def test_with_overlap_each_vector_tells_the_other_kind_too(tmp_path: Path, overlap: float) -> None:
    make_synthetic(tmp_path, dataclasses.replace(SMALL, content="features", overlap=overlap))
    data = ClickData.open(tmp_path)
    assert data.features is not None
    table = ItemTable.read(data.item_info, data.schema.items, data.features)
    text = table.vectors["text"][1:].float().numpy()
    cover = draw_items(SMALL.num_items, np.random.default_rng(SMALL.seed)).cover
    taught, asked = slice(0, 60), slice(60, None)
    centres = np.stack([text[taught][cover[taught] == kind].mean(0) for kind in range(KINDS)])
    nearest = ((text[asked, None] - centres) ** 2).sum(-1).argmin(1)
    right = (nearest == cover[asked]).mean()
    assert right > 0.7 if overlap else right < 0.5


def test_content_is_one_of_two() -> None:
    with pytest.raises(InputError, match=r"content must be one of .*, got 'pictures'"):
        SyntheticConfig(content="pictures")


def test_tastes_have_zero_mean_and_unit_variance_over_kinds() -> None:
    tastes = draw_users(50, np.random.default_rng(2)).cover_taste
    np.testing.assert_allclose(tastes.mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose((tastes**2).mean(axis=1), 1, atol=1e-12)


def test_draws_are_distinct_and_follow_their_weights() -> None:
    weights = np.tile([1.0, 2.0, 5.0], (60_000, 1))
    drawn = draw_distinct(weights, 2, np.random.default_rng(0))
    assert (drawn[:, 0] != drawn[:, 1]).all()
    np.testing.assert_allclose(np.bincount(drawn[:, 0]) / 60_000, [1 / 8, 2 / 8, 5 / 8], atol=0.01)
    # After the third column is drawn first, the others follow as 1 : 2.
    second = drawn[drawn[:, 0] == 2, 1]
    assert (second == 0).mean() == pytest.approx(1 / 3, abs=0.01)


def test_pairs_for_an_encoder_hold_a_picture_each(tmp_path: Path) -> None:
    write_captioned_covers(tmp_path, count=7, seed=1)
    table = pq.read_table(tmp_path / "item_feature.parquet")
    assert table["item_id"].to_pylist() == list(range(1, 8))
    assert all((tmp_path / "item_images" / f"{i}.jpg").is_file() for i in range(1, 8))


def test_another_config_in_the_same_place_is_refused(root: Path) -> None:
    with pytest.raises(
        InputError, match=r"made with another seed: seed was .* and is 9; name another place"
    ):
        make_synthetic(root, dataclasses.replace(SMALL, seed=9))


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="at least twice history_length = 20 items, got 27"):
        SyntheticConfig(num_items=30)
    with pytest.raises(InputError, match="must be a whole number of at least 1"):
        SyntheticConfig(rows=(10, 0, 10))


def test_the_command_line_reports_the_oracle(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mmrec.datasets.synthetic", str(tmp_path / "a")]
    command += ["--items", "80", "--train-rows", "400"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    oracle = json.loads((tmp_path / "a" / "synthetic.json").read_text())["oracle"]
    assert f"valid  oracle AUC {oracle['valid']['auc']:.4f}" in said
    command[3] = str(tmp_path / "b")
    said = subprocess.run([*command, "--liked", "1.5"], capture_output=True, text=True, check=True)
    oracle = json.loads((tmp_path / "b" / "synthetic.json").read_text())["oracle"]
    assert f"not knowing what was liked {oracle['valid']['auc_unaware']:.4f}" in said.stdout


def test_drawing_kind_by_kind_is_drawing_by_weight() -> None:
    """How often each item is drawn first, and at all, is the same up to chance."""
    model, times = ClickModel(), 4000
    items, users = (
        draw_items(300, np.random.default_rng(0)),
        draw_users(3, np.random.default_rng(1)),
    )
    shown = np.arange(10, 290)
    for who in range(3):
        user = np.full((times, 1), who)
        weights = np.exp(logits(model, items, users, user, shown[None, :]))
        table = by_kind(model, items, users, user, shown)
        np.testing.assert_allclose(table[0][:, table[1]] * table[2], weights, rtol=1e-9)
        slow = draw_distinct(weights, 6, np.random.default_rng(0))
        fast = draw_distinct_by_kind(*table, 6, np.random.default_rng(1))
        assert all(len(set(row)) == 6 for row in fast.tolist())
        for part in (slice(0, 1), slice(0, 6)):
            first, second = (np.bincount(d[:, part].ravel(), minlength=280) for d in (slow, fast))
            assert (np.abs(first - second) < 5 * np.sqrt(first + second + 1)).all()

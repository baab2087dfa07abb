"""A trained ranker and data that are not quite what it was trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shop import PLAIN, SCHEMA, make_shop
from shop_training import RECIPE, rewritten, train

from mmrec import ClickData, InputError, ItemTable, Schema, build_ranker, predict
from mmrec.models.sketch import share_unlike, sketch
from mmrec.predict import load_ranker
from mmrec.schema import Categorical


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("other")
    train(make_shop(root / "data", (1500, 400, 200)), root / "run", **{"training.epochs": 1})
    return root


def answers(shop: Path, data: Path) -> np.ndarray[Any, Any]:
    opened = ClickData.open(data)
    items = ItemTable.read(opened.item_info, opened.schema.items, opened.features)
    ranker = load_ranker(shop / "run", items, opened)
    return predict(ranker, opened.loader("test"), device="cpu")[1]


def cut(data: Path, folder: Path, column: str, longest: int) -> Path:
    root = rewritten(data, folder, SCHEMA)
    for split in ("train", "valid", "test"):
        table = pq.read_table(data / f"{split}.parquet")
        values = [value[:longest] for value in table[column].to_pylist()]
        place = table.schema.get_field_index(column)
        kind = table.schema.field(column).type
        (root / f"{split}.parquet").unlink()
        table = table.set_column(place, column, pa.array(values, kind))
        pq.write_table(table, root / f"{split}.parquet")
    return root


def test_lists_of_another_length_are_means_all_the_same(shop: Path, tmp_path: Path) -> None:
    whole = answers(shop, shop / "data")
    short = answers(shop, cut(shop / "data", tmp_path, "coupons", 1))
    table = pq.read_table(shop / "data" / "test.parquet")
    same = np.array([len(value) <= 1 for value in table["coupons"].to_pylist()])
    assert 0 < same.mean() < 1
    np.testing.assert_allclose(short[same], whole[same], atol=1e-6)
    assert (np.abs(short - whole).max(axis=1)[~same] > 1e-6).mean() > 0.9


CLICKS, ITEMS = SCHEMA.clicks, SCHEMA.items
OTHERS: dict[str, Schema] = {
    "labels": replace(SCHEMA, clicks=replace(CLICKS, labels=("buy", "click"))),
    "numeric": replace(SCHEMA, clicks=replace(CLICKS, numeric=("position", "price", "discount"))),
    "categorical": replace(
        SCHEMA,
        clicks=replace(
            CLICKS, categorical=(*CLICKS.categorical[:4], Categorical("seller", hash_size=32))
        ),
    ),
    "items.categorical": replace(SCHEMA, items=replace(ITEMS, categorical=ITEMS.categorical[::-1])),
    "history_numeric": replace(SCHEMA, clicks=replace(CLICKS, history_numeric=())),
}


@pytest.mark.parametrize("what", OTHERS)
def test_other_columns_than_those_of_training_are_refused(
    shop: Path, what: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=rf"made with another {what.split('.')[0]}: .*trained on"):
        answers(shop, rewritten(shop / "data", tmp_path, OTHERS[what]))


def test_what_no_ranker_reads_may_differ(shop: Path, tmp_path: Path) -> None:
    schema = replace(SCHEMA, clicks=replace(CLICKS, weight=None, time=None))
    other = answers(shop, rewritten(shop / "data", tmp_path, schema))
    np.testing.assert_array_equal(other, answers(shop, shop / "data"))


def changed(shop: Path, folder: Path, split: str, **columns: pa.Array) -> Path:
    root = rewritten(shop / "data", folder, SCHEMA)
    table = pq.read_table(root / f"{split}.parquet")
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, values)
    (root / f"{split}.parquet").unlink()
    pq.write_table(table, root / f"{split}.parquet")
    return root


def test_data_that_would_train_nothing_are_refused(shop: Path, tmp_path: Path) -> None:
    n = 1500
    cases: list[tuple[dict[str, Any], str]] = [
        ({"importance": pa.array(np.zeros(n))}, "some weight is above 0, all are 0 in .*train"),
        ({"price": pa.array(1.7e9 + np.arange(n) % 60.0)}, "more than float32 resolves"),
        ({"device": pa.array([-(2**63)] * n)}, r"any integers but -2\^63"),
        ({"coupons": pa.array(np.arange(n))}, "lists in every split or in none, coupons does in"),
    ]
    for number, (columns, sentence) in enumerate(cases):
        place = tmp_path / str(number)
        place.mkdir()
        with pytest.raises(InputError, match=sentence):
            ClickData.open(changed(shop, place, "train", **columns))


def test_seconds_since_1970_over_months_are_numbers_like_others(shop: Path, tmp_path: Path) -> None:
    seconds = pa.array(1.7e9 + np.arange(1500) * 9_000.0)
    assert ClickData.open(changed(shop, tmp_path, "train", price=seconds)).rows["train"] == 1500


def test_flags_are_categories(shop: Path, tmp_path: Path) -> None:
    flags = pa.array(np.arange(1500) % 2 == 0)
    data = ClickData.open(changed(shop, tmp_path, "train", device=flags))
    batch = next(iter(data.loader("train", batch_size=4)))
    assert batch.categorical[:, 0].tolist() == [1, 0, 1, 0]


def test_history_target_and_label_are_enough(shop: Path, tmp_path: Path) -> None:
    """Without any content, too; a fusion of nothing is refused."""
    schema = replace(PLAIN, items=replace(PLAIN.items, modalities={}))
    root = rewritten(shop / "data", tmp_path, schema)
    (root / "features.parquet").unlink()
    data = ClickData.open(root)
    items = ItemTable.read(data.item_info, data.schema.items)
    assert not items.has_content
    with pytest.raises(InputError, match="a fusion needs content"):
        build_ranker(RECIPE, items)
    assert build_ranker(RECIPE.without_content().changed({"items.id_dim": 4}), items)


def test_a_modality_may_be_called_anything_that_is_a_name(shop: Path, tmp_path: Path) -> None:
    schema = replace(SCHEMA, items=replace(ITEMS, modalities={"audio": "clip_image"}))
    data = ClickData.open(rewritten(shop / "data", tmp_path, schema), check=False)
    items = ItemTable.read(data.item_info, data.schema.items, data.features)
    assert list(items.vectors) == ["audio"]
    with pytest.raises(InputError, match=r"a modality is called by letters.*got 'my sound'"):
        replace(ITEMS, modalities={"my sound": "clip_image"})


def vectors_of(shop: Path, folder: Path, change: Callable[[np.ndarray[Any, Any]], Any]) -> Path:
    root = rewritten(shop / "data", folder, SCHEMA)
    table = pq.read_table(root / "features.parquet")
    for name in ("clip_image", "clip_text"):
        values = np.stack(table[name].to_numpy(zero_copy_only=False))
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pa.array(list(change(values))))
    (root / "features.parquet").unlink()
    pq.write_table(table, root / "features.parquet")
    return root


def test_vectors_of_another_encoder_are_refused(shop: Path, tmp_path: Path) -> None:
    """Of the same width; what rounding on another machine may do is no matter."""
    for number, change in enumerate((lambda v: v[::-1], lambda v: -v, lambda v: v[:, ::-1])):
        place = tmp_path / str(number)
        place.mkdir()
        with pytest.raises(InputError, match="vectors are not those that the ranker was trained"):
            answers(shop, vectors_of(shop, place, change))
    (tmp_path / "near").mkdir()
    near = vectors_of(shop, tmp_path / "near", lambda v: v * (1 + 1e-3 * np.sin(7 * v)))
    np.testing.assert_allclose(answers(shop, near), answers(shop, shop / "data"), atol=0.01)


def test_a_sketch_is_of_the_same_items_when_a_catalogue_grows(shop: Path) -> None:
    data = ClickData.open(shop / "data")
    items = ItemTable.read(data.item_info, data.schema.items, data.features)
    fewer = replace(
        items,
        vectors={name: vectors[:30] for name, vectors in items.vectors.items()},
        present={name: present[:30] for name, present in items.present.items()},
    )
    first = {name: cosines[:30] for name, cosines in sketch(items).items()}
    assert share_unlike(first, sketch(fewer)) == 0
    flipped = {**items.vectors, "image": items.vectors["image"].flip(0)}
    other = replace(items, vectors=flipped)
    assert share_unlike(sketch(items), sketch(other)) > 0.5

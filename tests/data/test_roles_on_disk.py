"""A data set of every role: what breaks its schema is one sentence with file, column and row."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shop import SCHEMA, make_shop

from mmrec.data.clicks import ClickData
from mmrec.data.counts import count_clicks
from mmrec.data.items import ItemTable
from mmrec.errors import InputError
from mmrec.models import Inputs
from mmrec.schema import ABSENT, FILE, Categorical

Edit = Callable[[list[Any]], Any]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return make_shop(tmp_path / "shop", rows=(300, 90, 50))


def edit(path: Path, column: str, change: Edit, kind: pa.DataType | None = None) -> None:
    table = pq.read_table(path)
    values = table[column].to_pylist()
    changed = pa.array(change(values), kind or table.schema.field(column).type)
    place = table.schema.get_field_index(column)
    pq.write_table(table.set_column(place, column, changed), path)


def at(row: int, value: Any) -> Edit:
    return lambda values: [*values[:row], value, *values[row + 1 :]]


def as_text(values: list[Any]) -> list[str]:
    return [str(value) for value in values]


@pytest.mark.parametrize(
    ("column", "change", "sentence"),
    [
        ("click", at(7, None), None),  # two tasks: a null is a missing label
        ("click", at(7, 3), r"labels are 0 or 1, got 3 .*column click, row 7"),
        ("price", at(7, None), None),
        ("price", at(7, float("inf")), r"within float32, .*got inf .*column price, row 7"),
        ("days_ago", at(7, [1.0] * 9), r"as long as the row's history, here \d, got a list of 9"),
        ("liked", at(7, None), r"every value must be there, got null .*column liked, row 7"),
        ("device", at(7, None), r"every value must be there, got null .*column device, row 7"),
        ("coupons", at(7, [2, None]), r"of a list must be there, got null .*coupons, row 7"),
        ("importance", at(7, -0.5), r"weights are finite, 0 or more, got -0.5 .*row 7"),
        ("importance", at(7, None), r"got (nan|null|None) .*column importance, row 7|null"),
        ("moment", at(7, None), r"every value must be there, got null .*column moment, row 7"),
        ("customer", at(7, -4), r"user ids are 0 or more, got -4 .*column customer, row 7"),
    ],
)
def test_values(shop: Path, column: str, change: Edit, sentence: str | None) -> None:
    edit(shop / "train.parquet", column, change)
    if sentence is None:
        assert ClickData.open(shop).rows["train"] == 300
        return
    with pytest.raises(InputError, match=sentence) as error:
        ClickData.open(shop)
    assert "train.parquet" in str(error.value)


@pytest.mark.parametrize(
    "column", ["seen", "sku", "click", "customer", "importance", "device", "coupons", "price"]
)
def test_text_where_numbers_are_due(shop: Path, column: str) -> None:
    edit(shop / "valid.parquet", column, as_text, pa.string())
    sentence = rf"are needed, got string in .*valid\.parquet, column {column}$"
    with pytest.raises(InputError, match=sentence):
        ClickData.open(shop, check=False)


def test_a_column_of_the_schema_that_is_absent(shop: Path) -> None:
    for file, columns in (("test", ["request", "hour", "liked"]), ("item_info", ["brand"])):
        path = shop / f"{file}.parquet"
        table = pq.read_table(path)
        for column in columns:
            pq.write_table(table.drop_columns([column]), path)
            with pytest.raises(InputError, match=f"one column {column} is needed, got 0"):
                ClickData.open(shop, check=False)
        pq.write_table(table, path)


def test_keys_of_rows_stand_once(shop: Path) -> None:
    edit(shop / "test.parquet", "request", at(9, "r-000004"))
    sentence = r"each request stands once, got r-000004 a second time .*column request, row 9"
    with pytest.raises(InputError, match=sentence):
        ClickData.open(shop)


def test_a_limit_is_the_schemas(shop: Path) -> None:
    clicks = replace(SCHEMA.clicks, categorical=(Categorical("hour", limit=12),))
    (shop / FILE).write_text(json.dumps(replace(SCHEMA, clicks=clicks).to_dict()))
    with pytest.raises(InputError, match=r"categories lie in 0\.\.11, got \d\d .*column hour"):
        ClickData.open(shop)


def test_batches_hold_what_the_files_hold(shop: Path) -> None:
    data = ClickData.open(shop)
    rows = pq.read_table(data.train).to_pylist()
    batch = next(iter(data.loader("train", batch_size=300, extra=["moment"])))
    places = data.places()
    assert places["seller"] == ("categorical", slice(6, 7))
    longest = max(len(row["coupons"]) for row in rows)
    for number, row in enumerate(rows):
        coupons = batch.categorical[number, places["coupons"][1]].tolist()
        assert coupons == [ABSENT] * (longest - len(row["coupons"])) + row["coupons"]
        for name in ("device", "hour", "country", "seller"):
            assert batch.categorical[number, places[name][1]].item() == row[name]
        for name in ("price", "position", "discount"):
            expected = np.float32("nan") if row[name] is None else np.float32(row[name])
            np.testing.assert_array_equal(
                batch.numeric[number, places[name][1]].numpy(), expected.reshape(1)
            )
        length = len(row["seen"])
        real = batch.valid[number]
        assert int(real.sum()) == length
        assert batch.history_categorical[number, real, 0].tolist() == row["liked"]
        np.testing.assert_array_equal(
            batch.history_numeric[number, real, 0].numpy(), np.float32(row["days_ago"])
        )
        for task, name in enumerate(("click", "buy")):
            label = batch.labels[number, task].item()
            assert (np.isnan(label) and row[name] is None) or label == row[name]
        assert batch.weight[number].item() == row["importance"]
        assert batch.extra["moment"][number].item() == row["moment"]


def test_train_alone_tells_vocabularies_and_moments(shop: Path) -> None:
    data = ClickData.open(shop)
    rows = pq.read_table(data.train).to_pylist()
    items = ItemTable.read(data.item_info, data.schema.items, data.features)
    counts = count_clicks(data.train, data.schema.clicks, data.num_items)
    inputs = Inputs.of(data, counts, items)
    device, _, country, coupons, seller = inputs.categorical
    assert device.known.tolist() == sorted({row["device"] for row in rows})
    values = [row["country"] for row in rows]
    common = sorted({value for value in values if values.count(value) >= 5})
    assert country.known.tolist() == common
    every = {coupon for row in rows for coupon in row["coupons"]}
    assert coupons.known.tolist() == sorted(every)
    assert (len(seller.known), seller.hash_size) == (0, 4096)
    price = np.array([row["price"] for row in rows if row["price"] is not None], float)
    price = price[~np.isnan(price)]
    assert inputs.numeric.mean[0] == pytest.approx(price.mean())
    assert inputs.numeric.std[0] == pytest.approx(price.std())
    days = np.concatenate([np.array(row["days_ago"], float) for row in rows])
    assert inputs.history_numeric.mean[0] == pytest.approx(np.nanmean(days))
    shown = {row["sku"] for row in rows} | {item for row in rows for item in row["seen"]}
    info = pq.read_table(data.item_info).to_pylist()
    brands = sorted({row["brand"] for row in info if row["sku"] in shown})
    assert inputs.item_categorical[0].known.tolist() == brands
    grams = np.array([row["grams"] for row in info if row["sku"] in shown], float)
    assert inputs.item_numeric.mean[0] == pytest.approx(np.nanmean(grams))
    again = Inputs.restored(json.loads(json.dumps(inputs.sizes())), known_users=None)
    assert [len(column.known) for column in again.categorical] == [
        len(column.known) for column in inputs.categorical
    ]
    assert again.schema == data.schema

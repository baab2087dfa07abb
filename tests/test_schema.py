"""Schemas: plain data and back, and every bad one a sentence before any work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmrec import InputError, Schema
from mmrec.data.microlens import MICROLENS
from mmrec.schema import Categorical, Clicks, Items

SHOP = Schema(
    Clicks(
        history="seen",
        target="sku",
        labels=("click", "buy"),
        categorical=(Categorical("device"), Categorical("seller", min_count=5, hash_size=97)),
        numeric=("price",),
        history_categorical=(Categorical("liked"),),
    ),
    Items("sku", categorical=(Categorical("brand"),), modalities={"image": "clip"}),
)


@pytest.mark.parametrize("schema", [SHOP, MICROLENS])
def test_json_and_back(schema: Schema, tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(schema.to_dict()))
    assert Schema.read(path) == schema


def test_only_what_differs_need_be_written(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    clicks = {"history": "h", "target": "t", "labels": ["y"], "categorical": ["a"]}
    path.write_text(json.dumps({"clicks": clicks, "items": {"id": "t"}}))
    expected = Clicks("h", "t", ("y",), categorical=(Categorical("a"),))
    assert Schema.read(path) == Schema(expected, Items("t"))


def changed(**clicks: Any) -> dict[str, Any]:
    base = {"history": "h", "target": "t", "labels": ["y"]}
    return {"clicks": base | clicks, "items": {"id": "t"}}


def modalities(**columns: Any) -> dict[str, Any]:
    return changed() | {"items": {"id": "t", "modalities": columns}}


TWICE = json.dumps(modalities(image="a", sound="b")).replace("sound", "image")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ("{", "schema.json cannot be read as JSON"),
        (changed(labels=[]), "a schema needs at least one label, got none"),
        (changed(user="t"), "one role, t of clicks is given as target and user"),
        (changed(numeric=["p", "p"]), "one role, p of clicks is given as numeric and numeric"),
        (changed(price="p"), "price"),
        (changed(labels="y"), "labels"),
        (
            changed(categorical=[{"name": "a", "min_count": 0}]),
            "min_count of column a",
        ),
        (changed(categorical=[{"name": "a", "size": 4}]), "size"),
        ({"clicks": changed()["clicks"]}, "items"),
        ([], "schema"),
        (modalities(**{"a b": "x"}), "a modality is called by letters.*got 'a b'"),
        (modalities(type="x"), "not like a member of nn.Module, got 'type'"),
        (modalities(image="v", sound="v"), "of its own, that of sound is 'v', image's vectors"),
        (modalities(image="t"), "of its own, that of image is 't', the id"),
        (modalities(image="has_sound", sound="v"), "that of image is 'has_sound', sound's mask"),
        (modalities(image=""), "of its own, that of image is ''"),
        (modalities(image=3), "modalities.image must be str, got 3"),
        (TWICE, "image is given 2 times in one table"),
    ],
)
def test_a_bad_schema_is_one_sentence(values: Any, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    with pytest.raises(InputError, match=sentence) as error:
        Schema.read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)

"""From files to files: a run's ranker over tomorrow's catalogue, and trained on with its rows."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from shop import SCHEMA, SKUS, make_shop
from shop_training import RECIPE

from mmrec import ClickData, InputError, Inputs, ItemTable, Recipe, build_ranker, describe, fit
from mmrec.cli import run
from mmrec.data.counts import count_clicks
from mmrec.metrics import auc
from mmrec.models import Ranker
from mmrec.models.pretrain import fused_vectors, made_by, pretrained_vectors
from mmrec.predict import continue_ranker, load_ranker, predict, write_sources
from mmrec.predict.__main__ import main
from mmrec.schema import FILE, Clicks, Items, Schema

KEYED = replace(SCHEMA, items=replace(SCHEMA.items, key="code"))
WITH_IDS = RECIPE.changed({"items.id_dim": 4, "context.wide": True, "training.epochs": 1})


@dataclass(frozen=True)
class Opened:
    data: ClickData
    items: ItemTable
    inputs: Inputs

    @classmethod
    def of(cls, root: Path) -> Opened:
        data = ClickData.open(root)
        return cls.over(data, ItemTable.read(data.item_info, data.schema.items, data.features))

    @classmethod
    def over(cls, data: ClickData, items: ItemTable) -> Opened:
        counts = count_clicks(data.train, data.schema.clicks, data.num_items)
        users = None if counts.users is None else torch.from_numpy(counts.users)
        return cls(data, items, Inputs.of(data, counts, items, known_users=users))


def trained(opened: Opened, ranker: Ranker, recipe: Recipe, out: Path) -> Ranker:
    data = opened.data
    fit(
        ranker,
        data.loader("train", batch_size=64, shuffle=True),
        data.loader("valid"),
        config=recipe.training,
        out=out,
        recipe=describe(recipe, opened.inputs),
    )
    return ranker


def fresh(opened: Opened, recipe: Recipe) -> Ranker:
    torch.manual_seed(0)
    return build_ranker(recipe, opened.items, opened.inputs)


def edited(path: Path, to: Path, **columns: Any) -> None:
    table = pq.read_table(path)
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        if place < 0:
            table = table.append_column(name, pa.array(values))
        else:
            table = table.set_column(place, name, pa.array(values, table.schema.field(name).type))
    pq.write_table(table, to)


def renumbered(root: Path, folder: Path, ids: Mapping[int, int]) -> Path:
    """The same items under other ids, in rows, item table and features alike."""
    folder.mkdir()
    for path in root.glob("*.parquet"):
        table, columns = pq.read_table(path), {}
        columns["sku"] = [ids[sku] for sku in table["sku"].to_pylist()]
        if "seen" in table.schema.names:
            columns["seen"] = [[ids[sku] for sku in row] for row in table["seen"].to_pylist()]
        edited(path, folder / path.name, **columns)
    (folder / FILE).write_text((root / FILE).read_text())
    return folder


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data`, and `run/ranker` trained on it."""
    root = tmp_path_factory.mktemp("shop")
    data = make_shop(root / "data", (1500, 400, 200), schema=KEYED)
    edited(data / "item_info.parquet", data / "item_info.parquet", code=codes(range(SKUS)))
    opened = Opened.of(data)
    trained(opened, fresh(opened, WITH_IDS), WITH_IDS, root / "run" / "ranker")
    write_sources(root / "run" / "ranker", data=data, features=data / "features.parquet")
    return root


def codes(skus: Any) -> list[str]:
    return [f"c-{sku}" for sku in skus]


def command(monkeypatch: pytest.MonkeyPatch, out: Path, *words: object) -> pd.DataFrame:
    monkeypatch.setattr(sys, "argv", ["predict", *map(str, words), "--out", str(out)])
    run(main)
    return pd.read_csv(out / "prediction.csv")


def test_rows_and_an_item_table_are_enough(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under other ids, without train or valid; the features of training are remembered."""
    whole = command(monkeypatch, tmp_path / "a", shop / "run", "--data", shop / "data")
    assert whole["click"].std() > 0.01
    rows, items = (shop / "data" / f"{name}.parquet" for name in ("test", "item_info"))
    few = command(monkeypatch, tmp_path / "b", shop / "run", "--rows", rows, "--items", items)
    pd.testing.assert_frame_equal(few, whole)

    rng = np.random.default_rng(0)
    order = dict(zip(range(1, SKUS), (1 + rng.permutation(SKUS - 1)).tolist(), strict=True))
    other = renumbered(shop / "data", tmp_path / "other", {0: 0, **order})
    words = ["--rows", other / "test.parquet", "--items", other / "item_info.parquet"]
    moved = command(
        monkeypatch, tmp_path / "c", shop / "run", *words, "--features", other / "features.parquet"
    )
    np.testing.assert_allclose(moved[["click", "buy"]], whole[["click", "buy"]], atol=1e-6)
    # The remembered features are those of the old ids: refused, not taken.
    with pytest.raises(SystemExit):
        command(monkeypatch, tmp_path / "d", shop / "run", *words)
    assert not (tmp_path / "d").exists()


def test_items_without_content_are_counted(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As new items are whose vectors nobody gave: they score, but the user is told."""
    info = pq.read_table(shop / "data" / "item_info.parquet")
    more = pa.concat_tables([info, info.slice(info.num_rows - 2)])
    columns = {"sku": [*range(SKUS + 2)], "code": codes(range(SKUS + 2))}
    pq.write_table(more, tmp_path / "more.parquet")
    edited(tmp_path / "more.parquet", tmp_path / "grown.parquet", **columns)
    command(monkeypatch, tmp_path / "a", shop / "run", "--data", shop / "data")
    before = capsys.readouterr().err
    words = "--rows", shop / "data" / "test.parquet", "--items", tmp_path / "grown.parquet"
    command(monkeypatch, tmp_path / "b", shop / "run", *words)
    said = capsys.readouterr().err
    bare = [int(err.split(" of ")[0].split()[-1]) if err.strip() else 0 for err in (before, said)]
    assert bare[1] == bare[0] + 2
    assert f"of {SKUS + 1} items have no vector of any modality" in said


@pytest.mark.parametrize("words", [[], ["--rows", "a"], ["--data", "a", "--rows", "b"]])
def test_what_is_scored_is_said_in_one_way(
    shop: Path, tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with pytest.raises(SystemExit):
        command(monkeypatch, tmp_path / "out", shop / "run", *words)
    assert "either --data, or --rows with --items" in capsys.readouterr().err


def test_a_key_stands_for_one_item(shop: Path, tmp_path: Path) -> None:
    for names, sentence in (
        (["x", "a", "b", "a", *codes(range(4, SKUS))], "each key stands for one item, got a twice"),
        (["x", None, *codes(range(2, SKUS))], "every item has a key"),
    ):
        edited(shop / "data" / "item_info.parquet", tmp_path / "info.parquet", code=names)
        with pytest.raises(InputError, match=sentence):
            ItemTable.read(tmp_path / "info.parquet", KEYED.items)


@pytest.fixture(scope="module")
def two_stage(shop: Path) -> Path:
    """`pretrained` and `ranker` of a run in two stages; the predictions of its own test."""
    opened, out = Opened.of(shop / "data"), shop / "two"
    recipe = WITH_IDS.changed({"items.pretrain_epochs": 1})
    histories = opened.data.histories("train", batch_size=256)
    vectors = pretrained_vectors(recipe, opened.items, histories, out / "pretrained")
    items = opened.items.with_vectors(vectors, made_by(out / "pretrained"))
    opened = Opened.over(opened.data, items)
    recipe = recipe.with_ready_vectors()
    ranker = trained(opened, fresh(opened, recipe), recipe, out / "ranker")
    np.save(out / "test.npy", predict(ranker, opened.data.loader("test"), device="cpu")[1])
    return out


def test_a_run_in_two_stages_predicts_by_itself(
    shop: Path, two_stage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the raw features, from its fused vectors, and never from vectors that are neither."""
    right = np.load(two_stage / "test.npy")
    raw = command(monkeypatch, tmp_path / "a", two_stage, "--data", shop / "data")
    np.testing.assert_allclose(raw[["click", "buy"]], right, atol=1e-6)
    opened = Opened.of(shop / "data")
    fused = fused_vectors(two_stage / "pretrained", opened.items)
    ready = opened.items.with_vectors(fused)
    _, again = predict(load_ranker(two_stage, ready), opened.data.loader("test"), device="cpu")
    np.testing.assert_allclose(again, right, atol=1e-6)
    names, tables = list(opened.items.vectors), list(opened.items.vectors.values())
    noise = torch.randn(SKUS, fused.shape[1], generator=torch.Generator().manual_seed(0))
    for wrong in (
        opened.items.with_vectors(noise),
        opened.items.with_vectors(fused.flip(0)),
        replace(opened.items, vectors=dict(zip(names, reversed(tables), strict=True))),
    ):
        with pytest.raises(InputError, match="vectors are not those that the ranker was trained"):
            load_ranker(two_stage, wrong)


# A log whose tastes drift: half the items change their mind, some go, some come.
DRIFT = Schema(Clicks("seen", "item", ("click",), user="user"), Items("item", key="code"))
DRIFT_RECIPE = Recipe().changed(
    {
        "items.fusion": None,
        "items.id_dim": 6,
        "interaction.mlp": (16,),
        "interaction.dropout": 0.0,
        "training.epochs": 4,
        "training.learning_rate": 0.01,
        "training.embedding_weight_decay": 0.0,
        "training.progress": False,
        "training.device": "cpu",
    }
)


def drifting(folder: Path, numbers: list[int], liking: np.ndarray, seed: int, rows: int) -> Path:
    """A day's data: each item clicked as it is liked that day."""
    folder.mkdir()
    rng, ids = np.random.default_rng(seed), np.arange(len(numbers) + 1)
    names = ["", *(f"item {number}" for number in numbers)]
    pq.write_table(pa.table({"item": ids, "code": names}), folder / "item_info.parquet")
    for split, count in (("train", rows), ("valid", 600), ("test", 2000)):
        place = rng.integers(1, len(ids), count)
        chance = 1 / (1 + np.exp(-liking[np.array(numbers)[place - 1]]))
        table = {"seen": list(rng.integers(1, len(ids), (count, 3))), "item": place}
        table |= {"user": rng.integers(0, 50, count), "click": rng.random(count) < chance}
        table["click"] = table["click"].astype(np.int8)
        pq.write_table(pa.table(table), folder / f"{split}.parquet")
    (folder / FILE).write_text(json.dumps(DRIFT.to_dict()))
    return folder


def area(ranker: Ranker, data: ClickData) -> float:
    label = pq.read_table(data.test)["click"].to_numpy()
    return auc(label, predict(ranker, data.loader("test"), device="cpu")[1])


def test_training_on_beats_the_stale_ranker_where_tastes_drift(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first = rng.choice([-1.5, 1.5], 60)
    later = np.where(rng.random(60) < 0.5, -first, first)
    one = Opened.of(drifting(tmp_path / "one", list(range(50)), first, 1, 4000))
    stale = trained(one, fresh(one, DRIFT_RECIPE), DRIFT_RECIPE, tmp_path / "run one")
    assert area(stale, one.data) > 0.7
    living = [int(number) for number in rng.permutation(np.arange(5, 60))]
    two = Opened.of(drifting(tmp_path / "two", living, later, 2, 1500))
    stale = load_ranker(tmp_path / "run one", two.items, two.data)

    def go_on(start: Path, out: Path) -> Ranker:
        ranker, told = continue_ranker(start, two.items, two.data, two.inputs)
        return trained(replace(two, inputs=told), ranker, DRIFT_RECIPE, out)

    ahead = go_on(tmp_path / "run one", tmp_path / "run two")
    assert area(ahead, two.data) > area(stale, two.data) + 0.1
    again = load_ranker(tmp_path / "run two", two.items, two.data)
    assert area(again, two.data) == pytest.approx(area(ahead, two.data), abs=1e-6)
    # The same call resumes; from another start it is another run.
    assert area(go_on(tmp_path / "run one", tmp_path / "run two"), two.data) == pytest.approx(
        area(ahead, two.data), abs=1e-6
    )
    with pytest.raises(InputError, match="made with another recipe"):
        go_on(tmp_path / "run two", tmp_path / "run two")

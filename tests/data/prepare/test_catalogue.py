"""Items: captions, tags, pictures, and what is odd about a table of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from preparing import LOG, START, events, names, rows, run

from mmrec import ClickData, ItemTable
from mmrec.data.prepare import Catalogue, Prepared
from mmrec.errors import InputError

ITEMS = pl.DataFrame(
    {
        "item": ["i3", "i1", "i0", "i2", "i4"],
        "name": ["  A\n pan ", None, "Pot", "", "Lid"],
        "about": ["for eggs", "of iron", None, None, ""],
        "shelf": ["Home|Kitchen|Pans", "Home", None, "Home|Garden", "Home|Kitchen"],
        "words": [["red", "new"], [], None, ["red"], ["old", ""]],
        "brand": ["x", None, "y", "x", "z"],
        "grams": [12.5, None, 3.0, -1.0, 0.0],
    }
)
ASKED = Catalogue(
    title="name",
    description="about",
    category_path="shelf",
    tags="words",
    categorical=("brand:min=2",),
    numeric=("grams",),
)


def table(made: Prepared, name: str = "item_info") -> dict[str, dict[str, Any]]:
    """Rows by key."""
    found = pq.read_table(made.root / f"{name}.parquet").to_pylist()
    return {row["item_key"]: row for row in found}


def test_words_become_captions_and_tags(tmp_path: Path) -> None:
    made = run(tmp_path, events(), ITEMS, catalogue=ASKED)
    feature, info = table(made, "item_feature"), table(made)
    captions = {key: row["caption"] for key, row in feature.items()}
    assert captions == {
        "i0": "Pot",
        "i1": "Home. of iron",
        "i2": "red. Home, Garden",
        "i3": "A pan. red, new. Home, Kitchen, Pans. for eggs",
        "i4": "Lid. old. Home, Kitchen",
    }
    assert feature["i1"]["title"] == ""
    tags = names(made, "tag")
    assert {key: [tags[tag] for tag in row["tags"]] for key, row in info.items()} == {
        "i0": [],
        "i1": ["Home"],
        "i2": ["red", "Home", "Home > Garden"],
        "i3": ["red", "new", "Home", "Home > Kitchen", "Home > Kitchen > Pans"],
        "i4": ["old", "Home", "Home > Kitchen"],
    }
    brands = names(made, "item_brand")
    assert [brands[info[f"i{n}"]["brand"]] for n in range(5)] == ["y", None, "x", "x", "z"]
    assert [info[f"i{n}"]["grams"] for n in range(5)] == [3.0, None, -1.0, 12.5, 0.0]
    assert [row["item"] for row in info.values()] == [1, 2, 3, 4, 5]
    data = ClickData.open(made.root)
    items = ItemTable.read(data.item_info, data.schema.items)
    assert items.keys is not None
    assert items.keys.to_pylist() == ["", "i0", "i1", "i2", "i3", "i4"]
    assert data.schema.items.categorical[0].min_count == 2


def test_unknown_items_are_kept_dropped_or_refused(tmp_path: Path) -> None:
    few = ITEMS.filter(pl.col("item") != "i4")
    kept = run(tmp_path, events(), few, catalogue=ASKED, name="kept")
    assert "1 item of the log is missing from the items' file" in kept.report
    assert table(kept)["i4"] == {
        "item": 5, "item_key": "i4", "tags": [], "brand": 0, "grams": None
    }  # fmt: skip
    dropped = run(tmp_path, events(), few, catalogue=ASKED, name="dropped", unknown_items="drop")
    assert {row["item"] for row in rows(dropped)} == {"i0", "i1", "i2", "i3"}
    assert len(rows(dropped)) == 32
    with pytest.raises(InputError, match=r"every item of the log stands in .*, i4 and 0 others do"):
        run(tmp_path, events(), few, catalogue=ASKED, name="refused", unknown_items="refuse")


def test_odd_tables_are_told_of(tmp_path: Path) -> None:
    odd = pl.concat([ITEMS, ITEMS[:1].with_columns(name=pl.lit("again"))])
    odd = pl.concat([odd, ITEMS[:2].with_columns(item=pl.Series([None, "never"]))])
    made = run(tmp_path, events(), odd, catalogue=ASKED)
    for line in (
        "1 item has no key, left out",
        "1 item stands there again, the first row counts",
        "1 item is in no event",
    ):
        assert line in made.report
    assert table(made, "item_feature")["i3"]["title"] == "A pan"
    bad = ITEMS.with_columns(grams=pl.Series(["1", "2", "x", "4", ""]))
    with pytest.raises(InputError, match=r"numbers are finite, .*'x' in .*, column grams, row 2$"):
        run(tmp_path, events(), bad, catalogue=ASKED, name="bad")
    with pytest.raises(InputError, match=r"a column size is needed \(numeric\)"):
        run(tmp_path, events(), ITEMS, catalogue=replace(ASKED, numeric=("size",)), name="bad")


def pictures(made: Prepared) -> dict[str, str]:
    """What the picture of each item holds, and its suffix."""
    items, found = names(made, "item"), {}
    for path in (made.root / "item_images").iterdir():
        found[items[int(path.stem)] or ""] = f"{path.read_text()}{path.suffix}"
    return found


def test_pictures_by_path_template_and_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "shots"
    folder.mkdir()
    for name in ("i0.jpg", "i3.PNG", "b.webp", "noext"):
        (folder / name).write_text(name)
    some = ITEMS.select(
        "item", picture=pl.Series(["gone.jpg|i3.PNG|b.webp", "noext", None, "", "x"])
    )
    asked = Catalogue(image="picture", image_folder=str(folder))
    made = run(tmp_path, events(), some, catalogue=asked)
    assert pictures(made) == {"i3": "i3.PNG.png", "i1": "noext.jpg"}
    assert "pictures: 2 placed, 3 items without" in made.report
    assert "1 more picture of items that have one already, left out" in made.report
    lists = some.with_columns(picture=pl.col("picture").str.split("|"))
    assert pictures(run(tmp_path, events(), lists, catalogue=asked, name="b")) == pictures(made)
    by_key = replace(asked, image="{item}.jpg")
    made = run(tmp_path, events(), some, catalogue=by_key, name="c", images="symlink")
    assert pictures(made) == {"i0": "i0.jpg.jpg"}
    empty = tmp_path / "empty"
    empty.mkdir()
    made = run(
        tmp_path, events(), some, catalogue=replace(asked, image_folder=str(empty)), name="none"
    )
    assert f"3 items name pictures, and none of them is there: looked in {empty}" in made.report
    nope = replace(asked, image_folder=str(tmp_path / "nope"))
    with pytest.raises(InputError, match=r"the image folder must be there, there is no .*/nope$"):
        run(tmp_path, events(), some, catalogue=nope, name="nope")
    assert not list(tmp_path.glob("*nope*"))
    stored = some.with_columns(picture=pl.Series([b"one", None, b"two", b"", None]))
    made = run(tmp_path, events(), stored, catalogue=replace(asked, image="picture"), name="d")
    assert pictures(made) == {"i3": "one.jpg", "i0": "two.jpg"}
    made = run(tmp_path, events(), some, catalogue=asked, name="e", images="none")
    assert ClickData.open(made.root).images is None


def test_items_alone_by_their_names(tmp_path: Path) -> None:
    made = run(tmp_path, events())
    assert list(table(made)["i0"]) == ["item", "item_key"]
    assert not (made.root / "item_feature.parquet").exists()
    assert ClickData.open(made.root).schema.items.title is None
    other = ITEMS.rename({"item": "sku"})
    made = run(tmp_path, events(), other, catalogue=replace(ASKED, id="sku"), name="other")
    assert sorted(table(made)) == ["i0", "i1", "i2", "i3", "i4"]
    assert LOG.time == "time"
    assert rows(made)[0]["time"] == START

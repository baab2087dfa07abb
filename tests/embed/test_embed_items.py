"""Reading the items file: list types, folders, and one sentence for each mistake."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmrec import InputError
from mmrec.embed import Captions
from mmrec.embed.items import read_items, stored_bytes
from mmrec.io.pictures import find_pictures


def _write(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def _read(path: Path, **options: object):  # type: ignore[no-untyped-def]
    options.setdefault("images", None)
    return read_items(path, captions=Captions(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.int64()), pa.large_list(pa.int32()), pa.list_(pa.int16(), 2),
        pa.list_(pa.string()),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ids", [pa.int64(), pa.int32(), pa.uint16()])
def test_any_list_and_integer_type(kind: pa.DataType, ids: pa.DataType, tmp_path: Path) -> None:
    text = pa.types.is_string(kind.value_type)
    tags = [["4", "9"], ["", "7"]] if text else [[4, 9], [0, 7]]
    path = _write(
        tmp_path / "i.parquet",
        item_id=pa.array([7, 2], ids),
        item_title=pa.array(["a", None], pa.large_string()),
        item_tags=pa.array(tags, kind),
        extra=[1.0, 2.0],
    )
    items = _read(path)
    assert items.ids.tolist() == [7, 2]
    assert items.captions == ["a #4 #9", "#7"]


def test_titles_or_tags_alone_will_do(tmp_path: Path) -> None:
    path = _write(tmp_path / "t.parquet", item_id=[1], item_title=["a"])
    assert _read(path).captions == ["a"]
    path = _write(tmp_path / "g.parquet", item_id=[1], item_tags=[[5]])
    assert _read(path).captions == ["#5"]


def test_both_folder_layouts_and_other_suffixes(tmp_path: Path) -> None:
    for name in ["1.jpg", "2.PNG", "3.jpeg", "3.webp", "04.jpg", "x5.jpg", "6.txt", "７.jpg"]:
        (tmp_path / name).touch()
    names = {item_id: Path(path).name for item_id, path in find_pictures(tmp_path).items()}
    assert names == {1: "1.jpg", 2: "2.PNG", 3: "3.jpeg", 4: "04.jpg"}
    (tmp_path / "item_images").mkdir()
    (tmp_path / "item_images" / "6.jpg").touch()
    assert find_pictures(tmp_path) == {6: str(tmp_path / "item_images" / "6.jpg")}


@pytest.mark.parametrize(
    ("columns", "rule"),
    [
        ({"id": [1]}, "one column item_id is needed"),
        ({"item_id": [1]}, "column item_title or item_tags is needed"),
        ({"item_id": [1.5], "item_title": ["a"]}, "integers are needed, got double .* item_id"),
        ({"item_id": [1, None], "item_title": ["a", "b"]}, "got null .* item_id, row 1"),
        ({"item_id": [1, 0], "item_title": ["a", "b"]}, "at least 1 .* got 0 .* item_id, row 1"),
        (
            {"item_id": pa.array([1, 2**63 + 5], pa.uint64()), "item_title": ["a", "b"]},
            "got 9223372036854775813 .* row 1",
        ),
        (
            {"item_id": [3, 4, 3], "item_title": list("abc")},
            "stands once, got 3 a second time .*, row 2",
        ),
        ({"item_id": [1], "item_title": [7]}, "strings are needed, got int64 .* item_title"),
        ({"item_id": [1], "item_tags": [7]}, "lists of integers or strings .* int64 .* item_tags"),
        ({"item_id": [1], "item_tags": [[0.5]]}, "lists of integers or strings are needed"),
    ],
)
def test_mistakes_name_the_rule_and_the_file(
    columns: dict[str, object], rule: str, tmp_path: Path
) -> None:
    path = _write(tmp_path / "bad.parquet", **columns)
    with pytest.raises(InputError, match=rule) as caught:
        _read(path)
    assert str(path) in str(caught.value)


def test_files_that_are_no_items(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a parquet file is needed, there is none"):
        _read(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(InputError, match=r"a parquet file is needed, .* cannot be read"):
        _read(tmp_path / "text.parquet")
    empty = _write(tmp_path / "e.parquet", item_id=pa.array([], pa.int64()), item_title=[])
    with pytest.raises(InputError, match="at least one row is needed"):
        _read(empty)
    good = _write(tmp_path / "g.parquet", item_id=[1], item_title=["a"])
    with pytest.raises(InputError, match="images folder cannot be listed"):
        _read(good, images=tmp_path / "nowhere")
    with pytest.raises(InputError, match="one column cover is needed"):
        _read(good, image_column="cover")
    with pytest.raises(InputError, match="picture bytes or file names are needed, got int64"):
        _read(good, image_column="item_id")


@pytest.mark.parametrize("rows_per_group", [1, 7, 100])
def test_stored_bytes_are_the_asked_rows(rows_per_group: int, tmp_path: Path) -> None:
    data = [None if i % 11 == 5 else bytes([i]) for i in range(60)]
    path = tmp_path / "b.parquet"
    pq.write_table(pa.table({"image": data}), path, row_group_size=rows_per_group)
    for start, stop in [(0, 60), (0, 1), (13, 29), (59, 60), (20, 21), (7, 14)]:
        for step in (1, 4, 16, 64):
            parts = list(stored_bytes(path, "image", start, stop, step))
            assert [value for part in parts for value in part] == data[start:stop]
            assert all(len(part) == step for part in parts[:-1])


def test_a_folder_without_a_picture_of_any_item_says_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    pq.write_table(pa.table({"item_id": [1, 2], "item_title": ["a", "b"]}), path)
    folder = tmp_path / "pictures"
    (folder / "small").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "small/77.jpg"):
        (folder / name).touch()
    sentence = r"none of the 2 items has one in .*pictures, which holds a\.jpg, b\.jpg, small/$"
    with pytest.raises(InputError, match=sentence):
        _read(path, images=folder)


def test_a_struct_without_bytes_names_its_file(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    pictures = [{"bytes": b"x", "path": "a.jpg"}, {"bytes": None, "path": "b.jpg"}, None]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = {"item_id": [1, 2, 3], "item_title": ["a", "b", "c"], "pic": pa.array(pictures, kind)}
    pq.write_table(pa.table(table), path)
    (part,) = _read(path, images=None, image_column="pic").sources(0, 3, 5)
    assert part == [(0, b"x"), (1, str(tmp_path / "b.jpg")), (2, None)]

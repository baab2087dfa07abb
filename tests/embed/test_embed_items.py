"""Reading the items file: list types, folders, and one sentence for each mistake."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmrec import InputError
from mmrec.embed import Captions
from mmrec.embed.items import find_pictures, read_items, stored_bytes


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
    found = find_pictures(tmp_path, [1, 2, 3, 4, 5, 6, 7])
    names = [None if path is None else Path(path).name for path in found]
    assert names == ["1.jpg", "2.PNG", "3.jpeg", "04.jpg", None, None, None]
    (tmp_path / "item_images").mkdir()
    (tmp_path / "item_images" / "6.jpg").touch()
    assert find_pictures(tmp_path, [1, 6]) == [None, str(tmp_path / "item_images" / "6.jpg")]


@pytest.mark.parametrize(
    ("columns", "rule"),
    [
        ({"id": [1]}, "must have a column 'item_id'"),
        ({"item_id": [1]}, "must have 'item_title' or 'item_tags'"),
        ({"item_id": [1.5], "item_title": ["a"]}, "'item_id' must be integers, got double"),
        ({"item_id": [1, None], "item_title": ["a", "b"]}, "nulls, got one in row 1"),
        ({"item_id": [1, 0], "item_title": ["a", "b"]}, "at least 1 .* got 0 in row 1"),
        ({"item_id": [3, 4, 3], "item_title": list("abc")}, "stand once, got rows 0 and 2"),
        ({"item_id": [1], "item_title": [7]}, "'item_title' must hold text, got int64"),
        ({"item_id": [1], "item_tags": [7]}, "must be lists of integers or text, got int64"),
        ({"item_id": [1], "item_tags": [[0.5]]}, "must be lists of integers or text"),
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
    with pytest.raises(InputError, match="must exist"):
        _read(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(InputError, match="must be parquet"):
        _read(tmp_path / "text.parquet")
    empty = _write(tmp_path / "e.parquet", item_id=pa.array([], pa.int64()), item_title=[])
    with pytest.raises(InputError, match=r"must hold text|at least one item"):
        _read(empty)
    good = _write(tmp_path / "g.parquet", item_id=[1], item_title=["a"])
    with pytest.raises(InputError, match="images folder cannot be listed"):
        _read(good, images=tmp_path / "nowhere")
    with pytest.raises(InputError, match="no column 'cover'"):
        _read(good, image_column="cover")
    with pytest.raises(InputError, match="bytes or file names, got int64"):
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

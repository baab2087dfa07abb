"""Opening a data set: every list type, width and folder layout, and every missing piece."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mmrec.data.batches import ToBatch
from mmrec.data.clicks import ClickData
from mmrec.data.items import ItemTable
from mmrec.data.microlens import MICROLENS
from mmrec.errors import InputError

Writer = Callable[..., Path]
LISTS = ["list", "large_list", "fixed_size_list"]
WIDTHS = [
    (pa.int64(), pa.float64()),
    (pa.int32(), pa.float32()),
    (pa.int8(), pa.float16()),
    (pa.uint64(), pa.float16()),
]


@pytest.mark.parametrize("lists", LISTS)
@pytest.mark.parametrize(("integer", "floating"), WIDTHS)
def test_every_list_type_and_width_opens_alike(
    write_microlens: Writer, lists: str, integer: pa.DataType, floating: pa.DataType
) -> None:
    data = ClickData.open(write_microlens(lists=lists, integer=integer, floating=floating))
    assert (data.num_items, data.widths) == (13, {"item_seq": 5})
    assert data.rows == {"train": 23, "valid": 7, "test": 11}
    assert data.schema == MICROLENS
    assert data.row_ids().tolist() == list(range(11))
    same = ClickData.open(write_microlens(name="same"))
    assert data.features is not None
    assert same.features is not None
    table = ItemTable.read(data.item_info, MICROLENS.items, data.features)
    plain = ItemTable.read(same.item_info, MICROLENS.items, same.features)
    assert torch.equal(table.tags, plain.tags)
    for name in ("image", "text"):
        assert torch.equal(table.vectors[name], plain.vectors[name])
        assert torch.equal(table.present[name], plain.present[name])


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("images", ["flat", "nested"])
def test_both_folder_layouts(write_microlens: Writer, nested: bool, images: str) -> None:
    root = write_microlens(nested=nested, images=images)
    data = ClickData.open(root)
    clicks = root / "MicroLens_1M_x1" if nested else root
    folder = root / "item_images" / ("item_images" if images == "nested" else "")
    assert (data.train, data.item_info) == (clicks / "train.parquet", clicks / "item_info.parquet")
    assert data.item_feature == root / "item_feature.parquet"
    assert data.images == folder


def test_the_click_folder_itself_may_be_opened(write_microlens: Writer) -> None:
    root = write_microlens(images="flat")
    data = ClickData.open(root / "MicroLens_1M_x1")
    assert data.features == root / "features.parquet"
    assert data.images == root / "item_images"


def test_optional_files_may_be_absent(write_microlens: Writer) -> None:
    root = write_microlens(titles=False, features=False, embedding=False, padding_row=False)
    data = ClickData.open(root)
    assert data.num_items == 13
    assert (data.item_feature, data.features, data.images) == (None, None, None)


def test_features_may_be_a_directory_of_shards(write_microlens: Writer) -> None:
    root = write_microlens()
    whole = pq.read_table(root / "features.parquet")
    info = root / "MicroLens_1M_x1/item_info.parquet"
    expected = ItemTable.read(info, MICROLENS.items, root / "features.parquet")
    (root / "features.parquet").unlink()
    (root / "features.parquet").mkdir()
    for number, start in enumerate(range(0, whole.num_rows, 5)):
        pq.write_table(whole.slice(start, 5), root / "features.parquet" / f"{number:03}.parquet")
    data = ClickData.open(root)
    assert data.features is not None
    table = ItemTable.read(data.item_info, MICROLENS.items, data.features)
    assert torch.equal(table.vectors["image"], expected.vectors["image"])


@pytest.mark.parametrize("name", ["train", "valid", "test", "item_info"])
def test_a_missing_file_is_named(write_microlens: Writer, name: str) -> None:
    root = write_microlens()
    (root / "MicroLens_1M_x1" / f"{name}.parquet").unlink()
    with pytest.raises(InputError, match=rf"^{name}\.parquet is needed, there is none in .*_x1$"):
        ClickData.open(root)


def test_a_wrong_root_is_one_sentence(tmp_path: Path, write_microlens: Writer) -> None:
    with pytest.raises(InputError, match=r"there is none at .*/nowhere$"):
        ClickData.open(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"are needed in .*/empty or in .*, found nothing$"):
        ClickData.open(tmp_path / "empty")
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "ratings.csv").touch()
    with pytest.raises(InputError, match=r"found ratings\.csv$"):
        ClickData.open(tmp_path / "wrong")
    with pytest.raises(InputError, match=r"is a file$"):
        ClickData.open(write_microlens() / "features.parquet")


def test_a_file_that_is_no_parquet(write_microlens: Writer) -> None:
    root = write_microlens()
    train = root / "MicroLens_1M_x1" / "train.parquet"
    train.write_text("user_id,item_id\n1,2\n")
    with pytest.raises(InputError, match=r"train\.parquet cannot be read as one: "):
        ClickData.open(root)
    train.unlink()
    train.mkdir()
    with pytest.raises(InputError, match=r"train\.parquet is a directory"):
        ClickData.open(root)


def test_a_damaged_file_is_named(write_microlens: Writer) -> None:
    root = write_microlens()
    train = root / "MicroLens_1M_x1" / "train.parquet"
    content = bytearray(train.read_bytes())
    content[4 : len(content) // 3] = b"\xff" * (len(content) // 3 - 4)  # the footer stays whole
    train.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"train\.parquet"):
        ClickData.open(root)


def test_titles_are_checked(write_microlens: Writer) -> None:
    root = write_microlens()
    path = root / "item_feature.parquet"
    table = pq.read_table(path)
    cases = {
        r"item ids lie in 1\.\.12 .*, got 13 .*column item_id, row 2$": ("item_id", 13),
        r"each item stands in one row, got 1 a .*column item_id, row 2$": ("item_id", 1),
        r"tags are 0 or more, got -1 .*column item_tags, row 2$": ("item_tags", [4, -1]),
    }
    for sentence, (column, value) in cases.items():
        values = table[column].to_pylist()
        values[2] = value
        place = table.schema.get_field_index(column)
        changed = pa.array(values, table.schema.field(column).type)
        pq.write_table(table.set_column(place, column, changed), path)
        with pytest.raises(InputError, match=sentence):
            ClickData.open(root)


def test_values_are_not_looked_at_when_told(write_microlens: Writer) -> None:
    root = write_microlens()
    shutil.copy(root / "MicroLens_1M_x1/train.parquet", root / "MicroLens_1M_x1/valid.parquet")
    table = pq.read_table(root / "MicroLens_1M_x1/train.parquet")
    place = table.schema.get_field_index("label")
    table = table.set_column(place, "label", pa.array([7] * table.num_rows))
    pq.write_table(table, root / "MicroLens_1M_x1/train.parquet")
    with pytest.raises(InputError, match="labels are 0 or 1, got 7"):
        ClickData.open(root)
    data = ClickData.open(root, check=False)
    assert (data.widths, data.num_items) == ({"item_seq": 5}, 13)


def test_columns_to_a_batch() -> None:
    collate = ToBatch(MICROLENS.clicks, ("item_seq",))
    columns = {
        name: torch.arange(3) + 10 * place
        for place, name in enumerate(
            ["user_id", "item_id", "likes_level", "views_level", "label", "row"]
        )
    }
    columns["label"] = columns["label"].float()
    columns["item_seq"] = torch.arange(6).reshape(3, 2)
    assert set(collate.columns) == set(columns) - {"row"}
    batch = pickle.loads(pickle.dumps(collate))(columns)  # data loader workers need it so
    assert torch.equal(batch.user, columns["user_id"])
    assert torch.equal(batch.history, columns["item_seq"])
    assert torch.equal(batch.target, columns["item_id"])
    assert batch.categorical.tolist() == [[20, 30], [21, 31], [22, 32]]
    assert batch.labels.tolist() == [[40.0], [41.0], [42.0]]
    assert torch.equal(batch.row, columns["row"])
    test = ToBatch(MICROLENS.clicks, ("item_seq",), labelled=False)
    assert "label" not in test.columns
    assert test(columns).labels.shape == (3, 0)


def test_an_item_may_have_no_title(write_microlens: Writer) -> None:
    """Half of all real tables have nulls there."""
    root = write_microlens()
    path = root / "item_feature.parquet"
    table = pq.read_table(path)
    titles = pa.array([None, "", *table["item_title"].to_pylist()[2:]])
    place = table.schema.get_field_index("item_title")
    pq.write_table(table.set_column(place, "item_title", titles), path)
    assert ClickData.open(root).item_feature == path


def test_rows_that_shuffle_badly_are_repacked_once(
    write_microlens: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_microlens()
    data = ClickData.open(root)
    assert data.pack(tmp_path / "packed") is data  # few rows are shuffled whole
    train = pq.read_table(data.train)
    pq.write_table(pa.concat_tables([train] * 20_000), data.train, row_group_size=1 << 19)
    data = ClickData.open(root).pack(tmp_path / "packed")
    assert "repacking train.parquet" in capsys.readouterr().out
    written = {path: path.stat().st_mtime_ns for path in data.packed["train"].iterdir()}
    again = ClickData.open(root).pack(tmp_path / "packed")
    assert {path: path.stat().st_mtime_ns for path in again.packed["train"].iterdir()} == written
    rows = torch.cat([batch.row for batch in data.loader("train", shuffle=True)])
    assert torch.equal(rows.sort().values, torch.arange(data.rows["train"]))
    batch = next(iter(data.loader("train", batch_size=23)))
    assert batch.user.tolist() == train["user_id"].to_pylist()

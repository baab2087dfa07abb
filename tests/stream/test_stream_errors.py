"""Every fault of a file raises, and the sentence names file, column and row, or row group."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from slow_variants import thorough

from mmrec.errors import InputError
from mmrec.stream.repack import repack
from mmrec.stream.stream import ParquetStream

NULL = "every value must be there, got null"
NULL_IN_LIST = "every value of a list must be there, got null"
TOO_LARGE = f"integers are at most {2**63 - 1}"


def write(path: Path, columns: dict[str, Any], group: int = 10, **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=group, **options)
    return path


def read_all(paths: Any, **options: Any) -> list[dict[str, torch.Tensor]]:
    return list(ParquetStream(paths, **{"batch_size": 8, **options}))


def numbers(rows: int = 40) -> dict[str, Any]:
    random_numbers = np.random.default_rng(1).integers(0, 1 << 40, size=rows)
    return {"n": pa.array(np.arange(rows)), "big": pa.array(random_numbers)}


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (pa.array([1] * 33 + [None] * 7), NULL),
        (pa.array([[1, 2]] * 33 + [None] * 7), NULL),
        (pa.array([[1, 2]] * 33 + [[1, None]] * 7), NULL_IN_LIST),
        (pa.array([[1, 2]] * 33 + [[1, None]] * 7, pa.list_(pa.int8(), 2)), NULL_IN_LIST),
        (pa.array([[1]] * 20 + [[]] * 13 + [[None]] * 7), NULL_IN_LIST),
        (pa.array([1] * 33 + [2**64 - 1] * 7, pa.uint64()), f"{TOO_LARGE}, got {2**64 - 1}"),
        (pa.array([[1, 2]] * 33 + [[3, 2**63]] * 7, pa.list_(pa.uint64())), f"{TOO_LARGE}, got"),
        (
            pa.array([[1, 2]] * 33 + [[3]] * 7),
            "the first row's, here 2, got a list of 1",
        ),
    ],
)
@pytest.mark.parametrize("shuffle", [False, True])
def test_values_that_are_no_tensors(
    tmp_path: Path, column: pa.Array, reason: str, shuffle: bool
) -> None:
    path = write(tmp_path / "a.parquet", {"good": pa.array(range(40)), "bad": column})
    widths = {"bad": 2} if reason == NULL_IN_LIST else None
    place = r".* in \S*/a\.parquet, column bad, row 33$"
    with pytest.raises(InputError, match=re.escape(reason) + place):
        read_all(path, list_widths=widths, shuffle=shuffle, window=80)


def test_columns_that_are_no_tensors(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"title": pa.array(["x", "y"])})
    with pytest.raises(InputError, match=r"'title' of .*a\.parquet is string.*columns="):
        read_all(path)
    path = write(tmp_path / "b.parquet", {"row": pa.array([1, 2])})
    with pytest.raises(InputError, match="'row' holds the row numbers"):
        read_all(path)


def test_files_that_disagree(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"n": pa.array([1]), "m": pa.array([1])})
    write(tmp_path / "b.parquet", {"n": pa.array([[1]]), "m": pa.array([1])})
    with pytest.raises(InputError, match=r"'n' holds integers in .*a\.parquet and lists of .*b\."):
        read_all(tmp_path)
    write(tmp_path / "b.parquet", {"n": pa.array([1])})
    with pytest.raises(InputError, match=r"one column m is needed, got 0 .* of .*b\.parquet: n$"):
        read_all(tmp_path)


@pytest.mark.parametrize("paths", ["none.parquet", "*.nothing", "", "file://none"])
def test_paths_that_match_nothing(tmp_path: Path, paths: str) -> None:
    path = paths.replace("none", f"{tmp_path}/none") if paths else str(tmp_path)
    with pytest.raises(InputError, match=r"match at least one parquet file, but .* matches none"):
        read_all(path)
    with pytest.raises(InputError, match="got an empty list"):
        read_all([])
    with pytest.raises(InputError, match=r"nosuch://x\.parquet cannot be opened"):
        read_all("nosuch://x.parquet")


@pytest.mark.parametrize("keep", [0, 3, 11, 0.5, -1, -9])
def test_cut_off_files(tmp_path: Path, keep: float) -> None:
    path = write(tmp_path / "a.parquet", numbers())
    content = path.read_bytes()
    length = int(len(content) * keep) if isinstance(keep, float) else keep
    path.write_bytes(content[:length])
    with pytest.raises(InputError, match=r"a\.parquet .*with a footer.*cut off"):
        read_all(path)


def test_a_footer_that_points_past_the_data(tmp_path: Path) -> None:
    """The middle of a file is missing: its end, and so its footer, is whole."""
    path = write(tmp_path / "a.parquet", numbers(400), 100, compression="none")
    content = path.read_bytes()
    footer = int.from_bytes(content[-8:-4], "little") + 8
    path.write_bytes(content[:1500] + content[-footer:])
    with pytest.raises(InputError, match=r"a\.parquet is damaged: row group \d, column \w+: "):
        read_all(path)


@pytest.mark.parametrize("shuffle", [False, True])
def test_flipped_bytes_in_a_compressed_page(tmp_path: Path, shuffle: bool) -> None:
    path = write(
        tmp_path / "a.parquet", numbers(4000), 1000, use_dictionary=False, write_page_checksum=True
    )
    content = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(2).column(1)
    content[column.data_page_offset + 300] ^= 16
    path.write_bytes(content)
    place = r"a\.parquet is damaged: row group 2, column big: "
    with pytest.raises(InputError, match=place):
        read_all(path, shuffle=shuffle)


def rewrite(path: Path, other: bytes) -> None:
    path.write_bytes(other)


def replace(path: Path, other: bytes) -> None:
    beside = path.with_suffix(".new")
    beside.write_bytes(other)
    status = path.stat()
    os.replace(beside, path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as `cp -p` or rsync would


def remove(path: Path, other: bytes) -> None:
    path.unlink()


@pytest.mark.parametrize("change", [rewrite, replace, remove])
def test_a_file_replaced_while_it_is_read(
    tmp_path: Path, change: Callable[[Path, bytes], None]
) -> None:
    path = write(tmp_path / "a.parquet", numbers(4000), group=100)
    stream = ParquetStream(path, batch_size=10, window=100)
    batches = iter(stream)
    next(batches)
    change(path, path.read_bytes())
    with pytest.raises(InputError, match=r"a\.parquet was replaced|none .* at .*a\.parquet"):
        list(batches)


def test_a_fault_reaches_through_workers(tmp_path: Path) -> None:
    from mmrec.stream.loader import make_loader

    path = write(tmp_path / "a.parquet", {"n": pa.array([1] * 33 + [None] * 7)})
    with pytest.raises(InputError, match=r"got null in .*a\.parquet, column n, row 33"):
        list(make_loader(ParquetStream(path, batch_size=8), num_workers=1))


@pytest.mark.parametrize("flips", [150, thorough(3000)])
def test_bit_flips_in_a_repacked_file(tmp_path: Path, flips: int) -> None:
    """Each raises, naming the file, or lies in bytes that change no value."""
    make = np.random.default_rng(0)
    rows = 300
    columns = {
        "user": make.integers(0, 10**6, rows),
        "history": pa.array(make.integers(0, 91717, (rows, 7)).tolist()),
        "tags": pa.array([[int(n)] * (int(n) % 4) for n in make.integers(0, 9, rows)]),
        "score": make.random(rows),
        "label": make.integers(0, 2, rows),
    }
    write(tmp_path / "a.parquet", columns, 77)
    repack(tmp_path / "a.parquet", tmp_path / "packed", row_groups=6)
    part = tmp_path / "packed" / "part-00000.parquet"

    def values() -> dict[str, torch.Tensor]:
        batches = read_all(tmp_path / "packed", list_widths={"tags": 4}, batch_size=64)
        return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}

    whole, expected = part.read_bytes(), values()
    choose = random.Random(150)
    raised = 0
    for _ in range(flips):
        place = choose.randrange(8 * len(whole))
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        part.write_bytes(flipped)
        try:
            found = values()
        except InputError as error:
            assert "part-00000.parquet" in str(error)  # noqa: PT017
            raised += 1
            continue
        assert all(torch.equal(found[name], expected[name]) for name in expected), place
    assert raised > 100

    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    part.write_bytes(flipped)
    with pytest.raises(InputError, match=r"part-00000\.parquet does not have the SHA-256"):
        ParquetStream(part, batch_size=8, verify=True)
    part.write_bytes(whole)
    ParquetStream(part, batch_size=8, list_widths={"tags": 4}, verify=True)


def test_without_page_checksums_the_manifest_finds_a_flip_on_demand(tmp_path: Path) -> None:
    from mmrec.io.files import write_json
    from mmrec.io.sources import open_source
    from mmrec.stream.manifest import NAME, describe

    path = write(tmp_path / "a.parquet", numbers(), compression="none", use_dictionary=False)
    entry = describe(open_source(path))
    write_json(tmp_path / NAME, {"format": 1, "files": {"a.parquet": entry}})
    content = bytearray(path.read_bytes())
    at = content.index(int(numbers()["big"][17].as_py()).to_bytes(8, "little"))
    content[at] ^= 1
    path.write_bytes(content)
    read_all(path)  # no page checksums: nothing to notice it by
    with pytest.raises(InputError, match=r"a\.parquet does not have the SHA-256"):
        read_all(path, verify=True)
    (tmp_path / NAME).write_text("[]")
    with pytest.raises(InputError, match=r"manifest\.json is not a manifest"):
        read_all(path)


def test_a_folder_holds_what_its_manifest_lists(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": range(1000)}), tmp_path / "a.parquet")
    folder = tmp_path / "packed"
    repack(tmp_path / "a.parquet", folder, file_rows=300, group_rows=100)
    assert ParquetStream(folder, batch_size=64).num_rows == 1000
    part = folder / "part-00001.parquet"
    assert ParquetStream(part, batch_size=64).num_rows == 300  # asked for alone, it is fine
    stranger = folder / "b.parquet"
    part.rename(stranger)
    with pytest.raises(InputError, match=r"packed lacks part-00001\.parquet, which its _manifest"):
        ParquetStream(folder, batch_size=64)
    stranger.rename(part)
    shutil.copy(tmp_path / "a.parquet", stranger)
    with pytest.raises(InputError, match=r"packed holds b\.parquet, which its _man"):
        ParquetStream([part, folder], batch_size=64)
    stranger.unlink()
    (folder / "more").mkdir()
    shutil.copy(part, folder / "more" / "z.parquet")
    with pytest.raises(InputError, match=r"packed holds more/z\.parquet, which its"):
        ParquetStream(folder, batch_size=64)


def test_hive_columns_are_read_filtered_and_repacked(tmp_path: Path) -> None:
    for day in (1, 2):
        (tmp_path / "in" / f"day={day}").mkdir(parents=True)
        path = tmp_path / "in" / f"day={day}" / "a.parquet"
        pq.write_table(pa.table({"x": [10 * day, 10 * day + 1]}), path)
    (batch,) = ParquetStream(tmp_path / "in", batch_size=9)
    assert batch["day"].tolist() == [1, 1, 2, 2]
    (batch,) = ParquetStream(tmp_path / "in", batch_size=9, row_filter=[("day", "==", 2)])
    assert (batch["x"].tolist(), batch["row"].tolist()) == ([20, 21], [2, 3])
    repack(tmp_path / "in", tmp_path / "out")
    (batch,) = ParquetStream(tmp_path / "out", batch_size=9)
    assert batch["day"].tolist() == [1, 1, 2, 2]


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": range(100)}), tmp_path / "a.parquet")
    three, eight = np.int64(3), np.int32(8)
    path = tmp_path / "a.parquet"
    stream = ParquetStream(path, batch_size=eight, seed=three, shuffle=True, row_filter=[])
    same = ParquetStream(path, batch_size=8, seed=3, shuffle=True)
    assert json.loads(json.dumps(stream.state_dict())) == same.state_dict()
    stream.seek(epoch=np.int64(1), batch=np.int64(2))
    same.seek(epoch=1, batch=2)
    found = [[batch["x"].tolist() for batch in one] for one in (stream, same)]
    assert found[0] == found[1]
    for name, value in (("batch_size", 8.5), ("seed", "3"), ("seed", None), ("window", True)):
        with pytest.raises(InputError, match=f"{name} must be a whole number, got"):
            ParquetStream(path, **{"batch_size": 8, name: value})
    with pytest.raises(InputError, match=r"row_filter must be an expression or .* tuples"):
        ParquetStream(path, batch_size=8, row_filter=[("x", "~", 1)])
    with pytest.raises(InputError, match=r"a state holds epoch, batch and fingerprint, got \{\}"):
        stream.load_state_dict({})


def test_what_float32_cannot_hold_is_named(tmp_path: Path) -> None:
    """Infinity, which it can, is left as it is; ragged lists name the row at fault."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": [1.0, float("inf"), -1e39], "y": [1.0, 2.0, 3.0]}), path)
    with pytest.raises(InputError, match=r"within float32, .*got -1e\+39 in .*column x, row 2$"):
        list(ParquetStream(path, batch_size=9))
    lists = pa.array([[1.0], [], [2.0, 1e300], [3.0]])
    pq.write_table(pa.table({"x": lists}), path)
    with pytest.raises(InputError, match=r"got 1e\+300 in .*column x, row 2$"):
        list(ParquetStream(path, batch_size=9, list_widths={"x": 2}))

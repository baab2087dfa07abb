"""repack: same rows, better files, whole or not there, and a stopped run resumes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mmrec.stream.repack as module
from mmrec.errors import InputError
from mmrec.stream.compact import smallest_integer
from mmrec.stream.repack import group_sizes, repack
from mmrec.stream.stream import ParquetStream


def table(rows: int = 300) -> pa.Table:
    make = np.random.default_rng(2)
    return pa.table(
        {
            "user": pa.array(make.integers(0, 10**6, rows)),
            "history": pa.array(
                make.integers(0, 91717, (rows, 5)).tolist(), pa.large_list(pa.int64())
            ),
            "tags": pa.array([[int(n)] * (int(n) % 4) for n in make.integers(-3, 9, rows)]),
            "level": pa.array(make.integers(0, 11, rows), pa.int32()),
            "byte": pa.array(make.integers(0, 250, rows)),
            "score": pa.array(make.random(rows)),
            "title": pa.array([f"title {n}" for n in range(rows)]),
            "maybe": pa.array([None if n % 7 == 0 else n for n in range(rows)]),
        }
    )


def values(paths: Any) -> list[dict[str, Any]]:
    files = sorted(paths.glob("*.parquet")) if paths.is_dir() else [paths]
    return [row for path in files for row in pq.read_table(path).to_pylist()]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.parquet"
    pq.write_table(table(), path, row_group_size=70)
    return path


def test_same_rows_narrower_types(source: Path, tmp_path: Path) -> None:
    done = repack(source, tmp_path / "out", row_groups=13, file_rows=100)
    assert (done.rows, done.row_groups, done.files) == (300, 13, 4)
    assert values(tmp_path / "out") == values(source)
    schema = pq.read_schema(tmp_path / "out" / "part-00000.parquet")
    kinds = {field.name: str(field.type) for field in schema}
    assert kinds == {
        "user": "int32",
        "history": "fixed_size_list<element: int32 not null>[5]",
        "tags": "list<element: int8 not null>",
        "level": "int8",
        "byte": "uint8",
        "score": "double",
        "title": "string",
        "maybe": "int64",
    }
    assert [field.nullable for field in schema] == [False] * 7 + [True]
    groups = [
        file.metadata.row_group(g).num_rows
        for file in map(pq.ParquetFile, sorted(tmp_path.glob("out/*.parquet")))
        for g in range(file.num_row_groups)
    ]
    assert groups == group_sizes(300, 1, 13)
    assert max(groups) - min(groups) == 1
    manifest = json.loads((tmp_path / "out" / "_manifest.json").read_text())
    assert manifest["rows"] == 300
    assert [entry["rows"] for entry in manifest["files"].values()] == [92, 92, 92, 24]
    assert done.bytes == sum(path.stat().st_size for path in tmp_path.glob("out/*.parquet"))


def test_the_stream_reads_the_same(source: Path, tmp_path: Path) -> None:
    repack(source, tmp_path / "out", list_widths={"tags": 2}, row_groups=13, file_rows=100)
    options: dict[str, Any] = {
        "columns": ["user", "history", "tags", "level", "byte", "score"],
        "list_widths": {"tags": 2},
        "batch_size": 32,
    }
    before, after = ParquetStream(source, **options), ParquetStream(tmp_path / "out", **options)
    for one, other in zip(before, after, strict=True):
        assert all(bool((one[name] == other[name]).all()) for name in one)
    ParquetStream(tmp_path / "out", verify=True, **options)
    assert str(pq.read_schema(tmp_path / "out/part-00000.parquet").field("tags").type) == (
        "fixed_size_list<element: int8 not null>[2]"
    )


def test_every_page_has_a_checksum(source: Path, tmp_path: Path) -> None:
    repack(source, tmp_path / "out", columns=["user"], compression="none", row_groups=2)
    path = tmp_path / "out" / "part-00000.parquet"
    content = bytearray(path.read_bytes())
    content[pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset + 200] ^= 1
    path.write_bytes(content)
    with pytest.raises(OSError, match="CRC checksum"):
        pq.read_table(path, page_checksum_verification=True)


def test_a_stopped_run_resumes(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    whole = tmp_path / "whole"
    options: dict[str, Any] = {"row_groups": 13, "file_rows": 100}
    repack(source, whole, **options)
    written: list[str] = []
    write_file = module._write_file

    def stop_at_third(path: Path, *rest: Any) -> None:
        if len(written) == 2:
            path.write_bytes(b"half a file")
            raise KeyboardInterrupt
        write_file(path, *rest)
        written.append(path.name)

    monkeypatch.setattr(module, "_write_file", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        repack(source, out, **options)
    assert sorted(p.name for p in out.iterdir()) == [
        "_repack.json",
        "part-00000.parquet",
        "part-00001.parquet",
    ]
    (out / ".part-00002.parquet.1.tmp").write_bytes(b"what kill -9 leaves")
    kept = {path: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    again: list[str] = []

    def count(path: Path, *rest: Any) -> None:
        write_file(path, *rest)
        again.append(path.name)

    monkeypatch.setattr(module, "_write_file", count)
    done = repack(source, out, **options)
    assert len(again) == 2  # not the two that were there
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items())
    assert done.rows == 300
    names = {path.name for path in out.iterdir()}
    assert names == {path.name for path in whole.iterdir()}
    for path in whole.glob("*.parquet"):
        assert path.read_bytes() == (out / path.name).read_bytes()
    again.clear()
    assert repack(source, out, **options) == done
    assert again == []


def test_what_lies_on_disk_keeps_its_form(source: Path, tmp_path: Path) -> None:
    """So that directories of the version before are read, and stopped runs of it resumed."""
    out = tmp_path / "out"
    repack(source, out, columns=["user"], row_groups=4, file_rows=100)
    manifest = json.loads((out / "_manifest.json").read_text())
    entries = {"rows", "row_groups", "bytes", "footer_sha256", "sha256"}
    assert (manifest["format"], manifest["columns"]) == (1, {"user": "int32"})
    assert all(set(entry) == entries for entry in manifest["files"].values())
    state = json.loads((out / "_repack.json").read_text())
    assert set(state) == {"request", "schema", "files"}
    assert state["files"] == manifest["files"]
    assert set(state["request"]) == {
        "sources",
        "columns",
        "list_widths",
        "group_rows",
        "row_groups",
        "file_rows",
        "compression",
    }


def test_a_finished_file_that_changed_is_written_again(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    repack(source, out, row_groups=13, file_rows=100)
    (out / "_manifest.json").unlink()
    first = out / "part-00000.parquet"
    content = bytearray(first.read_bytes())
    content[100] ^= 1
    first.write_bytes(content)
    repack(source, out, row_groups=13, file_rows=100)
    assert values(out) == values(source)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"columns": ["nobody"]}, r"one column nobody is needed, got 0 .*source\.parquet"),
        ({"list_widths": {"user": 3}}, "'user', which is no list column"),
        ({"list_widths": {"nobody": 3}}, "nobody=3"),
        ({"list_widths": {"tags": 0}}, "tags=0"),
        ({"group_rows": 0}, "at least 1, got 0"),
    ],
)
def test_wrong_use(source: Path, tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        repack(source, tmp_path / "out", **options)


def test_other_requests_and_strangers_are_refused(source: Path, tmp_path: Path) -> None:
    repack(source, tmp_path / "out", columns=["user"])
    with pytest.raises(InputError, match="another columns"):
        repack(source, tmp_path / "out", columns=["level"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("…")
    with pytest.raises(InputError, match=r"holds \['thesis.txt'\]"):
        repack(source, tmp_path / "mine")
    pq.write_table(table().select(["level", "title"]), tmp_path / "other.parquet")
    with pytest.raises(InputError, match=r"one column user is needed, got 0 .*other\.parquet"):
        repack([source, tmp_path / "other.parquet"], tmp_path / "both")


def test_a_damaged_source_is_named(source: Path, tmp_path: Path) -> None:
    content = bytearray(source.read_bytes())
    column = pq.ParquetFile(source).metadata.row_group(3).column(0)
    content[column.dictionary_page_offset] ^= 255
    source.write_bytes(content)
    with pytest.raises(InputError, match=r"source\.parquet is damaged: row group 3, column user: "):
        repack(source, tmp_path / "out")


def test_no_rows(tmp_path: Path) -> None:
    pq.write_table(table().slice(0, 0), tmp_path / "empty.parquet")
    assert repack(tmp_path / "empty.parquet", tmp_path / "out").rows == 0
    assert len(ParquetStream(tmp_path / "out", batch_size=4, columns=["user"])) == 0


def test_group_sizes() -> None:
    assert len(group_sizes(1_000_000, 4096, None)) % 16 == 0
    assert len(group_sizes(50_000, 4096, None)) == 64
    assert group_sizes(100, 4096, None) == [100]
    assert group_sizes(3, 4096, 64) == [1, 1, 1]
    assert sum(group_sizes(3_600_000, 4096, None)) == 3_600_000


def test_smallest_integer() -> None:
    for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"):
        bounds = np.iinfo(name)
        assert str(smallest_integer(int(bounds.min), int(bounds.max))) == name
    with pytest.raises(ValueError, match="no integer type"):
        smallest_integer(-1, 2**64 - 1)


def test_command_line(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = str(tmp_path / "out")
    arguments = [str(source), "--out", out, "--list-width", "tags=3", "--row-groups"]
    monkeypatch.setattr(sys, "argv", ["repack", *arguments, "13"])
    module.main()
    printed = capsys.readouterr()
    assert "300 rows in 13 row groups of 1 files" in printed.out
    assert printed.err == ""  # a log gets no bar
    wrong = subprocess.run(
        [sys.executable, "-m", "mmrec.stream.repack", *arguments, "14", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(module.__file__).parents[2],
    )
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: ")
    assert wrong.stderr.count("\n") == 1
    with pytest.raises(InputError, match="a folder is needed to write to"):
        repack(source, source / "out")
    monkeypatch.setattr(sys, "argv", ["repack", *arguments[:3], "--list-width", "tags"])
    with pytest.raises(SystemExit, match="2"):
        module.main()


def test_other_programs_read_the_folder(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": range(1000)}), tmp_path / "a.parquet")
    repack(tmp_path / "a.parquet", tmp_path / "out", file_rows=300, group_rows=100)
    assert pd.read_parquet(tmp_path / "out")["x"].tolist() == list(range(1000))
    assert pq.read_table(tmp_path / "out").num_rows == 1000
    assert len(pl.scan_parquet(tmp_path / "out", hidden_file_prefix="_").collect()) == 1000

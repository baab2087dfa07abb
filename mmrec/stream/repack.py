"""Rewrite parquet for streaming: even row groups, narrow types, page checksums, a manifest.

    python -m mmrec.stream.repack train.parquet --out train_packed --list-width item_seq=100

The rows and their order stay the same. Output files appear whole or not at all; when the command is
stopped, the same command goes on with the first file that is missing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from mmrec.cli import run
from mmrec.errors import InputError
from mmrec.io.files import replacing, write_json
from mmrec.stream.compact import Survey, convert, stored_schema
from mmrec.stream.decode import BadColumn
from mmrec.stream.manifest import FORMAT, NAME, describe
from mmrec.stream.partition import shares
from mmrec.stream.sources import READ_ERRORS, PathLike, Paths, Source, find_files, open_source

GROUP_ROWS = 2048
FILE_ROWS = 1 << 19
LANES = 16  # a multiple of the stream's lanes: no row group lies in two of them
_STATE = ".repack.json"
_READ_ROWS = 4096
_PAGE_BYTES = 1 << 16


@dataclass(frozen=True)
class Repacked:
    """What a repack has written.

    Attributes:
        out: the directory, to be given to `ParquetStream`.
        rows, row_groups, files: how many.
        bytes: of the files together.
    """

    out: Path
    rows: int
    row_groups: int
    files: int
    bytes: int


def repack(
    paths: Paths,
    out: PathLike,
    *,
    columns: Sequence[str] | None = None,
    list_widths: Mapping[str, int] | None = None,
    group_rows: int = GROUP_ROWS,
    row_groups: int | None = None,
    file_rows: int = FILE_ROWS,
    compression: str = "lz4",
    progress: bool = False,
) -> Repacked:
    """Rewrite parquet files into a directory made for streaming.

    Integers take the narrowest type that holds them, lists of one length become fixed-size lists,
    row groups have equal sizes (but for one row) and a number that 16 divides, every page has a
    checksum, and `manifest.json` has each file's counts and SHA-256. Columns with nulls and
    columns that are no numbers are copied as they are.

    Args:
        paths: what to read, as in `ParquetStream`.
        out: a directory, made when absent, in which nothing else lies.
        columns: which to keep; by default all.
        list_widths: width of list columns of different lengths, padded with 0 or cut on the left.
        group_rows: at most that many rows in a row group; fewer when that gives fewer than 64.
        row_groups: write exactly that many row groups instead.
        file_rows: about that many rows in a file; what a stopped run has to do again.
        compression: none, snappy, lz4, zstd or gzip.
        progress: show a bar on stderr.

    Raises:
        InputError: naming file, row group and column.
    """
    widths = dict(list_widths or {})
    if group_rows < 1 or file_rows < 1 or (row_groups is not None and row_groups < 1):
        raise InputError(
            "group_rows, row_groups and file_rows must be at least 1, "
            f"got {group_rows}, {row_groups} and {file_rows}"
        )
    sources = [open_source(*found) for found in find_files(paths)]
    schema = _common_schema(sources, columns, widths)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    request = {
        "sources": [[s.name, s.size, s.footer] for s in sources],
        "columns": schema.names,
        "list_widths": widths,
        "group_rows": group_rows,
        "row_groups": row_groups,
        "file_rows": file_rows,
        "compression": compression,
    }
    state = _resume(out, request)
    if state is None:
        bar = _Bar("survey", sources, progress)
        stored = _survey(sources, schema, widths, bar)
        state = {"request": request, "schema": _to_hex(stored), "files": {}}
        write_json(out / _STATE, state)
    stored = pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(state["schema"])))
    if not (out / NAME).exists():
        _write_files(sources, stored, out, state, _Bar("repack", sources, progress))
    files = state["files"].values()
    return Repacked(
        out=out,
        rows=sum(entry["rows"] for entry in files),
        row_groups=sum(entry["row_groups"] for entry in files),
        files=len(files),
        bytes=sum(entry["bytes"] for entry in files),
    )


def group_sizes(rows: int, group_rows: int, row_groups: int | None) -> list[int]:
    """Rows of each row group: equal but for one row, at least 64 groups of 256 where rows suffice.

    >>> group_sizes(33, 4, 4)
    [8, 8, 8, 9]
    """
    count = row_groups
    if count is None:
        count = max(-(-rows // group_rows), min(64, rows // 256), 1)
        count = -(-count // LANES) * LANES if count >= LANES else count
    return [int(n) for n in np.diff(shares(rows, max(1, min(count, rows))))]


def _resume(out: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    """The state of a run with this request that was stopped or is complete, else None."""
    state_file = out / _STATE
    if not state_file.exists():
        strangers = sorted(p.name for p in out.iterdir())
        if strangers:
            raise InputError(
                f"repack writes into a directory of its own, but {out} holds {strangers[:3]}"
            )
        return None
    try:
        state: dict[str, Any] = json.loads(state_file.read_text())
        before = state["request"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{state_file} is not readable ({error!r}); remove {out}") from None
    for key, value in request.items():
        if before.get(key) != value:
            raise InputError(
                f"{out} holds a repack with another {key} ({before.get(key)!r}, now {value!r}); "
                "give another directory or remove it"
            )
    for left_over in out.glob(".*.tmp"):  # of a run that was killed
        left_over.unlink()
    return state


def _common_schema(
    sources: Sequence[Source], columns: Sequence[str] | None, widths: Mapping[str, int]
) -> pa.Schema:
    first = sources[0].schema
    names = list(columns) if columns is not None else first.names
    for source in sources:
        for name in names:
            if source.schema.get_field_index(name) < 0:
                raise InputError(
                    f"every file must have the column {name!r}, but {source.path} has "
                    f"{source.schema.names}"
                )
            dtype, expected = source.schema.field(name).type, first.field(name).type
            if dtype != expected:
                raise InputError(
                    f"files must agree on their columns, but {name!r} is {expected} in "
                    f"{sources[0].path} and {dtype} in {source.path}"
                )
    for name, width in widths.items():
        if name not in names or width < 1:
            raise InputError(f"list_widths needs read columns and widths >= 1, got {name}={width}")
        if not pa.types.is_nested(first.field(name).type):
            raise InputError(f"list_widths names {name!r}, which is no list column")
    return pa.schema([first.field(name) for name in names])


class _Bar:
    """Progress over rows; says nothing unless asked."""

    def __init__(self, task: str, sources: Sequence[Source], shown: bool) -> None:
        self.rows = sum(source.num_rows for source in sources)
        self._bar = tqdm(total=self.rows, desc=task, unit=" rows", disable=not shown)

    def add(self, rows: int) -> None:
        self._bar.update(rows)

    def close(self) -> None:
        self._bar.close()


def _survey(
    sources: Sequence[Source], schema: pa.Schema, widths: dict[str, int], bar: _Bar
) -> pa.Schema:
    surveys = {name: Survey() for name in schema.names}
    for _, _, batch in _read(sources, schema.names, 0):
        for name, survey in surveys.items():
            survey.add(batch.column(name))
        bar.add(batch.num_rows)
    bar.close()
    for name in widths:
        if surveys[name].nulls:
            raise InputError(f"a list column with nulls cannot be given a width, but {name!r} has")
    return stored_schema(schema, surveys, widths)


def _read(
    sources: Sequence[Source], names: Sequence[str], skip: int
) -> Iterator[tuple[Source, int, pa.RecordBatch]]:
    """(file, row group, rows) from row `skip` on, a few thousand rows at a time."""
    for source in sources:
        for group, rows in enumerate(source.group_rows):
            if skip >= rows:
                skip -= rows
                continue
            source.check_unchanged()
            try:
                for batch in source.read_group(group, names, rows=_READ_ROWS, checksums=True):
                    if skip < batch.num_rows:
                        yield source, group, batch.slice(skip)
                    skip = max(0, skip - batch.num_rows)
            except InputError:
                raise
            except READ_ERRORS as error:
                reason = " ".join(str(error).split())
                raise InputError(
                    f"{source.path}: row group {group} cannot be read: {reason}"
                ) from None


def _write_files(
    sources: Sequence[Source], schema: pa.Schema, out: Path, state: dict[str, Any], bar: _Bar
) -> None:
    request = state["request"]
    sizes = group_sizes(bar.rows, request["group_rows"], request["row_groups"])
    per_file = max(1, request["file_rows"] // max(1, max(sizes)))
    parts = [sizes[i : i + per_file] for i in range(0, len(sizes), per_file)]
    done = 0
    for index in range(len(parts)):
        name = f"part-{index:05d}.parquet"
        entry = state["files"].get(name)
        if entry is None or not _is_there(out / name, entry):
            break
        done += 1
    skip = sum(map(sum, parts[:done]))
    bar.add(skip)
    tables = _grouped(sources, schema, skip, [n for part in parts[done:] for n in part])
    for index, part in enumerate(parts[done:], start=done):
        name = f"part-{index:05d}.parquet"
        with replacing(out / name) as temporary:
            _write_file(temporary, schema, tables, len(part), request["compression"], bar)
        entry = describe(open_source(str(out / name), str(out / name), None))
        state["files"][name] = entry
        write_json(out / _STATE, state)
    bar.close()
    manifest = {
        "format": FORMAT,
        "rows": bar.rows,
        "columns": {field.name: str(field.type) for field in schema},
        "files": state["files"],
    }
    write_json(out / NAME, manifest)


def _is_there(path: Path, entry: dict[str, Any]) -> bool:
    """Whether a finished file of a stopped run is as it was left."""
    return path.exists() and describe(open_source(str(path), str(path), None)) == entry


def _write_file(
    path: Path,
    schema: pa.Schema,
    tables: Iterator[pa.Table],
    groups: int,
    compression: str,
    bar: _Bar,
) -> None:
    writer = pq.ParquetWriter(
        path,
        schema,
        compression=compression,
        use_dictionary=False,
        write_page_checksum=True,
        data_page_size=_PAGE_BYTES,
    )
    with writer:
        for _ in range(groups):
            table = next(tables)
            writer.write_table(table, row_group_size=max(1, table.num_rows))
            bar.add(table.num_rows)


def _grouped(
    sources: Sequence[Source], schema: pa.Schema, skip: int, sizes: list[int]
) -> Iterator[pa.Table]:
    """The rows from `skip` on as tables of these sizes."""
    batches = _converted(sources, schema, skip)
    rest: list[pa.RecordBatch] = []
    for size in sizes:
        have = sum(batch.num_rows for batch in rest)
        while have < size:
            rest.append(next(batches))
            have += rest[-1].num_rows
        table = pa.Table.from_batches(rest, schema=schema)
        yield table.slice(0, size).combine_chunks()
        rest = table.slice(size).to_batches()


def _converted(sources: Sequence[Source], schema: pa.Schema, skip: int) -> Iterator[pa.RecordBatch]:
    for source, group, batch in _read(sources, schema.names, skip):
        try:
            arrays = [convert(batch.column(field.name), field) for field in schema]
        except BadColumn as bad:
            raise InputError(
                f"{source.path}: row group {group}, column {bad.column!r}: {bad.reason}"
            ) from None
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _to_hex(schema: pa.Schema) -> str:
    return bytes(schema.serialize()).hex()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m mmrec.stream.repack",
        description="Rewrite parquet files for streaming: even row groups, narrow types, page "
        "checksums, a manifest. Rows and their order stay the same.",
    )
    parser.add_argument("paths", nargs="+", help="files, directories, globs or fsspec URLs")
    parser.add_argument("--out", required=True, help="directory to write; its own, made if absent")
    parser.add_argument("--columns", nargs="+", help="which to keep (default: all)")
    parser.add_argument(
        "--list-width",
        action="append",
        default=[],
        metavar="COLUMN=N",
        help="pad or cut a list column to N on the left; may be repeated",
    )
    parser.add_argument("--group-rows", type=int, default=GROUP_ROWS, help="rows in a row group")
    parser.add_argument("--row-groups", type=int, help="how many row groups, instead")
    parser.add_argument("--file-rows", type=int, default=FILE_ROWS, help="rows in a file, about")
    parser.add_argument(
        "--compression", default="lz4", choices=["none", "snappy", "lz4", "zstd", "gzip"]
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    given = parser.parse_args()
    widths = {}
    for text in given.list_width:
        name, _, width = text.rpartition("=")
        if not name or not width.isdigit():
            parser.error(f"--list-width wants COLUMN=N, got {text!r}")
        widths[name] = int(width)
    done = repack(
        given.paths,
        given.out,
        columns=given.columns,
        list_widths=widths,
        group_rows=given.group_rows,
        row_groups=given.row_groups,
        file_rows=given.file_rows,
        compression=given.compression,
        progress=not given.quiet,
    )
    print(
        f"{done.out}: {done.rows:,} rows in {done.row_groups} row groups of {done.files} files, "
        f"{done.bytes / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    run(main)

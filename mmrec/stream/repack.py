"""Rewrite parquet for streaming: even row groups, narrow types, page checksums, a manifest.

    python -m mmrec.stream.repack train.parquet --out train_packed --list-width item_seq=100

The rows and their order stay the same. Output files appear whole or not at all; when the command is
stopped, the same command resumes with the first file that is missing.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmrec.cli import program, run
from mmrec.errors import InputError, positive
from mmrec.io.files import replacing, require_folder, write_json
from mmrec.io.identity import require_same
from mmrec.io.parquet import Column, column_type, is_list
from mmrec.io.paths import PathLike, Paths
from mmrec.io.progress import Progress
from mmrec.io.sources import Source, open_source, open_sources
from mmrec.stream.compact import Survey, convert, stored_schema
from mmrec.stream.manifest import FORMAT, NAME, describe
from mmrec.stream.partition import shares

GROUP_ROWS = 2048
FILE_ROWS = 1 << 19
LANES = 16  # a multiple of the stream's lanes: no row group lies in two of them
_STATE = "_repack.json"
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
    checksum, and `_manifest.json` has each file's counts and SHA-256. Columns with nulls and
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
    out = require_folder(out)
    positive(group_rows=group_rows, file_rows=file_rows)
    if row_groups is not None:
        positive(row_groups=row_groups)
    sources = open_sources(paths)
    schema = _common_schema(sources, columns, widths)
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
        stored = _survey(sources, schema, widths, progress)
        state = {"request": request, "schema": bytes(stored.serialize()).hex(), "files": {}}
        write_json(out / _STATE, state)
    if not (out / NAME).exists():
        _write_files(sources, out, state, progress)
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
    require_same(before, request, where=out, remedy="give another directory or remove it")
    for left_over in out.glob(".*.tmp"):  # of a run that was killed
        left_over.unlink()
    return state


def _common_schema(
    sources: Sequence[Source], columns: Sequence[str] | None, widths: Mapping[str, int]
) -> pa.Schema:
    names = list(sources[0].schema.names if columns is None else columns)
    kinds = {name: column_type(sources[0], name) for name in names}
    for source in sources:
        for name, kind in kinds.items():
            if column_type(source, name) != kind:
                raise InputError(
                    f"files must agree on their columns, but {name!r} is {kind} in "
                    f"{sources[0].path} and {column_type(source, name)} in {source.path}"
                )
    for name, width in widths.items():
        if name not in kinds or width < 1:
            raise InputError(f"list_widths needs read columns and widths >= 1, got {name}={width}")
        if not is_list(kinds[name]):
            raise InputError(f"list_widths names {name!r}, which is no list column")
    return pa.schema([sources[0].schema.field(name) for name in names])


def _survey(
    sources: Sequence[Source], schema: pa.Schema, widths: Mapping[str, int], progress: bool
) -> pa.Schema:
    surveys = {name: Survey() for name in schema.names}
    with _bar("survey", sources, progress) as bar:
        for columns in _read(sources, schema.names):
            for name, survey in surveys.items():
                survey.add(columns[name].array)
            bar.update(len(columns[schema.names[0]].array))
    for name in widths:
        if surveys[name].nulls:
            raise InputError(f"a list column with nulls cannot be given a width, but {name!r} has")
    return stored_schema(schema, surveys, widths)


def _bar(task: str, sources: Sequence[Source], shown: bool) -> Any:
    rows = sum(source.num_rows for source in sources)
    return Progress(total=rows, desc=task, unit=" rows", shown=shown)


def _read(
    sources: Sequence[Source], names: Sequence[str], skip: int = 0
) -> Iterator[dict[str, Column]]:
    """The columns from row `skip` on, some thousand rows of a row group at a time."""
    for source in sources:
        start = 0  # in the file
        for group, rows in enumerate(source.group_rows):
            begin, start = start, start + rows
            if skip >= rows:
                skip -= rows
                continue
            for batch in source.read(names, groups=[group], rows=_READ_ROWS):
                kept = batch.slice(min(skip, batch.num_rows))
                skip -= batch.num_rows - kept.num_rows
                begin += batch.num_rows
                place = range(begin - kept.num_rows, begin)
                yield {n: Column(source.path, n, place, kept.column(n)) for n in names}


def _write_files(
    sources: Sequence[Source], out: Path, state: dict[str, Any], progress: bool
) -> None:
    """Write the files that are not there yet, and at last the manifest."""
    request, files = state["request"], state["files"]
    schema = pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(state["schema"])))
    rows = sum(source.num_rows for source in sources)
    sizes = group_sizes(rows, request["group_rows"], request["row_groups"])
    per_file = max(1, request["file_rows"] // max(1, max(sizes)))
    shards = [sizes[first : first + per_file] for first in range(0, len(sizes), per_file)]
    names = [f"part-{index:05d}.parquet" for index in range(len(shards))]
    done = 0
    while done < len(names) and _is_there(out / names[done], files.get(names[done])):
        done += 1
    skip = sum(map(sum, shards[:done]))
    left = [size for shard in shards[done:] for size in shard]
    with _bar("repack", sources, progress) as bar:
        bar.update(skip)
        tables = _grouped(_converted(sources, schema, skip), schema, left)
        for name, shard in zip(names[done:], shards[done:], strict=True):
            with replacing(out / name) as temporary:
                _write_file(temporary, schema, tables, len(shard), request["compression"], bar)
            files[name] = describe(open_source(out / name))
            write_json(out / _STATE, state)
    columns = {field.name: str(field.type) for field in schema}
    manifest = {"format": FORMAT, "rows": rows, "columns": columns, "files": files}
    write_json(out / NAME, manifest)


def _is_there(path: Path, entry: dict[str, Any] | None) -> bool:
    """Whether a finished file of a stopped run is as it was left."""
    return entry is not None and path.exists() and describe(open_source(path)) == entry


def _write_file(
    path: Path,
    schema: pa.Schema,
    tables: Iterator[pa.Table],
    groups: int,
    compression: str,
    bar: Any,
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
            bar.update(table.num_rows)


def _grouped(
    batches: Iterator[pa.RecordBatch], schema: pa.Schema, sizes: list[int]
) -> Iterator[pa.Table]:
    """The rows of the batches as tables of these sizes."""
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
    for columns in _read(sources, schema.names, skip):
        arrays = [convert(columns[field.name], field) for field in schema]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=program("mmrec.stream.repack"),
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
    args = parser.parse_args(arguments)
    widths = {}
    for text in args.list_width:
        name, _, width = text.rpartition("=")
        if not name or not width.isdigit():
            parser.error(f"--list-width wants COLUMN=N, got {text!r}")
        widths[name] = int(width)
    done = repack(
        args.paths,
        args.out,
        columns=args.columns,
        list_widths=widths,
        group_rows=args.group_rows,
        row_groups=args.row_groups,
        file_rows=args.file_rows,
        compression=args.compression,
        progress=not args.quiet,
    )
    print(
        f"{done.out}: {done.rows:,} rows in {done.row_groups} row groups of {done.files} files, "
        f"{done.bytes / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    run(main)

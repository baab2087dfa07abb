"""Parquet files as they are found, opened, watched for changes and read, locally or by fsspec URL.

A `Source` describes one file; `parquet.py` checks its columns and turns them into numpy.
"""

import hashlib
import io
import os
import re
import stat
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmrec.errors import InputError
from mmrec.io.paths import PathLike, Paths, find_files, hive_values

BATCH_ROWS = 8_192  # rows read at a time: 6.5 MB of int64 histories of length 100

_TRAILER = 8  # a parquet file ends with the footer's length (4 bytes) and b"PAR1"
_BUFFER = 1 << 16  # small, so that reading the first rows of a row group reads few bytes
_REMOTE_STAMPS = ("mtime", "LastModified", "last_modified", "etag", "ETag", "updated", "created")

# What pyarrow raises on bytes that are not what they should be.
READ_ERRORS = (pa.ArrowException, OSError, ValueError, EOFError, OverflowError)


@dataclass(frozen=True)
class Source:
    """One parquet file, as it was when it was opened first.

    Attributes:
        path: as given, for messages.
        location: the path within its file system.
        filesystem: None for local files.
        size: bytes.
        stamp: what the file system says that changes when the file is replaced.
        footer: SHA-256 of the footer, hexadecimal.
        group_rows: rows of each row group.
        partition: (column, value) of hive directories (`day=1/`) that it lies in.
    """

    path: str
    location: str
    filesystem: Any
    size: int
    stamp: tuple[Any, ...]
    footer: str
    group_rows: tuple[int, ...]
    metadata: Any = field(repr=False, compare=False)
    partition: tuple[tuple[str, pa.Scalar], ...] = ()

    @property
    def name(self) -> str:
        return self.location.rsplit("/", 1)[-1]

    @property
    def place(self) -> str:
        """The name, with the hive directories that it lies in."""
        return "/".join([*(f"{key}={value.as_py()}" for key, value in self.partition), self.name])

    @property
    def num_rows(self) -> int:
        return sum(self.group_rows)

    @property
    def schema(self) -> pa.Schema:
        """Columns of the file, then those of its hive directories."""
        schema = self.metadata.schema.to_arrow_schema()
        for name, value in self.partition:
            schema = schema.append(pa.field(name, value.type))
        return schema

    def read(
        self,
        columns: Sequence[str],
        *,
        groups: Sequence[int] | None = None,
        rows: int = BATCH_ROWS,
        file: pq.ParquetFile | None = None,
        checksums: bool = True,
        threads: bool = True,
    ) -> Iterator[pa.RecordBatch]:
        """The named columns in file order, `rows` rows at a time.

        Args:
            columns: names.
            groups: which row groups; by default all.
            rows: of a batch, the last one apart; batches may span row groups.
            file: from `open`, to be used instead of opening the file for this read.
            checksums: verify page checksums where the file has them.
            threads: let Arrow decode columns at the same time.

        Raises:
            InputError: the file was replaced, or cannot be read; names row group and column.
        """
        groups = range(len(self.group_rows)) if groups is None else groups
        expected, count = sum(self.group_rows[group] for group in groups), 0
        self.check_unchanged()
        opened = file or self.open(buffered=True, checksums=checksums)
        constant = {name: value for name, value in self.partition if name in columns}
        try:
            for batch in opened.iter_batches(
                batch_size=rows,
                row_groups=list(groups),
                columns=[name for name in columns if name not in constant],
                use_threads=threads,
            ):
                count += batch.num_rows
                if count > expected:
                    break
                yield _with_constants(batch, columns, constant) if constant else batch
            if count != expected:
                raise ValueError(f"{count} rows where the footer says {expected}")
        except READ_ERRORS as error:
            where = ""
            if len(groups) == len(columns) == 1:
                where = f"row group {groups[0]}, column {columns[0]}: "
            else:  # read each alone: the one at fault raises
                for group, name in product(groups, columns):
                    alone = self.read([name], groups=[group], rows=rows, checksums=checksums)
                    deque(alone, maxlen=0)
            raise InputError(f"{self.path} is damaged: {where}{reason_of(error)}") from None
        finally:
            if file is None:
                opened.close(force=True)

    def open(self, *, buffered: bool, checksums: bool) -> pq.ParquetFile:
        """The file, ready to read row groups; `buffered` reads column chunks bit by bit.

        To be closed with `close(force=True)`.
        """
        try:
            if self.filesystem is None:
                handle: Any = pa.OSFile(self.location, "rb")
            else:
                handle = pa.PythonFile(self.filesystem.open(self.location, "rb"), mode="r")
            return pq.ParquetFile(
                handle,
                metadata=self.metadata,
                buffer_size=_BUFFER if buffered else 0,
                # Slower where the file is near.
                pre_buffer=self.filesystem is not None and not buffered,
                page_checksum_verification=checksums,
            )
        except READ_ERRORS as error:
            raise InputError(f"{self.path} cannot be opened: {reason_of(error)}") from None

    def check_unchanged(self) -> None:
        """Raise `InputError` when the file is not the one that was opened first."""
        if _stamp_of(self.location, self.filesystem, self.path) != self.stamp:
            raise InputError(
                f"a file must not change while it is read, but {self.path} was replaced or "
                "written to after it was opened; open it again"
            )


def open_sources(paths: Paths) -> list[Source]:
    """Every parquet file that `paths` stands for, its footer read, in reading order.

    Takes a file, a directory (every `*.parquet` below it, by name; names that begin with `.` or
    `_` are skipped, links are followed), a glob, or a list of those, local or as fsspec URLs. A
    list keeps its order. Hive directories (`day=1/`) are columns: of integers where all their
    values are, else of strings.

    Raises:
        InputError: one of them matches nothing, a file is cut off or not parquet, or files differ
            in their hive directories.
    """
    return with_partitions([open_source(*one) for one in find_files(paths)])


def open_source(path: PathLike, location: str | None = None, filesystem: Any = None) -> Source:
    """One file, its footer read; `location` and `filesystem` as `Source` has them.

    Raises:
        InputError: naming the file, when there is none, or it is cut off or not parquet.
    """
    path = os.fspath(path)
    location = location or path
    stamp = _stamp_of(location, filesystem, path)
    size = int(stamp[0])
    try:
        with (open if filesystem is None else filesystem.open)(location, "rb") as handle:
            handle.seek(max(0, size - _TRAILER))
            trailer = handle.read(_TRAILER)
            length = int.from_bytes(trailer[:4], "little")
            if trailer[4:] != b"PAR1" or length + _TRAILER > size:
                raise EOFError(
                    f"it does not end with a footer ({size} bytes): it is cut off, or not parquet"
                )
            handle.seek(size - _TRAILER - length)
            footer = handle.read(length + _TRAILER)
        # The footer stands alone: a reader needs only the bytes that it points to.
        metadata = pq.ParquetFile(io.BytesIO(b"PAR1" + footer)).metadata
        groups = tuple(metadata.row_group(g).num_rows for g in range(metadata.num_row_groups))
        metadata.schema.to_arrow_schema()
    except READ_ERRORS as error:
        raise InputError(
            f"a parquet file is needed, {path} cannot be read as one: {reason_of(error)}"
        ) from None
    digest = hashlib.sha256(footer).hexdigest()
    return Source(path, location, filesystem, size, stamp, digest, groups, metadata)


def with_partitions(sources: Sequence[Source]) -> list[Source]:
    """The sources, told the hive directories that they lie in."""
    found = [hive_values(source.location) for source in sources]
    own = {name for source in sources for name in source.schema.names}
    keys = [name for name in found[0] if name not in own]
    for source, values in zip(sources, found, strict=True):
        if [name for name in values if name not in own] != keys:
            raise InputError(
                f"files must lie in hive directories of the same columns, {sources[0].path} in "
                f"{[*found[0]]}, {source.path} in {[*values]}"
            )
    whole = {key: all(_is_integer(values[key]) for values in found) for key in keys}
    return [
        replace(source, partition=tuple((key, _scalar(values[key], whole[key])) for key in keys))
        for source, values in zip(sources, found, strict=True)
    ]


def _is_integer(value: str | None) -> bool:
    return value is None or bool(re.fullmatch(r"-?(0|[1-9][0-9]{0,17})", value))


def _scalar(value: str | None, whole: bool) -> pa.Scalar:
    if whole:
        return pa.scalar(None if value is None else int(value), pa.int64())
    return pa.scalar(value, pa.string())


def _with_constants(
    batch: pa.RecordBatch, columns: Sequence[str], constant: Mapping[str, pa.Scalar]
) -> pa.RecordBatch:
    """The batch with columns of one value, all in the order asked for."""
    arrays = [
        pa.repeat(constant[name], batch.num_rows) if name in constant else batch.column(name)
        for name in columns
    ]
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))


def _stamp_of(location: str, filesystem: Any, path: str) -> tuple[Any, ...]:
    """Size and whatever tells that a file was replaced."""
    try:
        if filesystem is None:
            status = os.stat(location)
            if not stat.S_ISREG(status.st_mode):
                raise InputError(
                    f"a parquet file is needed, {path} is a directory or no regular file"
                )
            return status.st_size, status.st_mtime_ns, status.st_ino
        filesystem.invalidate_cache(location)
        info = filesystem.info(location)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"a parquet file is needed, there is none (any more) at {path}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {reason_of(error)}") from None
    return info["size"], *(str(info[key]) for key in _REMOTE_STAMPS if key in info)


def reason_of(error: BaseException) -> str:
    """What an exception says, in one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__

"""Parquet files as the stream sees them: found, opened, described, and watched for changes."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from mmrec.errors import InputError

PathLike: TypeAlias = "str | os.PathLike[str]"
Paths: TypeAlias = "PathLike | Sequence[PathLike]"

_TRAILER = 8  # a parquet file ends with the footer's length (4 bytes) and b"PAR1"
_BUFFER = 1 << 16  # small, so that reading the first rows of a row group reads few bytes
_REMOTE_STAMPS = ("mtime", "LastModified", "last_modified", "etag", "ETag", "updated", "created")

# What pyarrow raises on bytes that are not what they should be.
READ_ERRORS = (pa.ArrowException, OSError, ValueError, EOFError, OverflowError)


@dataclass(frozen=True)
class Source:
    """One parquet file, as it was when the stream was made.

    Attributes:
        path: as given, for messages.
        location: the path within its file system.
        filesystem: None for local files.
        size: bytes.
        stamp: what the file system says that changes when the file is replaced.
        footer: SHA-256 of the footer, hexadecimal.
        group_rows: rows of each row group.
    """

    path: str
    location: str
    filesystem: Any
    size: int
    stamp: tuple[Any, ...]
    footer: str
    group_rows: tuple[int, ...]
    metadata: Any = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        return self.location.rsplit("/", 1)[-1]

    @property
    def num_rows(self) -> int:
        return sum(self.group_rows)

    @property
    def schema(self) -> pa.Schema:
        return self.metadata.schema.to_arrow_schema()

    def read_group(
        self, group: int, columns: Sequence[str], *, rows: int, checksums: bool
    ) -> Iterator[pa.RecordBatch]:
        """One row group, `rows` rows at a time."""
        file = self.open(buffered=True, checksums=checksums)
        try:
            yield from file.iter_batches(batch_size=rows, row_groups=[group], columns=list(columns))
        finally:
            file.close(force=True)

    def check_unchanged(self) -> None:
        """Raise `InputError` when the file is not the one that was opened first."""
        if stamp_of(self.location, self.filesystem, self.path) != self.stamp:
            raise InputError(
                f"a file must not change while it is read, but {self.path} was replaced or "
                "written to after the stream was made; make the stream anew"
            )

    def open(self, *, buffered: bool, checksums: bool) -> pq.ParquetFile:
        """The file, ready to read row groups; `buffered` reads column chunks bit by bit.

        To be closed with `close(force=True)`.
        """
        if self.filesystem is None:
            handle: Any = pa.OSFile(self.location, "rb")
        else:
            handle = pa.PythonFile(self.filesystem.open(self.location, "rb"), mode="r")
        return pq.ParquetFile(
            handle,
            metadata=self.metadata,
            buffer_size=_BUFFER if buffered else 0,
            pre_buffer=self.filesystem is not None and not buffered,  # slower where reads are near
            page_checksum_verification=checksums,
        )


def stamp_of(location: str, filesystem: Any, path: str) -> tuple[Any, ...]:
    """Size and whatever tells that a file was replaced."""
    try:
        if filesystem is None:
            status = os.stat(location)
            return status.st_size, status.st_mtime_ns, status.st_ino
        filesystem.invalidate_cache(location)
        info = filesystem.info(location)
    except FileNotFoundError:
        raise InputError(f"the file {path} does not exist (any more)") from None
    return info["size"], *(str(info[key]) for key in _REMOTE_STAMPS if key in info)


def find_files(paths: Paths) -> list[tuple[str, str, Any]]:
    """(path as given, location, file system or None) of every parquet file, in reading order.

    Takes a file, a directory (every `*.parquet` below it, by name; names that begin with `.` or
    `_` are skipped), a glob, or a list of those, local or as fsspec URLs. A list keeps its order.

    Raises:
        InputError: when one of them matches nothing.
    """
    many = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not many:
        raise InputError("at least one parquet file is needed, got an empty list")
    return [found for path in many for found in _find(os.fspath(path))]


def _find(path: str) -> list[tuple[str, str, Any]]:
    try:
        filesystem, location = url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise InputError(f"the path {path} cannot be opened: {error}") from None
    local = isinstance(filesystem, fsspec.get_filesystem_class("file"))
    if any(mark in path for mark in "*?[") and not filesystem.exists(location):
        matches = [m for m in sorted(filesystem.glob(location)) if filesystem.isfile(m)]
    elif filesystem.isdir(location):
        matches = [m for m in sorted(filesystem.find(location)) if _is_data(m, location)]
    else:
        matches = [location] if filesystem.exists(location) else []
    if not matches:
        raise InputError(f"a path must match at least one parquet file, but {path} matches none")
    if local:
        return [(match, match, None) for match in matches]
    scheme = path.split("://", 1)[0]
    return [(f"{scheme}://{m.lstrip('/')}", m, filesystem) for m in matches]


def _is_data(match: str, root: str) -> bool:
    parts = match[len(root) :].strip("/").split("/")
    return match.endswith(".parquet") and not any(part[:1] in "._" for part in parts if part)


def open_source(path: str, location: str, filesystem: Any) -> Source:
    """Read a file's footer.

    Raises:
        InputError: naming the file, when it is cut off or no parquet file at all.
    """
    stamp = stamp_of(location, filesystem, path)
    size = int(stamp[0])
    opener = open if filesystem is None else filesystem.open
    try:
        with opener(location, "rb") as handle:
            handle.seek(max(0, size - _TRAILER))
            trailer = handle.read(_TRAILER)
            length = int.from_bytes(trailer[:4], "little")
            if trailer[4:] != b"PAR1" or length + _TRAILER > size:
                raise InputError(
                    f"a parquet file ends with its footer, but {path} ({size} bytes) does not: "
                    "it is cut off, or no parquet file"
                )
            handle.seek(size - _TRAILER - length)
            footer = handle.read(length + _TRAILER)
        # The footer stands alone: a reader needs only the bytes that it points to.
        metadata = pq.ParquetFile(io.BytesIO(b"PAR1" + footer)).metadata
        groups = tuple(metadata.row_group(g).num_rows for g in range(metadata.num_row_groups))
        metadata.schema.to_arrow_schema()
    except InputError:
        raise
    except READ_ERRORS as error:
        raise InputError(f"the footer of {path} cannot be read: {_short(error)}") from None
    digest = hashlib.sha256(footer).hexdigest()
    return Source(path, location, filesystem, size, stamp, digest, groups, metadata)


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__

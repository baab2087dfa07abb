"""Paths as they are given to the files that they stand for, locally or by fsspec URL.

Next: `sources.py`, which opens them.
"""

import glob
import os
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias
from urllib.parse import unquote

import fsspec
from fsspec.core import url_to_fs

from mmrec.errors import InputError

PathLike: TypeAlias = "str | os.PathLike[str]"
Paths: TypeAlias = "PathLike | Sequence[PathLike]"
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


def find_files(paths: Paths) -> list[tuple[str, str, Any]]:
    """(path for messages, location, file system or None) of every parquet file.

    Raises:
        InputError: no path, or one that matches nothing.
    """
    return [one for path in as_list(paths) for one in _find(path)]


def as_list(paths: Paths) -> list[str]:
    """One path or several, as several."""
    try:
        many = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
        names = [os.fspath(path) for path in many]
    except TypeError:
        raise InputError(f"paths are strings or path objects, got {paths!r}") from None
    if not names:
        raise InputError("at least one parquet file is needed, got an empty list")
    return names


def open_directory(path: str) -> tuple[str, Any] | None:
    """(location, file system or None) of a directory; None of anything else."""
    filesystem, location = _located(path)
    return (location, filesystem) if _is_directory(location, filesystem) else None


def hive_values(location: str) -> dict[str, str | None]:
    """Column -> value of the directories `column=value` of a path; None is a missing one.

    >>> hive_values("clicks/day=7/country=de/a.parquet")
    {'day': '7', 'country': 'de'}
    """
    pairs = (part.split("=", 1) for part in location.split("/")[:-1] if "=" in part[1:])
    return {key: None if value == _NO_VALUE else unquote(value) for key, value in pairs}


def _find(path: str) -> list[tuple[str, str, Any]]:
    filesystem, location = _located(path)
    if filesystem is not None:
        try:
            filesystem.exists(location)
        except Exception as error:  # each kind of storage has exceptions of its own
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"the path {path} cannot be reached: {reason}") from None
    exists = os.path.lexists(location) if filesystem is None else filesystem.exists(location)
    if any(mark in path for mark in "*?[") and not exists:
        matches = sorted(_matching(location, filesystem))
    elif _is_directory(location, filesystem):
        below = _below(location) if filesystem is None else filesystem.find(location)
        matches = sorted(match for match in below if _is_data(match, location))
    else:
        matches = [location] if exists else []
    if not matches:
        raise InputError(f"a path must match at least one parquet file, but {path} matches none")
    if filesystem is None:
        return [(match, match, None) for match in matches]
    scheme = path.split("://", 1)[0]
    return [(f"{scheme}://{m.lstrip('/')}", m, filesystem) for m in matches]


def _located(path: str) -> tuple[Any, str]:
    """File system, None for local files, and the path in it."""
    try:
        filesystem, location = url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise InputError(f"the path {path} cannot be opened: {error}") from None
    local = isinstance(filesystem, fsspec.get_filesystem_class("file"))
    return (None if local else filesystem), location


def _is_directory(location: str, filesystem: Any) -> bool:
    return os.path.isdir(location) if filesystem is None else filesystem.isdir(location)


def _matching(location: str, filesystem: Any) -> Iterator[str]:
    if filesystem is not None:
        yield from (m for m in filesystem.glob(location) if filesystem.isfile(m))
        return
    for match in glob.glob(location, recursive=True):
        if not os.path.isdir(match) and not _in_a_circle(match):
            yield match


def _below(root: str) -> Iterator[str]:
    """Every file below a local directory, through links, each circle of them entered once."""
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not _in_a_circle(f"{folder}/{name}/")]
        yield from (os.path.join(folder, name) for name in files)


def _in_a_circle(path: str) -> bool:
    """Whether one of the folders of a path is the same as another, through a link."""
    parts = os.path.dirname(path).split("/")
    folders = ["/".join(parts[: end + 1]) or "/" for end in range(len(parts))]
    real = [os.path.realpath(folder) for folder in folders]
    return len(set(real)) < len(real)


def _is_data(match: str, root: str) -> bool:
    parts = match[len(root) :].strip("/").split("/")
    return match.endswith(".parquet") and not any(part[:1] in "._" for part in parts if part)

"""Files are written whole: to a temporary name beside the target, flushed to disk, renamed."""

import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmrec.errors import require

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path; when the block ends well it becomes `path` in one step.

    Readers see the old file or the new one, never half of either, also after `kill -9` or a full
    disk. When the block raises, the temporary file is removed and `path` is left as it was.

    Raises:
        OSError: what the block or the disk raised. It names `path` where it named the temporary
            file, or no file though there was no room.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with replacing(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and _is_about(error, temporary):
            error.filename, error.filename2 = str(target), None
        raise
    sync_directory(target.parent)


def require_folder(path: str | os.PathLike[str]) -> Path:
    """`path`, where a folder is or can be made; asked before any work.

    Raises:
        InputError: it is a file, or lies below one.
    """
    folder = Path(path)
    there = next((place for place in (folder, *folder.parents) if place.exists()), folder)
    require(
        there.is_dir() or not there.exists(),
        f"a folder is needed to write to, {there} is a file: give another path than {folder}",
    )
    return folder


def require_file(path: str | os.PathLike[str]) -> Path:
    """`path`, where a file can be written once its folder is made; asked before any work.

    Raises:
        InputError: it is a folder, ends like one, or lies below a file.
    """
    text, file = os.fspath(path), Path(path)
    require(
        not text.endswith("/") and not file.is_dir(),
        f"a file is needed to write to, {text} is a folder: give the path of a file",
    )
    require_folder(file.parent)
    return file


def _is_about(error: OSError, file: Path) -> bool:
    """Python names the file that it cannot open, but not the one that it cannot write on."""
    if error.filename is None:
        return error.errno in _NO_ROOM
    return bool(os.fspath(error.filename) == str(file))


def sync_directory(directory: str | os.PathLike[str]) -> None:
    """Make renames and removals in `directory` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write `content` as indented JSON, whole; NaN and infinity are refused."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def remove(folder: Path, names: Iterable[str], *, keep: Iterable[Path | None] = ()) -> None:
    """Remove these files and folders in `folder`, where they are, and nothing else.

    Raises:
        InputError: something to `keep` is one of them or lies in one; all are left.
    """
    names = tuple(names)
    for path in [path.resolve() for path in keep if path is not None]:
        for name in names:
            place = (folder / name).resolve()
            require(
                place not in (path, *path.parents),
                f"{path} is read, so {folder / name}, which holds it, cannot be made anew: move "
                "one of them",
            )
    for name in names:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

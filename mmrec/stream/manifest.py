"""The manifest that `repack` leaves beside its files: counts and checksums, and their check."""

import json
from collections.abc import Sequence
from typing import Any

import fsspec

from mmrec.errors import InputError
from mmrec.io.hashing import sha256_of
from mmrec.io.paths import Paths, as_list, open_directory
from mmrec.io.sources import Source

NAME = "_manifest.json"
FORMAT = 1


def describe(source: Source) -> dict[str, Any]:
    """A file's entry in the manifest."""
    return {
        "rows": source.num_rows,
        "row_groups": len(source.group_rows),
        "bytes": source.size,
        "footer_sha256": source.footer,
        "sha256": sha256_of(source.location, source.filesystem),
    }


def read_entries(directory: str, filesystem: Any = None) -> dict[str, dict[str, Any]]:
    """What the manifest of a directory says of each file; nothing where there is none.

    Raises:
        InputError: when there is a file of that name that is no manifest.
    """
    path = f"{directory}/{NAME}" if directory else NAME
    filesystem = filesystem or fsspec.filesystem("file")
    if not filesystem.exists(path):
        return {}
    try:
        with filesystem.open(path, "rb") as handle:
            entries = dict(json.loads(handle.read())["files"])
        for entry in entries.values():
            entry["bytes"], entry["rows"], entry["footer_sha256"], entry["sha256"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a manifest of mmrec.stream.repack: {error!r}") from None
    return entries


def check_against_manifest(paths: Paths, sources: Sequence[Source], *, verify: bool) -> None:
    """Compare size and footer with the manifest beside a file, if any; with `verify`, all bytes.

    A path that is a directory must hold what its manifest lists, all of it and nothing else.

    Raises:
        InputError: when a file is not the one the manifest describes, is missing, or is there
            without being listed, or when `verify` is asked for a file that no manifest lists.
    """
    for path in as_list(paths):
        folder = open_directory(path)
        if folder is not None:
            _check_parts(path, *folder, sources)
    manifests: dict[str, dict[str, dict[str, Any]]] = {}
    for source in sources:
        directory = source.location.rpartition("/")[0]
        if directory not in manifests:
            manifests[directory] = read_entries(directory, source.filesystem)
        entry = manifests[directory].get(source.name)
        if entry is None:
            if verify:
                raise InputError(
                    f"verify needs a {NAME} that lists the file (python -m mmrec.stream.repack "
                    f"writes one), but there is none for {source.path}"
                )
            continue
        for what, is_now in (("bytes", source.size), ("footer_sha256", source.footer)):
            if entry[what] != is_now:
                raise InputError(
                    f"{source.path} is not the file that its {NAME} describes: {what} should be "
                    f"{entry[what]} and is {is_now}"
                )
        if verify and sha256_of(source.location, source.filesystem) != entry["sha256"]:
            raise InputError(f"{source.path} does not have the SHA-256 that its {NAME} gives")


def _check_parts(path: str, location: str, filesystem: Any, sources: Sequence[Source]) -> None:
    listed = set(read_entries(location, filesystem))
    root = location.rstrip("/") + "/"
    inside = (s.location for s in sources if s.location.startswith(root))
    there = {place.removeprefix(root) for place in inside}
    if not listed:
        return
    if listed - there:
        raise InputError(
            f"{path} lacks {min(listed - there)}, which its {NAME} lists: fetch it again, or "
            "repack the data again"
        )
    if there - listed:
        raise InputError(
            f"{path} holds {min(there - listed)}, which its {NAME} does not list: move it away, "
            "or repack the data with it"
        )

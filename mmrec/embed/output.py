"""The output folder: whole shards, and a record of what they were made from.

    OUT/part-00000-of-00023.parquet …   features of items 0..4095, 4096..8191, …, in file order;
                                        items that were added later begin a shard of their own
    OUT/_identity.json                   encoder, weights, captions, items: must stay equal
    OUT/_report.json  OUT/_contact.png    written last

A shard's bytes are a function of its own items alone, never of ranks, workers or what was done
before: that is what makes a run that was killed end like one that was not.
"""

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmrec.errors import InputError
from mmrec.io.files import replacing, write_json
from mmrec.io.identity import EMBEDDED, as_json, bind_identity, require_same
from mmrec.schema import Items

REPORT = "_report.json"
CONTACT = "_contact.png"
_LOCK = ".lock"
_REMEDY = "restart (--restart) or choose another folder"

BESIDE = ("status", "note")  # columns of a shard beside ids, vectors and masks
ENDS = "ends"  # in the identity: how many items there were after each growth
Fingerprint = Callable[[int], dict[str, Any]]
Restart = bool | Literal["changed"]
Vectors = np.ndarray[Any, np.dtype[Any]]


def shard_name(index: int, count: int) -> str:
    """
    >>> shard_name(3, 23)
    'part-00003-of-00023.parquet'
    """
    return f"part-{index:05d}-of-{count:05d}.parquet"


def shard_paths(out: str | os.PathLike[str]) -> list[Path]:
    """The shards in `out`, in item order."""
    return sorted(Path(out).glob("part-*-of-*.parquet"))


def pending(out: Path, count: int) -> list[int]:
    """Indices of the shards that are not there yet."""
    return [i for i in range(count) if not (out / shard_name(i, count)).exists()]


def column_names(schema: Items, modalities: Iterable[str]) -> list[str]:
    """The id, then each modality's vectors: as the schema calls them, else like the modality."""
    return [schema.id, *(schema.modalities.get(name, name) for name in modalities)]


def write_shard(
    path: Path,
    schema: Items,
    *,
    ids: Vectors,
    vectors: Mapping[str, Vectors],
    present: Mapping[str, Vectors],
    status: Sequence[str],
    note: Sequence[str],
) -> None:
    """Write one shard whole: id, vectors, masks, status, note; modalities in order of their names.

    Vectors (N, D) float16 or float32; a row without its mask is zero.

    Raises:
        InputError: a vector holds NaN or infinity (float16 overflow, say).
        OSError: no space, no permission.
    """
    names = sorted(vectors)
    columns = dict(zip(column_names(schema, names)[1:], (vectors[m] for m in names), strict=True))
    for name, values in columns.items():
        bad = ~np.isfinite(values).all(axis=1)
        if bad.any():
            raise InputError(
                f"vectors must be finite, got NaN or infinity in {name} of item "
                f"{ids[int(np.argmax(bad))]}: try precision fp32, and float32 for the output"
            )
    table = pa.table(
        {
            schema.id: pa.array(ids),
            **{name: _fixed_lists(values) for name, values in columns.items()},
            **{f"has_{name}": pa.array(present[name]) for name in sorted(present)},
            "status": pa.array(list(status), pa.string()),
            "note": pa.array(list(note), pa.string()),
        }
    )
    try:
        with replacing(path) as temporary:
            pq.write_table(table, temporary, compression="none", use_dictionary=["status", "note"])
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(
            error.errno or errno.EIO,
            f"a shard could not be written ({reason}); finished shards are kept, the same command "
            f"resumes",
            str(path),
        ) from None


def read_statuses(out: Path) -> Iterator[tuple[list[int], dict[str, int], list[str], list[str]]]:
    """(item ids, modality -> how many have it, statuses, notes) of each shard."""
    for path in shard_paths(out):
        table = read_shard(path, vectors=False)
        masks = [name for name in table.column_names[1:] if name.startswith("has_")]
        present = {m.removeprefix("has_"): pc.sum(table[m]).as_py() for m in masks}
        rest = (table[name].to_pylist() for name in ("status", "note"))
        yield (table.column(0).to_pylist(), present, *rest)


def read_shard(path: Path, *, vectors: bool = True) -> pa.Table:
    """A shard, its M columns of vectors left out unless asked for; see `write_shard`."""
    names = pq.read_schema(path).names
    kept = names if vectors else [names[0], *names[1 + _modalities(names) :]]
    return pq.read_table(path, columns=kept)


def vector_columns(table: pa.Table) -> list[pa.ChunkedArray]:
    """The vectors of a whole shard, modality after modality."""
    return list(table.columns[1 : 1 + _modalities(table.column_names)])


def _modalities(names: Sequence[str]) -> int:
    """How many there are: each has two columns, and there are three others."""
    return (len(names) - 3) // 2


@contextmanager
def open_output(
    out: Path, identity: dict[str, Any], items: Fingerprint, *, restart: Restart, first: bool
) -> Iterator[None]:
    """Prepare `out` for writing; held until the block ends.

    Args:
        identity: JSON-able; what the shards are made from. Where only items were added at the end
            of the table, the shards that are there stay.
        items: fingerprint of the first so many items.
        restart: remove what an earlier run left instead of resuming it; "changed" only where it
            was made from something else.
        first: this is rank 0, which alone changes the folder here.

    Raises:
        InputError: the folder cannot be made or written, another run holds it, or its shards were
            made from something else.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = os.open(out / _LOCK, os.O_CREAT | os.O_RDWR, 0o644) if first else None
    except OSError as error:
        raise InputError(f"the output folder cannot be written ({error.strerror}): {out}") from None
    try:
        if lock is not None:
            try:
                # lockf, not flock: decoding processes must not inherit the lock and hold it for
                # a moment after this process was killed.
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                raise InputError(f"another run is writing to {out}") from None
            _prepare(out, as_json(identity), items, restart=restart)
        yield
    finally:
        if lock is not None:
            os.close(lock)


def read_ends(out: Path) -> list[int]:
    """How many items there were after each growth, in an output that was opened."""
    return ends_of(json.loads((out / EMBEDDED).read_text()))


def _prepare(out: Path, identity: dict[str, Any], items: Fingerprint, *, restart: Restart) -> None:
    for stale in out.glob(".*.tmp"):  # left by kill -9; the lock says that nobody writes them
        stale.unlink()
    old = out / EMBEDDED
    stored = _stored(old)
    grown = stored is not None and has_grown(stored, identity, items)
    alike = stored is not None and without_ends(stored) == identity
    if restart is True or (restart == "changed" and not (alike or grown)):
        # The identity goes first: shards without one are refused, never taken for new ones.
        for path in (old, *shard_paths(out), out / REPORT, out / CONTACT):
            path.unlink(missing_ok=True)
        stored, grown = None, False
    if shard_paths(out) and not old.exists():
        raise InputError(
            f"{out} holds shards but no {EMBEDDED} to say what they were made from; {_REMEDY}"
        )
    ends = ends_of(identity if stored is None else stored)
    if grown:
        ends.append(identity["items"]["count"])
    elif stored is not None:
        require_same(without_ends(stored), identity, where=out, remedy=_REMEDY)
    else:
        bind_identity(old, identity | {ENDS: ends}, remedy=_REMEDY)
    write_json(old, identity | {ENDS: ends})
    _rename(out, len(shard_rows(ends, identity["shard_size"])))


def _rename(out: Path, count: int) -> None:
    """Shards are called by how many there are; their number stays."""
    for path in shard_paths(out):
        name = shard_name(int(path.name.split("-")[1]), count)
        if path.name != name:
            path.rename(out / name)


def _stored(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("items"), dict) else None


def _fixed_lists(vectors: Vectors) -> pa.FixedSizeListArray:
    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])


# An item table that has grown at its end: what is there stays, the rest lies in shards of its own,
# so no shard is ever made again.


def shard_rows(ends: Sequence[int], size: int) -> list[range]:
    """The rows of each shard.

    >>> shard_rows([5, 7], 3)
    [range(0, 3), range(3, 5), range(5, 7)]
    """
    spans = zip([0, *ends], ends, strict=False)
    return [
        range(start, min(start + size, stop))
        for begin, stop in spans
        for start in range(begin, stop, size)
    ]


def ends_of(identity: Mapping[str, Any]) -> list[int]:
    """How many items there were after each growth."""
    return [int(end) for end in identity.get(ENDS, [identity["items"]["count"]])]


def without_ends(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What shards are made from, whenever."""
    return {name: value for name, value in identity.items() if name != ENDS}


def has_grown(stored: Mapping[str, Any], given: Mapping[str, Any], first: Fingerprint) -> bool:
    """Whether all is as it was, but for items at the end of the table.

    Args:
        stored, given: identities, of then and of now.
        first: fingerprint of the first so many items of now.
    """
    was, now = stored.get("items"), given.get("items")
    if not isinstance(was, dict) or not isinstance(now, dict):
        return False
    rest = [{k: v for k, v in without_ends(i).items() if k != "items"} for i in (stored, given)]
    return rest[0] == rest[1] and was["count"] < now["count"] and first(was["count"]) == was

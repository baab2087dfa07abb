"""Checkpoints: tensors as safetensors, the rest as JSON, whole or not there at all.

A checkpoint is two files, `NAME.safetensors` and `NAME.json`. The JSON is written last and holds
the size and SHA-256 of the tensors, so it is the commit: without it the tensors are leftovers of a
killed save. Nothing is ever unpickled. A checkpoint does not know how many ranks made it.
"""

import hashlib
import json
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmrec.errors import InputError, require
from mmrec.io.files import replacing, write_json
from mmrec.io.identity import as_json

Kind = Literal["last", "best"]
FORMAT = 5


class Damaged(InputError):
    """A checkpoint that is not as it was written."""


@dataclass(frozen=True)
class Checkpoint:
    """One loaded checkpoint.

    Attributes:
        path: its JSON file.
        step: optimizer steps taken.
        tensors: by name: `model/…` weights, and in a `last` one `optimizer/…`, `ema/…`, `scaler/…`.
        content: the JSON: recipe, setting, data, progress, metrics, command and versions.
    """

    path: Path
    step: int
    tensors: dict[str, Tensor]
    content: dict[str, Any]

    @property
    def recipe(self) -> dict[str, Any]:
        """What the model was built from, as given to `fit`."""
        return dict(self.content["recipe"])

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under `prefix/`, without it."""
        start = f"{prefix}/"
        return {k[len(start) :]: v for k, v in self.tensors.items() if k.startswith(start)}


def save_checkpoint(
    directory: Path,
    kind: Kind,
    step: int,
    *,
    tensors: Mapping[str, Tensor],
    content: Mapping[str, Any],
) -> Path:
    """Write one checkpoint whole; returns its JSON path.

    Raises:
        InputError: it cannot be written (no space, no permission), in one sentence. Earlier
            checkpoints are untouched.
    """
    path = checkpoint_path(directory, kind, step)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        weights = path.with_suffix(".safetensors")
        with replacing(weights) as temporary:
            # Copies: no two may share memory, and tied weights do.
            how: dict[str, Any] = {"copy": True, "memory_format": torch.contiguous_format}
            save_file({k: v.detach().to("cpu", **how) for k, v in tensors.items()}, temporary)
            seal = {"bytes": temporary.stat().st_size, "sha256": _digest(temporary)}
        body = as_json(dict(content) | {"format": FORMAT, "step": step, "tensors": seal})
        body["seal"] = _seal(body)
        write_json(path, body)
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(f"cannot write checkpoint {path}: {reason}") from error
    return path


def checkpoint_path(directory: Path, kind: Kind, step: int) -> Path:
    """The JSON file of a checkpoint."""
    return directory / f"{kind}-{step:010d}.json"


def load_checkpoint(path: Path | str, which: Kind = "best") -> Checkpoint:
    """Read a checkpoint: a `.json` file of one, or the newest complete one in a directory.

    A directory may be the checkpoint directory or the `out` of a training run. A damaged newest
    one is named on stderr and the one before it is taken.

    Raises:
        InputError: there is none, every one of them is damaged, or another version wrote it.
    """
    path = Path(path)
    if not path.is_dir():
        require(path.is_file(), f"no checkpoint at {path}")
        return _read(path)
    directory = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    found = newest_checkpoint(directory, which)
    if found is None:
        raise InputError(f"no {which} checkpoint in {directory}")
    return found


def newest_checkpoint(directory: Path, kind: Kind) -> Checkpoint | None:
    """The newest complete checkpoint, None where there is none at all.

    Raises:
        InputError: there are some and all are damaged, or another version wrote the newest.
    """
    damage = []
    for path in checkpoint_files(directory, kind):
        try:
            return _read(path)
        except Damaged as error:
            damage.append(error)
            print(f"passed over: {error}", file=sys.stderr)
    if damage:
        raise InputError(f"every checkpoint in {directory} is damaged; the newest: {damage[0]}")
    return None


def checkpoint_files(directory: Path, kind: Kind) -> list[Path]:
    """The JSON files of this kind, newest first."""
    return sorted(directory.glob(f"{kind}-{'[0-9]' * 10}.json"), reverse=True)


def prune(directory: Path, kind: Kind, *, keep: Collection[Path]) -> None:
    """Remove all checkpoints of this kind but `keep`, and what killed saves left behind."""
    for path in checkpoint_files(directory, kind):
        if path not in keep:
            path.unlink(missing_ok=True)  # the commit first: never a JSON without its tensors
    for path in directory.glob(f"{kind}-*.safetensors"):
        if not path.with_suffix(".json").exists():
            path.unlink(missing_ok=True)
    for path in directory.glob(f".{kind}-*.tmp"):
        path.unlink(missing_ok=True)


def load_weights(
    model: nn.Module, checkpoint: Checkpoint, state: Mapping[str, Tensor] | None = None
) -> None:
    """Put the checkpoint's weights into `model` (from a `best` one: those that were evaluated).

    Args:
        state: what became of them for this model; None = as they are.

    Raises:
        InputError: they do not fit the model.
    """
    try:
        model.load_state_dict(checkpoint.part("model") if state is None else state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{checkpoint.path} does not fit this model: {reason}") from error


def _read(path: Path) -> Checkpoint:
    try:
        content = json.loads(path.read_text())
        written, seal = content["format"], content.pop("seal")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"checkpoint {path} is damaged: {error!r}") from error
    require(
        written == FORMAT,
        f"checkpoint {path} was written by another version of mmrec (format {written}, this "
        f"reads {FORMAT}): train again with this version, or predict with the one that wrote it",
    )
    if seal != _seal(content):
        raise Damaged(f"checkpoint {path} is damaged: its own checksum does not match")
    weights = path.with_suffix(".safetensors")
    kept = content["tensors"]
    try:
        if weights.stat().st_size != kept["bytes"] or _digest(weights) != kept["sha256"]:
            raise Damaged(f"checkpoint {weights} is damaged: its checksum does not match")
        tensors = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise Damaged(f"checkpoint {weights} is damaged: {error}") from error
    return Checkpoint(path=path, step=content["step"], tensors=tensors, content=content)


def _digest(path: Path) -> str:
    return hashlib.sha256(np.memmap(path, mode="r").data).hexdigest()


def _seal(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def is_finite(tensors: Mapping[str, Tensor]) -> bool:
    """True where every floating tensor holds only finite numbers."""
    return all(bool(t.isfinite().all()) for t in tensors.values() if t.is_floating_point())

"""A ranker as one file that runs without this library: a `torch.export` program, or ONNX.

The items are encoded before, so that what is written is their table and what reads it. Beside the
program lies its manifest, `<path>.json`: what goes in and comes out, in plain words.

B rows, L history, N candidates, T tasks.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from mmrec.errors import InputError, positive, require
from mmrec.io.files import replacing, require_file, write_json
from mmrec.io.hashing import sha256_of
from mmrec.io.provenance import provenance
from mmrec.models.ranker import Ranker
from mmrec.schema import Schema
from mmrec.serve.network import Candidates, SharedRanker, Users

FORMATS = ("pt2", "onnx")
FORMS = ("rows", "user")
OPSET = 18
_UNBOUNDED = 100  # history items of a ranker that reads all of them


@dataclass(frozen=True)
class ExportOptions:
    """What is written.

    Attributes:
        format: "pt2" (`torch.export.load`) or "onnx" (onnxruntime).
        form: "rows", each with a history and a target of its own; or "user", one history and its
            candidates, which shares what the history gives.
        length: history items that are read, the newest; None = as many as the ranker reads, or 100
            where it reads all.
    """

    format: str = "pt2"
    form: str = "rows"
    length: int | None = None

    def __post_init__(self) -> None:
        for name, known in (("format", FORMATS), ("form", FORMS)):
            value = getattr(self, name)
            require(value in known, f"{name} must be {' or '.join(known)}, got {value!r}")
        if self.length is not None:
            positive(length=self.length)


@dataclass(frozen=True)
class Input:
    """One tensor that goes in.

    Attributes:
        name: of the role; `target` or `candidates` are rows of the item table.
        dtype: "int64" or "float32".
        shape: sizes, or names of those that are free.
        columns: of the schema, in their order.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    columns: tuple[str, ...] = ()


def export(
    ranker: Ranker,
    path: str | Path,
    *,
    schema: Schema | None = None,
    options: ExportOptions | None = None,
) -> Path:
    """Write a program that gives the ranker's logits, and its manifest; both whole.

    Its batch and its histories may have any size from 1 on; a longer history is cut to the newest.

    Args:
        path: of the program; `<path>.json` is the manifest.
        schema: what the columns are called, for the manifest.

    Returns:
        The manifest.

    Raises:
        InputError: an option that there is none of, onnx without its packages, or a part that
            cannot be written in this format; a folder where a file goes.
    """
    options, path = options or ExportOptions(), require_file(path)
    manifest = require_file(manifest_of(path))
    if options.format == "onnx":
        _need_onnx()
    network = SharedRanker(ranker).cpu().float()
    length = options.length or ranker.newest or _UNBOUNDED
    length = min(length, ranker.newest or length)
    inputs = _inputs(network, options.form, schema)
    program = _Program(network, [one.name for one in inputs], options.form, length).eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        _write(program, inputs, temporary, options.format)
    told = _told(ranker, inputs, schema, options)
    write_json(manifest, {**told, "history_items": length, "sha256": sha256_of(str(path))})
    return manifest


def manifest_of(path: Path) -> Path:
    """Beside the program."""
    return path.with_name(path.name + ".json")


class _Program(nn.Module):
    """Tensors in the order of `names` -> logits (B,) or (B, T).

    Histories are brought to one length inside: a slice of the newest of L would write L down.
    """

    def __init__(self, network: SharedRanker, names: Sequence[str], form: str, length: int) -> None:
        super().__init__()
        self.network, self.names, self.length = network, tuple(names), length
        self.of_user = form == "user"

    def forward(self, *tensors: Tensor) -> Tensor:
        given = dict(zip(self.names, tensors, strict=True))
        if self.of_user:  # one user: a leading axis of one
            given = {name: tensor.unsqueeze(0) for name, tensor in given.items()}
            ids, rows = given["candidates"], 1
        else:  # as many users as rows, of one candidate each
            ids, rows = given["target"].unsqueeze(1), 0
        history = self._newest(given["history"])
        ones = history[:, :1] if self.of_user else history[:, 0]
        network = self.network

        def columns(name: str, like: Tensor, dtype: torch.dtype) -> Tensor:
            if name not in given:
                return like.new_zeros((*like.shape, 0), dtype=dtype)
            found = given[name]
            if name.startswith("history"):
                return self._newest(found)
            return found if rows else found.unsqueeze(1)

        users = Users(
            history=history,
            user=given["user"].reshape(-1) if "user" in given else ones.reshape(-1),
            history_categorical=columns("history_categorical", history, torch.int64),
            history_numeric=columns("history_numeric", history, torch.float32),
        )
        categorical = columns("categorical", ids, torch.int64)
        numeric = columns("numeric", ids, torch.float32)
        logits: Tensor = network(users, Candidates(ids, categorical, numeric))
        logits = logits.squeeze(0) if self.of_user else logits.squeeze(1)
        return logits.squeeze(-1) if len(network.tasks) == 1 else logits

    def _newest(self, x: Tensor) -> Tensor:
        """(U, L, …) -> (U, length, …), padded or cut on the left."""
        padding = x.new_zeros((x.shape[0], self.length, *x.shape[2:]))
        return torch.cat([padding, x], dim=1)[:, -self.length :]


def _inputs(network: SharedRanker, form: str, schema: Schema | None) -> list[Input]:
    """What this ranker reads of a row, or of a user and their candidates."""
    clicks = None if schema is None else schema.clicks

    def names(role: str) -> tuple[str, ...]:
        found = () if clicks is None else getattr(clicks, role)
        return tuple(column if isinstance(column, str) else column.name for column in found)

    of_user: tuple[str, ...] = () if form == "user" else ("batch",)
    rows = "candidates" if form == "user" else "batch"
    one: tuple[int | str, ...] = (1,) if form == "user" else ("batch",)
    target = "candidates" if form == "user" else "target"
    found = [
        Input("history", "int64", (*of_user, "length")),
        Input(target, "int64", (rows,)),
    ]
    if network.user_index is not None:
        found.append(Input("user", "int64", one))
    (categories, numbers), (of_history, of_moment) = network.row_widths, network.history_widths
    for name, dtype, shape, width in (
        ("categorical", "int64", (rows,), categories),
        ("numeric", "float32", (rows,), numbers),
        ("history_categorical", "int64", (*of_user, "length"), of_history),
        ("history_numeric", "float32", (*of_user, "length"), of_moment),
    ):
        if width:
            found.append(Input(name, dtype, (*shape, width), names(name)))
    return found


def _write(program: _Program, inputs: Sequence[Input], path: Path, format: str) -> None:
    free = {name: Dim(name, min=1) for name in ("batch", "candidates", "length")}
    shapes = tuple(
        {axis: free[size] for axis, size in enumerate(one.shape) if isinstance(size, str)}
        for one in inputs
    )
    # Sizes of an example that are unlike one another and unlike 0 and 1 stay free.
    sizes = {"batch": 5, "candidates": 7, "length": 3}

    def some(one: Input) -> Tensor:
        shape = [sizes[size] if isinstance(size, str) else size for size in one.shape]
        return torch.ones(shape, dtype=getattr(torch, one.dtype))

    example = tuple(some(one) for one in inputs)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = torch.export.export(program, example, dynamic_shapes=(shapes,), strict=False)
            (_write_onnx if format == "onnx" else _write_pt2)(made, inputs, path)
    except (InputError, OSError):
        raise
    except Exception as error:
        kind = type(program.network.sequence).__name__
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise InputError(
            f"this ranker (history: {kind}) cannot be written as {format}: "
            f"{type(error).__name__}: {first}"
        ) from error


def _write_pt2(made: Any, inputs: Sequence[Input], path: Path) -> None:
    with path.open("wb") as file:
        torch.export.save(made, file)


def _write_onnx(made: Any, inputs: Sequence[Input], path: Path) -> None:
    names = [one.name for one in inputs]
    found = torch.onnx.export(
        made,
        input_names=names,
        output_names=["logits"],
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    require(found is not None, "onnx gave no program")
    path.write_bytes(found.model_proto.SerializeToString())  # type: ignore[union-attr]


def _need_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise InputError("ONNX needs its packages: pip install 'mmrec[serve]'") from None


def _told(
    ranker: Ranker, inputs: Sequence[Input], schema: Schema | None, options: ExportOptions
) -> dict[str, Any]:
    tasks = list(ranker.tasks)
    rows = "candidates" if options.form == "user" else "batch"
    catalogue: Any = ranker.catalogue
    keys = None if catalogue is None else catalogue.keys
    return {
        "format": options.format,
        "form": options.form,
        "inputs": [vars(one) for one in inputs],
        "outputs": [
            {
                "name": "logits",
                "dtype": "float32",
                "shape": [rows] if len(tasks) == 1 else [rows, len(tasks)],
            }
        ],
        "tasks": tasks,
        "items": ranker.items.num_items,
        "keys": None if keys is None else keys.to_pylist(),
        "schema": None if schema is None else schema.to_dict(),
        "versions": provenance()["versions"],
    }

"""Exported programs give the ranker's logits, for batches and histories of every size."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from slow_variants import thorough

from mmrec import Batch, InputError, Part, build_ranker, get_recipe
from mmrec.models import Ranker
from mmrec.nn.fusion import FUSIONS
from mmrec.serve.export import ExportOptions, export
from mmrec.serve.network import Candidates, SharedRanker, Users

SIZES = (1, 2, 97, 1000, 4096)
# What reads a program knows nothing of mmrec: names, dtypes and shapes are in the manifest.
READER = """
import json, sys
import numpy as np
path, arrays, out = sys.argv[1:]
told = json.load(open(path + ".json"))
given = np.load(arrays)
batches = sorted({int(name.split(".")[0]) for name in given})
if told["format"] == "onnx":
    import onnxruntime
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    ask = lambda inputs: session.run(["logits"], inputs)[0]
else:
    import torch
    program = torch.export.load(open(path, "rb")).module()
    ask = lambda inputs: program(*map(torch.from_numpy, inputs.values())).numpy()
found = {}
for rows in batches:
    inputs = {one["name"]: given[f"{rows}.{one['name']}"] for one in told["inputs"]}
    found[str(rows)] = ask(inputs)
assert not {"mmrec", "pyarrow"} & set(sys.modules)
np.savez(out, **found)
"""


def sized(batch: Batch, rows: int, longer: int = 0) -> Batch:
    """So many rows, the histories with more padding."""
    taken = batch.map(lambda tensor: tensor[torch.arange(rows) % len(batch)])
    pad = {
        name: torch.cat([(x := getattr(taken, name)).new_zeros(rows, longer, *x.shape[2:]), x], 1)
        for name in ("history", "history_categorical", "history_numeric")
    }
    return replace(taken, **pad)


def of_one_user(batch: Batch) -> Batch:
    names = ("history", "user", "history_categorical", "history_numeric")
    first = {name: getattr(batch, name)[[0] * len(batch)] for name in names}
    return replace(batch, **first)


def given(batch: Batch, manifest: dict[str, Any]) -> dict[str, np.ndarray]:
    """What the manifest asks for."""
    found = {}
    for one in manifest["inputs"]:
        name = one["name"]
        values = getattr(batch, "target" if name == "candidates" else name)
        if manifest["form"] == "user" and name.startswith("history"):
            values = values[0]
        found[name] = (values[:1] if one["shape"] == [1] else values).numpy()
        assert str(found[name].dtype) == one["dtype"]
        for axis, size in enumerate(one["shape"]):
            assert isinstance(size, str) or found[name].shape[axis] == size
    return found


@pytest.mark.parametrize(
    ("format", "form"),
    [
        ("pt2", "user"),
        thorough("pt2", "rows"),
        thorough("onnx", "rows"),
        thorough("onnx", "user"),
    ],
)
def test_a_fresh_process_without_mmrec_gives_the_rankers_logits(
    format: str, form: str, shop: Any, tmp_path: Path
) -> None:
    """Every role, two tasks, known users, hashed and searched values."""
    ranker, path = shop.ranker().float(), tmp_path / f"ranker.{format}"
    options = ExportOptions(format=format, form=form)
    manifest = json.loads(
        export(ranker, path, schema=shop.data.schema, options=options).read_text()
    )
    assert manifest["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert manifest["tasks"] == ["click", "buy"]
    columns = {one["name"]: one["columns"] for one in manifest["inputs"]}
    assert columns["numeric"] == ["price", "position", "discount"]
    batches = {
        rows: sized(shop.batch, rows, longer) for rows, longer in zip(SIZES, range(5), strict=True)
    }
    if form == "user":
        batches = {rows: of_one_user(batch) for rows, batch in batches.items()}
    arrays = {
        f"{rows}.{name}": values
        for rows, batch in batches.items()
        for name, values in given(batch, manifest).items()
    }
    np.savez(tmp_path / "in.npz", **arrays)
    words = [sys.executable, "-W", "ignore", "-c", READER, str(path), "in.npz", "out.npz"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "out.npz")
    for rows, batch in batches.items():
        with torch.no_grad():
            want = ranker(batch).numpy()
        np.testing.assert_allclose(found[str(rows)], want, rtol=1e-5, atol=1e-5)


PLAIN = {"items.content_dim": 6, "interaction.mlp": (5,), "context.dim": 0, "context.numeric": None}
PLAIN |= {"history.features": False, "context.user_dim": 0, "context.wide": False}
PARALLEL = {"encoders": ["mean", {"name": "relu", "heads": 2}]}
TRANSFORMER = Part("transformer", {"last": 3, "heads": 2, "width": 6, "positions": 4})
ENCODERS = {
    "mean": "mean",
    "none": "none",
    "din": Part("din", {"softmax": True}),
    "relu": "relu",
    "parallel": Part("parallel", PARALLEL),
    "transformer": TRANSFORMER,
}
CROSSES = {"full": "full", "low": Part("low_rank", {"rank": 2}), "mix": Part("mix", {"rank": 2})}
EACH = [*((encoder, "full") for encoder in ENCODERS), *(("mean", cross) for cross in CROSSES)]
MATRIX = [
    ("onnx", "din", "low"),
    ("pt2", "relu", "full"),
    *(thorough(format, *pair) for format in ("pt2", "onnx") for pair in EACH),
    thorough("pt2", "transformer", "mix"),
]


def check(ranker: Ranker, batch: Batch, path: Path, options: ExportOptions) -> None:
    """Here, since a process for each would take long."""
    manifest = json.loads(export(ranker, path, options=options).read_text())
    if options.format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    else:
        with path.open("rb") as file:
            program = torch.export.load(file).module()
    for rows, longer in ((1, 1), (2, 0), (97, 3)):
        some = sized(batch, rows, longer)
        inputs = given(some, manifest)
        with torch.no_grad():
            want = ranker(some).numpy()
            if options.format == "onnx":
                got = session.run(["logits"], inputs)[0]
            else:
                got = program(*map(torch.from_numpy, inputs.values())).numpy()
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("format", "encoder", "cross"), MATRIX)
def test_encoders_and_interactions_export(
    format: str, encoder: str, cross: str, shop: Any, tmp_path: Path
) -> None:
    changes = {"history.encoder": ENCODERS[encoder], "interaction.cross": CROSSES[cross]}
    changes |= {
        "history.affinity": 0,
        "history.recency": 0,
        "interaction.bottleneck": 7 if cross == "mix" else None,
    }
    ranker = shop.ranker(get_recipe("small"), **PLAIN, **changes).float()
    check(ranker, shop.batch, tmp_path / "program", ExportOptions(format=format, length=6))


def fused_by(name: str, shop: Any) -> Ranker:
    options: dict[str, Any] = {"codes": 5} if name.startswith("semantic") else {}
    options |= {"modality": "text"} if name == "precomputed" else {}
    context = {"context.dim": 2} if name == "film" else {}
    width = {"items.content_dim": 3 if name == "precomputed" else 6, "items.components": 0}
    changes = PLAIN | context | width | {"items.fusion": Part(name, options)}
    return shop.ranker(get_recipe("small"), **changes)


def test_every_fusion_is_in_the_items_rows(shop: Any) -> None:
    """The program reads their table, whatever made it."""
    for name in sorted(FUSIONS):
        ranker, batch = fused_by(name, shop), shop.batch
        users = Users(batch.history, batch.user, batch.history_categorical, batch.history_numeric)
        columns = batch.categorical.unsqueeze(1), batch.numeric.unsqueeze(1)
        with torch.no_grad():
            want = ranker(batch)
            got = SharedRanker(ranker)(users, Candidates(batch.target.unsqueeze(1), *columns))
        torch.testing.assert_close(got.squeeze(1), want, rtol=1e-6, atol=1e-6, msg=name)


@pytest.mark.parametrize("format", [thorough("pt2"), thorough("onnx")])
@pytest.mark.parametrize("name", sorted(FUSIONS))
def test_every_fusion_exports(name: str, format: str, shop: Any, tmp_path: Path) -> None:
    ranker = fused_by(name, shop).float()
    check(ranker, shop.batch, tmp_path / "program", ExportOptions(format=format, length=6))


@pytest.mark.parametrize("form", [thorough("rows"), thorough("user")])
def test_a_program_compiles_ahead_of_time(form: str, shop: Any, tmp_path: Path) -> None:
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        pytest.skip(f"AOTInductor needs a C++ compiler, there is no {compiler}")
    ranker, path = shop.ranker().float(), tmp_path / "ranker.pt2"
    manifest = json.loads(export(ranker, path, options=ExportOptions(form=form)).read_text())
    with path.open("rb") as file:
        program = torch.export.load(file)
    package = str(tmp_path / "compiled.pt2")
    torch._inductor.aoti_compile_and_package(program, package_path=package)
    compiled = torch._inductor.aoti_load_package(package)
    for rows, longer in ((1, 1), (2, 0), (97, 3), (1000, 1)):
        some = sized(shop.batch, rows, longer)
        some = of_one_user(some) if form == "user" else some
        with torch.no_grad():
            want = ranker(some).numpy()
            got = compiled(*map(torch.from_numpy, given(some, manifest).values())).numpy()
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("format", [thorough("pt2"), thorough("onnx")])
@pytest.mark.parametrize("change", ["tiers", "film", "long"])
def test_parts_that_look_beyond_the_rows_export(
    format: str, change: str, shop: Any, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {
        "tiers": {"history.tiers": 5},
        "film": {"items.fusion": "film", "items.content_width": None},
        "long": {"history.newest": 3},
    }[change]
    ranker = shop.ranker(**{"items.components": 0, **changes}).float()
    check(ranker, shop.batch, tmp_path / "program", ExportOptions(format=format))


class Strange(torch.nn.Module):
    """Decides by what it sees, which no program can."""

    out_dim = 1

    def forward(self, history: Any, target: Any, valid: Any) -> Any:
        return target[:, :1] * (1 if float(history.sum()) > 0 else -1)


def test_what_cannot_be_written_says_so_in_a_sentence(shop: Any, tmp_path: Path) -> None:
    ranker = shop.ranker(
        get_recipe("small"), **PLAIN, **{"history.affinity": 0, "history.recency": 0}
    )
    ranker.sequence = Strange()
    with pytest.raises(InputError, match=r"history: Strange\) cannot be written as pt2"):
        export(ranker, tmp_path / "x")
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="format must be pt2 or onnx, got 'jit'"):
        ExportOptions(format="jit")


def test_the_ranker_itself_exports_for_batches_on_both_sides_of_the_table(shop: Any) -> None:
    """The choice between encoding a batch's ids and the whole table is no part of the program."""
    ranker = shop.ranker(
        get_recipe("small"), **PLAIN, **{"history.affinity": 0, "history.recency": 0}
    )

    class Bare(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ranker = ranker

        def forward(self, history: Any, target: Any) -> Any:
            return self.ranker(Batch.of(history=history, target=target))

    rows = torch.export.Dim("rows", min=1)
    example = shop.batch.history[:3], shop.batch.target[:3]
    dynamic = {"history": {0: rows}, "target": {0: rows}}
    program = torch.export.export(Bare(), example, dynamic_shapes=dynamic, strict=False).module()
    for count in (2, 60):
        history, target = shop.batch.history[:count], shop.batch.target[:count]
        want = ranker(Batch.of(history=history, target=target))
        torch.testing.assert_close(program(history, target), want)


def test_the_same_search_without_searchsorted() -> None:
    from mmrec.nn.search import _halved, place_in

    for count in (1, 2, 3, 7, 8, 9, 100):
        known = torch.randint(-50, 50, (300,)).unique()[:count]
        values = torch.arange(-60, 60)
        torch.testing.assert_close(_halved(known, values), place_in(known, values))


def test_keys_stand_in_the_manifest(shop: Any, tmp_path: Path) -> None:
    import pyarrow as pa

    items = replace(shop.items, keys=pa.array(["", *(f"sku-{i}" for i in range(1, 41))]))
    inputs = replace(shop.inputs, catalogue=type(shop.inputs.catalogue).of(items))
    recipe = get_recipe("small").changed(
        PLAIN | {"history.affinity": 0, "history.recency": 0, "history.encoder": "none"}
    )
    ranker = build_ranker(recipe, items, inputs)
    told = json.loads(export(ranker, tmp_path / "x").read_text())
    assert told["keys"][:3] == ["", "sku-1", "sku-2"]
    assert told["items"] == 41
    assert [one["name"] for one in told["inputs"]] == ["history", "target"]

"""Any modalities: encoders of pictures, of captions and of any column; several pictures an item."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from odd_pictures import encoded, photo
from torch import Tensor
from toy_encoder import ToyEncoder, read_output

from mmrec.cli import EXIT_BAD_INPUT, run
from mmrec.data.items import ItemTable
from mmrec.embed import Encoder, ValueEncoder, embed_items
from mmrec.embed.__main__ import main
from mmrec.errors import InputError
from mmrec.schema import Items

ITEMS = 23
SCHEMA = Items("item_id", title="item_title", modalities={"text": "words", "tune": "sound"})


@dataclass
class Tunes:
    """Of a column of lists of numbers: their sums and lengths."""

    column: str = "melody"
    name: str = "tunes"
    out_dim: int = 2
    threads: int | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def fingerprint(self) -> dict[str, Any]:
        return {"tunes": 1}

    def prepare(self, values: Sequence[tuple[int, ...]]) -> Tensor:
        return torch.tensor([[sum(value), len(value)] for value in values])

    def encode(self, batch: Tensor) -> Tensor:
        return batch.float()


def melody(item: int) -> list[int] | None:
    return None if item % 4 == 0 else [item % 5, 7, item % 2]


def make(tmp_path: Path, pictures: pa.Array | None = None) -> Path:
    ids = list(range(1, ITEMS + 1))
    table = {"item_id": ids, "item_title": [f"title {i % 7}" for i in ids]}
    table["melody"] = [melody(i) for i in ids]
    if pictures is not None:
        table["covers"] = pictures
    path = tmp_path / "items.parquet"
    pq.write_table(pa.table(table), path)
    return path


@pytest.mark.parametrize("workers", [0, 2])
def test_a_column_of_ones_own_is_a_modality(tmp_path: Path, workers: int) -> None:
    items, out = make(tmp_path), tmp_path / "out"
    encoders: dict[str, Encoder] = {"tune": Tunes(), "text": ToyEncoder().towers["text"]}
    assert isinstance(encoders["tune"], ValueEncoder)
    how: dict[str, Any] = {"items": items, "images": None, "schema": SCHEMA, "workers": workers}
    report = embed_items(encoders, **how, out=out, shard_size=10, batch_size=3)
    assert report.present == {"text": ITEMS, "tune": ITEMS - ITEMS // 4}
    assert report.dims == {"text": 7, "tune": 2}
    output = read_output(out)
    assert list(output)[:5] == ["item_id", "words", "sound", "has_text", "has_tune"]
    for row, item in enumerate(range(1, ITEMS + 1)):
        tune = melody(item)
        assert output["has_tune"][row] == (tune is not None)
        assert output["sound"][row] == ([0, 0] if tune is None else [sum(tune), len(tune)])
    assert embed_items(encoders, **how, out=out, shard_size=10).items_now == 0
    with pytest.raises(InputError, match="encoders"):
        embed_items({"text": encoders["text"]}, **how, out=out, shard_size=10)


def test_what_was_embedded_is_read_as_those_modalities(tmp_path: Path) -> None:
    items, out = make(tmp_path), tmp_path / "out"
    encoders: dict[str, Encoder] = {"tune": Tunes(), "text": ToyEncoder().towers["text"]}
    embed_items(encoders, items=items, images=None, schema=SCHEMA, out=out, workers=0)
    info = tmp_path / "item_info.parquet"
    pq.write_table(pa.table({"item_id": range(ITEMS + 1)}), info)
    table = ItemTable.read(info, SCHEMA, out)
    assert {name: x.shape[1] for name, x in table.vectors.items()} == {"text": 7, "tune": 2}
    assert table.origin is not None
    assert set(table.origin["encoders"]) == {"text", "tune"}


def pictures_of(item: int) -> list[bytes]:
    """None, one, or up to three, one of which cannot be read."""
    found = [encoded(photo(30, 30, seed=(item + place) % 5)) for place in range(item % 4)]
    return [*found[:1], b"no picture", *found[1:]] if item % 3 == 0 else found


@pytest.mark.parametrize("several", ["mean", "first"])
@pytest.mark.parametrize("as_files", [False, True])
def test_several_pictures_are_one_vector(tmp_path: Path, several: str, as_files: bool) -> None:
    every = [pictures_of(item) for item in range(1, ITEMS + 1)]
    if as_files:
        names = [[f"{i}_{j}.jpg" for j in range(len(own))] for i, own in enumerate(every)]
        for own, called in zip(every, names, strict=True):
            for data, name in zip(own, called, strict=True):
                (tmp_path / name).write_bytes(data)
        column = pa.array(names, pa.list_(pa.string()))
    else:
        column = pa.array(every, pa.list_(pa.binary()))
    items = make(tmp_path, column)
    toy = ToyEncoder()
    embed_items(
        {"image": toy.towers["image"], "text": toy.towers["text"]}, items=items, images=None,
        image_column="covers", several=several, out=tmp_path / "out", workers=0, dtype="float32",
        shard_size=9,
    )  # fmt: skip
    output = read_output(tmp_path / "out")
    single = {data: alone(tmp_path, data) for own in every for data in own}
    for row, own in enumerate(every):
        read = [single[data] for data in (own if several == "mean" else own[:1])]
        vectors = [vector for vector in read if vector is not None]
        assert output["has_image"][row] == bool(vectors)
        assert output["status"][row] == ("ok" if vectors else "not an image" if own else "missing")
        if vectors:
            np.testing.assert_allclose(output["image_emb"][row], np.mean(vectors, 0), atol=1e-5)


@pytest.mark.parametrize("several", ["mean", "first"])
def test_names_by_a_template_are_as_a_column_of_them(
    tmp_path: Path, several: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the command line; `1.jpg` is not of the template."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    folder = tmp_path / "images"
    folder.mkdir()
    names: list[list[str]] = []
    for item in range(1, ITEMS + 1):
        names.append([f"{item}_{place}.jpg" for place in (2, 10)[: item % 3]])
        for name in [*names[-1], f"{item}.jpg"]:
            (folder / name).write_bytes(encoded(photo(30, 30, seed=len(name) * item)))
    items = make(tmp_path, pa.array(names, pa.list_(pa.string())))
    given = ["--items", str(items), "--images", str(folder), "--quiet", "--workers", "0"]
    given += ["--modality", "image=test_modalities:make_pictures", "--several", several]
    main([*given, "--image-names", "{id}_{n}", "--out", str(tmp_path / "named")])
    main([*given, "--image-column", "covers", "--out", str(tmp_path / "listed")])
    found = [read_output(tmp_path / place) for place in ("named", "listed")]
    assert found[0] == found[1]
    assert found[0]["has_image"] == [bool(own) for own in names]
    for wrong in (
        ["--image-column", "covers", "--image-names", "{id}_{n}"],
        ["--image-names", "x"],
    ):
        with pytest.raises(
            InputError, match=r"image_names is of a folder|template of picture names"
        ):
            main([*given, *wrong, "--out", str(tmp_path / "wrong")])
    with pytest.raises(InputError, match=r"was made with .*image_names"):
        main([*given, "--image-names", "{id}", "--out", str(tmp_path / "named")])


def make_pictures(device: str) -> Encoder:
    """What `--modality image=test_modalities:make_pictures` calls."""
    return ToyEncoder().towers["image"]


def alone(tmp_path: Path, data: bytes) -> Any:
    """The vector of a picture by itself."""
    path, out = tmp_path / "one.parquet", tmp_path / "one"
    table = {"item_id": [1], "item_title": ["a"], "cover": pa.array([data], pa.binary())}
    pq.write_table(pa.table(table), path)
    embed_items(
        {"image": ToyEncoder().towers["image"]}, items=path, images=None, image_column="cover",
        out=out, workers=0, dtype="float32", restart=True, contact_sheet=0,
    )  # fmt: skip
    output = read_output(out)
    return output["image_emb"][0] if output["has_image"][0] else None


def test_two_encoders_of_pictures_each_have_their_own_size(tmp_path: Path) -> None:
    small, images = ToyEncoder(image_dim=3, seed=4), tmp_path / "images"
    images.mkdir()
    for item in range(1, ITEMS + 1):
        (images / f"{item}.jpg").write_bytes(encoded(photo(40, 30, seed=item)))
    both = {"image": ToyEncoder().towers["image"], "cover": small.towers["image"]}
    how: dict[str, Any] = {"items": make(tmp_path), "images": images, "workers": 1}
    embed_items(both, **how, out=tmp_path / "both")
    together = read_output(tmp_path / "both")
    for name in both:
        embed_items({name: both[name]}, **how, out=tmp_path / name)
        column = "image_emb" if name == "image" else name
        assert read_output(tmp_path / name)[column] == together[column]


def make_tunes(device: str) -> Tunes:
    """What `--modality tune=test_modalities:make_tunes` calls."""
    return Tunes(device=torch.device(device if device != "auto" else "cpu"))


def test_the_command_takes_an_encoder_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_encoders.py").write_text("from test_modalities import make_tunes\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    items, out = make(tmp_path), tmp_path / "out"
    given = ["--items", str(items), "--out", str(out), "--quiet", "--workers", "0"]
    main([*given, "--modality", "tune=own_encoders:make_tunes"])
    assert list(read_output(out))[:2] == ["item_id", "tune"]
    for wrong in ("tune=nowhere:make", "tune=own_encoders:nothing", "tune=clip", "tune"):
        with pytest.raises(InputError, match=r"an encoder is one of clip-image|reads NAME=VALUE"):
            main([*given, "--modality", wrong])


class Without(Tunes):
    """A function that wants a package which is not there."""

    def __init__(self, device: str) -> None:
        import no_such_package_of_encoders  # noqa: F401


@pytest.mark.parametrize(
    ("modality", "sentence"),
    [
        ("tune=own:number", "there is no such function"),
        ("tune=own:", "there is no such function"),
        ("tune=..:make", "there is no such function"),
        ("tune=own:no_device", "unexpected keyword argument 'device'"),
        ("tune=own:Without", "cannot make the encoder of tune: No module named"),
        ("type=own:make_tunes", "not like a member of nn.Module, got 'type'"),
        ("my tune=own:make_tunes", "letters, digits and _.*got 'my tune'"),
        ("note=own:make_tunes", "names of their own, got note 2 times"),
        ("item_id=own:make_tunes", "names of their own, got item_id 2 times"),
    ],
)
def test_a_wrong_modality_is_one_sentence(
    modality: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    given = "from test_modalities import Without, make_tunes\nnumber, no_device = 3, lambda: 3\n"
    (tmp_path / "own.py").write_text(given)
    monkeypatch.delitem(sys.modules, "own", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    out = tmp_path / "out"
    command = ["--items", str(make(tmp_path)), "--out", str(out), "--modality", modality]
    with pytest.raises(SystemExit) as left:
        run(lambda: main(command))
    said = capsys.readouterr().err
    assert left.value.code == EXIT_BAD_INPUT
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert re.search(sentence, said), said
    assert not out.exists()


@dataclass
class Wrong(Tunes):
    """Breaks one rule of the protocol."""

    prepared: Any = None
    encoded: Any = None

    def prepare(self, values: Sequence[Any]) -> Any:
        return super().prepare(values) if self.prepared is None else self.prepared

    def encode(self, batch: Tensor) -> Any:
        return super().encode(batch) if self.encoded is None else self.encoded(batch)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"encoded": lambda x: x[:, :1]}, r"shape \(3, 2\) for a batch of 3 .*got \(3, 1\)"),
        ({"encoded": lambda x: x[1:]}, r"shape \(3, 2\) for a batch of 3 .*got \(2, 2\)"),
        ({"encoded": lambda x: x.tolist()}, r"shape \(3, 2\) for a batch of 3 .*got list"),
        ({"encoded": lambda x: x / 0 * 0}, "must be finite, got NaN .* in sound of item"),
        ({"prepared": [1, 2, 3]}, "a row for each of its 3 values, got list"),
        ({"prepared": torch.ones(2, 2)}, r"each of its 3 values, got Tensor of shape \(2, 2\)"),
        ({"out_dim": 0}, "out_dim of the encoder of tune must be a whole number of at least 1"),
        ({"device": "cpu"}, "device of the encoder of tune must be a torch.device, got 'cpu'"),
        ({"column": "nested"}, "numbers, strings, bytes or lists of these are needed, got"),
        ({"column": "lyrics"}, "one column lyrics is needed, got 0"),
    ],
)
def test_an_encoder_that_breaks_a_rule_is_named(
    how: dict[str, Any], sentence: str, workers: int, tmp_path: Path
) -> None:
    items = make(tmp_path)
    nested = pq.read_table(items).append_column("nested", pa.array([[{"a": 1}]] * ITEMS))
    pq.write_table(nested, items)
    given: dict[str, Any] = {"items": items, "images": None, "schema": SCHEMA, "batch_size": 3}
    with pytest.raises(InputError, match=sentence):
        embed_items({"tune": Wrong(**how)}, **given, out=tmp_path / "out", workers=workers)


def test_two_modalities_have_two_columns(tmp_path: Path) -> None:
    both: dict[str, Encoder] = {"tune": Tunes(), "sound": Tunes()}  # the schema: tune is in sound
    with pytest.raises(InputError, match="names of their own, got sound 2 times"):
        embed_items(both, items=make(tmp_path), images=None, schema=SCHEMA, out=tmp_path / "out")


def test_what_is_no_encoder_is_named(tmp_path: Path) -> None:
    items, toy = make(tmp_path), ToyEncoder()
    for encoders, match in (
        ({}, "an encoder of a modality or more"),
        ({"image": toy}, "ToyEncoder of image lacks some"),
        ({"my image": toy.towers["image"]}, "letters, digits and _, .*got 'my image'"),
    ):
        with pytest.raises(InputError, match=match):
            embed_items(encoders, items=items, images=None, out=tmp_path / "out", workers=0)  # type: ignore[arg-type]

"""Against open_clip's own transform, on the core that decodes and as the device does it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import open_clip.transform
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_pictures import ODDITIES, encoded, photo
from PIL import Image

from mmrec.embed import Preprocessing
from mmrec.embed.preprocess import (
    Geometry,
    ReadOptions,
    normalise,
    read_picture,
    resize,
    resize_batch,
    resize_pillow,
)

MODES = [
    ((48, 48), "shortest"),
    ((48, 48), "squash"),
    ((48, 48), "longest"),
    ((32, 56), "shortest"),
]


def transform(preprocessing: Preprocessing):  # type: ignore[no-untyped-def]
    config = open_clip.transform.PreprocessCfg(
        size=preprocessing.size,
        mean=preprocessing.mean,
        std=preprocessing.std,
        interpolation=preprocessing.interpolation,
        resize_mode=preprocessing.resize_mode,
        fill_color=preprocessing.fill,
    )
    return open_clip.transform.image_transform_v2(config, is_train=False)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0))


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.mark.parametrize(("size", "mode"), MODES)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("shape", [(300, 450), (185, 278), (64, 48), (48, 48), (20, 31), (500, 90)])
def test_pixels_agree_with_open_clip(
    size: tuple[int, int], mode: str, interpolation: str, shape: tuple[int, int]
) -> None:
    if size[0] != size[1]:
        interpolation = "bicubic"  # open_clip has no other there
    preprocessing = Preprocessing(size=size, resize_mode=mode, interpolation=interpolation, fill=90)
    image = photo(*shape, seed=sum(shape))
    theirs = transform(preprocessing)(image)
    for ours in (
        normalise(resize(as_tensor(image)[None], preprocessing), preprocessing)[0],
        normalise(as_tensor(resize_pillow(image, preprocessing))[None], preprocessing)[0],
    ):
        assert ours.shape == theirs.shape
        assert cosine(ours, theirs) > 0.9999
        assert (ours - theirs).abs().max() < 0.04  # two grey levels


@settings(max_examples=60, deadline=None)
@given(
    h=st.integers(1, 700), w=st.integers(1, 700), size=st.sampled_from([(37, 37), (41, 29)]),
    mode=st.sampled_from(["shortest", "longest", "squash"]),
)  # fmt: skip
def test_geometry_is_open_clips(h: int, w: int, size: tuple[int, int], mode: str) -> None:
    preprocessing = Preprocessing(size=size, resize_mode=mode)
    seen: list[tuple[int, int]] = []

    def spy(self: Image.Image, wanted: tuple[int, int], *_: object, **__: object) -> Image.Image:
        seen.append((max(1, wanted[0]), max(1, wanted[1])))  # theirs may come to nothing
        return Image.new("RGB", wanted)

    plan = Geometry.of(h, w, preprocessing)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "resize", spy)
        transform(preprocessing)(Image.new("RGB", (w, h)))
    assert seen in ([], [(plan.width, plan.height)])
    assert seen or (plan.width, plan.height) == (w, h)


def test_a_batch_of_many_sizes_is_each_picture_alone() -> None:
    preprocessing = Preprocessing(size=(23, 23))
    pictures = [as_tensor(photo(w, h, seed=w)) for w, h in [(30, 40), (23, 23), (30, 40), (50, 20)]]
    together = resize_batch(pictures, preprocessing)
    for row, picture in zip(together, pictures, strict=True):
        assert torch.equal(row, resize(picture[None], preprocessing)[0])


def test_the_device_path_rounds_between_its_passes_as_pillow_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The floating-point path, run here by pretending that the CPU is another device."""
    import mmrec.embed.preprocess as module

    preprocessing = Preprocessing(size=(224, 224))
    for shape in [(300, 450), (185, 278), (224, 300), (90, 600)]:
        image = photo(*shape, seed=3)
        exact = as_tensor(resize_pillow(image, preprocessing)).int()
        with monkeypatch.context() as patch:
            patch.setattr(module, "_integer_kernel", lambda _: False)
            ours = resize(as_tensor(image)[None], preprocessing)[0].int()
        assert (ours - exact).abs().max() <= 1


@pytest.mark.parametrize("odd", [o for o in ODDITIES if o.status == "ok"], ids=lambda o: o.name)
@pytest.mark.parametrize("resize_here", [True, False], ids=["worker", "device"])
def test_every_odd_format_agrees_with_open_clip(odd, resize_here: bool, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    preprocessing = Preprocessing(size=(48, 48))
    path = tmp_path / "1.jpg"
    odd.make(path)
    picture = read_picture(str(path), ReadOptions(preprocessing, resize_here=resize_here))
    assert picture.status == "ok"
    assert picture.pixels is not None
    ours = normalise(resize_batch([picture.pixels], preprocessing), preprocessing)[0]
    with Image.open(path) as image:
        theirs = transform(preprocessing)(image)
    assert cosine(ours, theirs) > 0.999


def test_a_strip_is_not_blown_up() -> None:
    """open_clip would make 48 x 960,000 pixels of it; what the crop keeps is a small square."""
    preprocessing = Preprocessing(size=(48, 48))
    image = photo(1, 20_000, seed=5)
    assert resize(as_tensor(image)[None], preprocessing).shape == (1, 3, 48, 48)
    wide = photo(700, 20, seed=6)
    theirs = transform(preprocessing)(wide)
    for ours in (
        resize(as_tensor(wide)[None], preprocessing)[0],
        as_tensor(resize_pillow(wide, preprocessing)),
    ):
        assert cosine(normalise(ours[None], preprocessing)[0], theirs) > 0.999


@pytest.mark.parametrize("size", [(700, 500), (1000, 1500), (449, 900)])
def test_scaling_at_decode_stays_within_bounds_and_agrees(size: tuple[int, int]) -> None:
    preprocessing = Preprocessing(size=(48, 48))
    data = encoded(photo(*size, seed=8), quality=90)
    picture = read_picture(data, ReadOptions(preprocessing, draft=True))
    assert picture.pixels is not None
    theirs = transform(preprocessing)(Image.open(io.BytesIO(data)))
    assert cosine(normalise(picture.pixels[None], preprocessing)[0], theirs) > 0.999


def test_exif_rotation_on_request(tmp_path: Path) -> None:
    preprocessing = Preprocessing(size=(48, 48))
    odd = next(o for o in ODDITIES if o.name == "exif")
    odd.make(tmp_path / "1.jpg")
    picture = read_picture(str(tmp_path / "1.jpg"), ReadOptions(preprocessing, exif=True))
    assert picture.pixels is not None
    assert "turned" in picture.note
    from PIL import ImageOps

    with Image.open(tmp_path / "1.jpg") as image:
        upright = transform(preprocessing)(ImageOps.exif_transpose(image))
        lying = transform(preprocessing)(image)
    ours = normalise(picture.pixels[None], preprocessing)[0]
    assert cosine(ours, upright) > 0.999 > cosine(ours, lying)

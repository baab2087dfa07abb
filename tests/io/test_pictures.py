"""What holds for whoever reads pictures; every oddity goes through in tests/embed/test_oddities."""

from __future__ import annotations

import io
import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from mmrec import InputError
from mmrec.io.pictures import find_pictures, find_several, picture_name, read_bytes, read_picture


def _jpeg(width: int = 30, height: int = 20, turned: int | None = None) -> bytes:
    exif = Image.Exif()
    if turned is not None:
        exif[0x0112] = turned
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def _size(image: Image.Image, data: bytes) -> tuple[int, int]:
    return image.size


def test_what_the_caller_makes_of_the_open_image_comes_back() -> None:
    data = _jpeg()
    picture = read_picture(data, lambda image, same: (image.size, same == data))
    assert (picture.status, picture.note, picture.pixels) == ("ok", "", ((30, 20), True))
    assert len(picture.digest) == 16


@pytest.mark.parametrize(
    ("error", "status"),
    [(SyntaxError("broken PNG"), "damaged"), (OSError("image file is truncated"), "truncated")],
)
def test_what_decoding_raises_is_a_status(error: Exception, status: str) -> None:
    def fail(image: Image.Image, data: bytes) -> None:
        raise error

    picture = read_picture(_jpeg(), fail)
    assert (picture.status, picture.note, picture.pixels) == (status, str(error), None)


def test_a_picture_is_turned_as_exif_says_only_on_request() -> None:
    lying = read_picture(_jpeg(turned=6), _size)
    assert (lying.pixels, lying.note) == ((30, 20), "EXIF rotation ignored")
    upright = read_picture(_jpeg(turned=6), _size, exif=True)
    assert (upright.pixels, upright.note) == ((20, 30), "turned by EXIF")


def test_bounds_are_the_callers() -> None:
    assert read_picture(_jpeg(), _size, max_pixels=600).status == "ok"
    assert read_picture(_jpeg(), _size, max_pixels=599).note == "30 x 20 pixels"
    assert read_picture(_jpeg(), _size, max_bytes=100).status == "too large"


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").mkdir()
    os.mkfifo(tmp_path / "2.jpg")
    (tmp_path / "3.jpg").write_bytes(_jpeg())
    before = len(os.listdir("/proc/self/fd"))
    for name in ("1.jpg", "2.jpg", "3.jpg", "4.jpg"):
        read_picture(str(tmp_path / name), _size)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_grows_while_it_is_read_stays_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "1.jpg"
    path.write_bytes(b"x" * 50)
    real = os.fstat

    def smaller(descriptor: int) -> os.stat_result:
        info = list(real(descriptor))
        info[6] = 1  # st_size
        return os.stat_result(info)

    monkeypatch.setattr(os, "fstat", smaller)
    assert read_bytes(str(path), max_bytes=20) == b"x"


def test_many_threads_leave_the_filters_of_warnings_alone() -> None:
    """Under one `catch_warnings` around all of them, as the audit does."""
    before, barrier = list(warnings.filters), threading.Barrier(4)

    def use(image: Image.Image, data: bytes) -> None:
        barrier.wait(10)

    with warnings.catch_warnings(), ThreadPoolExecutor(4) as pool:
        warnings.simplefilter("ignore")
        pictures = list(pool.map(lambda _: read_picture(_jpeg(), use), range(40)))
    assert {picture.status for picture in pictures} == {"ok"}
    assert warnings.filters == before


def test_a_folder_is_listed_once(tmp_path: Path) -> None:
    for name in [picture_name(12), "12.PNG", "7.webp", "7.txt", "x3.jpg", "notes"]:
        (tmp_path / name).touch()
    assert find_pictures(tmp_path) == {
        12: str(tmp_path / "12.jpg"), 7: str(tmp_path / "7.webp"),
    }  # fmt: skip
    with pytest.raises(InputError, match=r"cannot be listed \(No such file or directory\)"):
        find_pictures(tmp_path / "none")


def test_pictures_in_sub_folders_and_under_other_names_are_found(tmp_path: Path) -> None:
    for name in ("00/7.jpg", "01/0008.JPG", "01/notes.txt", "02/7.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = {
        item: Path(path).relative_to(tmp_path) for item, path in find_pictures(tmp_path).items()
    }
    assert found == {7: Path("00/7.jpg"), 8: Path("01/0008.JPG")}
    (tmp_path / "9.jpg").touch()  # pictures beside one another are the layout: no search below
    assert list(find_pictures(tmp_path)) == [9]


def test_several_pictures_are_found_by_a_template(tmp_path: Path) -> None:
    for name in (
        "7_10.jpg",
        "7_2.png",
        "7_2.jpg",
        "07_1.gif",
        "12_1.jpg",
        "7.jpg",
        "7_x.jpg",
        "7_",
    ):
        (tmp_path / name).touch()
    for name in ("cover-3-of-8.jpg", "cover-1-of-8.jpg", "cover-1-of-8.txt"):
        (tmp_path / name).touch()

    def found(template: str) -> dict[int, list[str]]:
        several = find_several(tmp_path, template)
        return {item: [Path(path).name for path in paths] for item, paths in several.items()}

    assert found("{id}_{n}") == {7: ["07_1.gif", "7_2.jpg", "7_10.jpg"], 12: ["12_1.jpg"]}
    assert found("cover-{n}-of-{id}") == {8: ["cover-1-of-8.jpg", "cover-3-of-8.jpg"]}
    assert found("{id}") == {7: ["7.jpg"]}
    assert found("{id}_1") == {7: ["07_1.gif"], 12: ["12_1.jpg"]}


@pytest.mark.parametrize(
    "template",
    ["", "{n}", "{id}{n}", "{id}_{id}", "{id}_{n}_{n}", "{id}/{n}", "{item}", "{id}5{n}"],
)
def test_a_template_of_names_is_one(template: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a template of picture names holds"):
        find_several(tmp_path, template)

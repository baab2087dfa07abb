"""Every oddity of a folder of pictures, through all that reads them: none hangs or ends a run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from odd_pictures import ODDITIES
from PIL import Image
from toy_encoder import ToyEncoder, read_output, write_items

from mmrec.audit.scan.images import read_images
from mmrec.embed import Captions, embed_items
from mmrec.embed.items import read_items
from mmrec.embed.sheet import draw_sheet, thumbnail

COUNT = len(ODDITIES)


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_items(tmp_path_factory.mktemp("items") / "items.parquet", range(1, COUNT + 1))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("resize", ["worker", "device"])
def test_embed_gives_each_its_status(
    resize: str, items: Path, odd_folder: Path, tmp_path: Path
) -> None:
    report = embed_items(
        ToyEncoder().towers, items=items, images=odd_folder, out=tmp_path, workers=1, resize=resize
    )
    output = read_output(tmp_path)
    assert output["status"] == [odd.status for odd in ODDITIES]
    assert output["has_image"] == [odd.status == "ok" for odd in ODDITIES]
    assert report.statuses == Counter(odd.status for odd in ODDITIES)


@pytest.mark.timeout(60)
def test_the_contact_sheet_shows_each_or_its_status(
    items: Path, odd_folder: Path, tmp_path: Path
) -> None:
    table = read_items(items, images=odd_folder, captions=Captions())
    for row, odd in enumerate(ODDITIES):
        picture = thumbnail(table, row, 50_000_000)
        assert (picture.status, picture.pixels is not None) == (odd.status, odd.status == "ok")
    embed_items(
        ToyEncoder().towers, items=items, images=None, out=tmp_path, workers=0, contact_sheet=0
    )
    draw_sheet(tmp_path, table, tmp_path / "all.png", rows=COUNT, neighbours=3)
    with Image.open(tmp_path / "all.png") as sheet:
        assert sheet.size == (4 * 152 + 8, COUNT * 196 + 8)
        for row, odd in enumerate(ODDITIES):
            tile = sheet.crop((10, 10 + row * 196, 150, 150 + row * 196))
            colours = {colour for _, colour in tile.getcolors(maxcolors=1 << 16)}
            if odd.status != "ok":
                # Words on a grey tile, their edges some other grey.
                assert (211, 211, 211) in colours
                assert all(red == green == blue for red, green, blue in colours)
                assert len(colours) > 1


@pytest.mark.timeout(60)
def test_the_audit_counts_each_status(odd_folder: Path) -> None:
    images = read_images(odd_folder, COUNT + 1)
    found = Counter(odd.status for odd in ODDITIES)
    assert (images.items, images.missing) == (COUNT, found.pop("missing"))
    assert (images.checked, images.broken) == (COUNT - 1, COUNT - 1 - found.pop("ok"))
    assert images.why == found
    assert images.why["not a file"] == images.why["broken link"] == 2

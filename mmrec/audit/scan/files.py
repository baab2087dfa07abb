"""Which files a data set has. In: a directory. Out: `Files`, for `clicks.py` and `content.py`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmrec.data.microlens import CLICKS_FOLDER, SPLITS
from mmrec.errors import InputError

TABLES = ("item_info", "item_feature", "item_emb", "features")


@dataclass(frozen=True)
class Files:
    """The files that were found; what is None or in neither mapping was not.

    Attributes:
        clicks: split name to click log.
        tables: name in `TABLES` to item table (features may be a directory of shards).
        images: the directory that holds `<item_id>.jpg`.
    """

    clicks: dict[str, Path]
    tables: dict[str, Path]
    images: Path | None


def locate(root: str | Path) -> Files:
    """Find the layout's files, in the places where `MicroLens.open` looks.

    Raises:
        InputError: no directory, or no train.parquet in it.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"an audit needs a directory of data, there is none at {root}")
    folder = root / CLICKS_FOLDER if (root / CLICKS_FOLDER).is_dir() else root
    places = [root, folder] + ([root.parent] if root.name == CLICKS_FOLDER else [])

    def find(name: str) -> Path | None:
        return next((place / name for place in places if (place / name).exists()), None)

    clicks = {split: folder / f"{split}.parquet" for split in SPLITS}
    if not clicks["train"].is_file():
        raise InputError(f"an audit needs train.parquet, there is none in {folder}")
    tables = {name: find(f"{name}.parquet") for name in TABLES}
    return Files(
        clicks={split: path for split, path in clicks.items() if path.is_file()},
        tables={name: path for name, path in tables.items() if path is not None},
        images=find("item_images/item_images") or find("item_images"),
    )

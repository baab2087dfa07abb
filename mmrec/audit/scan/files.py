"""Which files a data set has. In: a directory. Out: `Files`, for `clicks.py` and `items.py`."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from mmrec.data.microlens import CLICKS_FOLDER, SPLITS
from mmrec.data.schema import TARGET
from mmrec.errors import InputError
from mmrec.io.lenient import is_scalar, kinds_of
from mmrec.io.sources import Source, open_source

TABLES = ("item_info", "item_feature", "item_emb", "features")


@dataclass(frozen=True)
class Files:
    """The files that were found; what is None or in neither mapping was not.

    Attributes:
        clicks: split name to click log, which has a column for the item.
        tables: name in `TABLES` to item table (features may be a directory of shards).
        images: the directory that holds `<item_id>.jpg`.
    """

    clicks: dict[str, Source]
    tables: dict[str, Path]
    images: Path | None


def locate(root: str | Path) -> Files:
    """Find the layout's files, in the places where `MicroLens.open` looks, and open the click logs.

    Raises:
        InputError: no directory, or no train.parquet in it, or a click log that is no parquet or
            has no column of numbers for the item.
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
        clicks={split: _open(path) for split, path in clicks.items() if path.is_file()},
        tables={name: path for name, path in tables.items() if path is not None},
        images=find("item_images/item_images") or find("item_images"),
    )


def _open(path: Path) -> Source:
    source = open_source(path)
    kinds = kinds_of(source)
    if not is_scalar(kinds.get(TARGET, pa.string())):
        raise InputError(f"an audit needs a numeric column {TARGET}, {path} has {[*kinds]}")
    return source

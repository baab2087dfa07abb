"""Which files a data set has. In: a directory. Out: `Files`, for `clicks.py` and `items.py`."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from mmrec.data.clicks import SPLITS
from mmrec.data.microlens import MICROLENS
from mmrec.errors import InputError
from mmrec.io.lenient import is_scalar, kinds_of
from mmrec.io.sources import Source, open_source
from mmrec.schema import FILE, Schema

TABLES = ("item_info", "item_feature", "item_emb", "features")


@dataclass(frozen=True)
class Files:
    """The files that were found; what is None or in neither mapping was not.

    Attributes:
        schema: the roles of their columns; `told` whether the data set brings it, so that a column
            without a role is left out on purpose.
        clicks: split name to click log, which has a column for the target.
        tables: name in `TABLES` to item table (features may be a directory of shards).
        images: the directory that holds `<id>.jpg`.
    """

    schema: Schema
    told: bool
    clicks: dict[str, Source]
    tables: dict[str, Path]
    images: Path | None


def locate(root: str | Path) -> Files:
    """Find the files, in the places where `ClickData.open` looks, and open the click logs.

    Raises:
        InputError: no directory, or no train.parquet in it, or a schema.json that is none, or a
            click log that is no parquet or has no column of numbers for the target.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"an audit needs a directory of data, there is none at {root}")
    folder = _folder(root)
    inner = folder == root and (root.parent / "item_feature.parquet").exists()
    places = [root, folder, *[root.parent] * inner]

    def find(name: str) -> Path | None:
        return next((place / name for place in places if (place / name).exists()), None)

    stored = find(FILE)
    schema = MICROLENS if stored is None else Schema.read(stored)
    clicks = {split: folder / f"{split}.parquet" for split in SPLITS}
    tables = {name: find(f"{name}.parquet") for name in TABLES}
    return Files(
        schema=schema,
        told=stored is not None,
        clicks={
            split: _open(path, schema.clicks.target)
            for split, path in clicks.items()
            if path.is_file()
        },
        tables={name: path for name, path in tables.items() if path is not None},
        images=find("item_images/item_images") or find("item_images"),
    )


def _folder(root: Path) -> Path:
    """`root`, or the one folder in it that holds train.parquet."""
    if (root / "train.parquet").is_file():
        return root
    inner = sorted(path.parent for path in root.glob("*/train.parquet"))
    if len(inner) == 1:
        return inner[0]
    found = f"{len(inner)} folders in it have one: name one of them" if inner else "there is none"
    raise InputError(f"an audit needs train.parquet in {root} or in one folder of it, {found}")


def _open(path: Path, target: str) -> Source:
    source = open_source(path)
    kinds = kinds_of(source)
    if not is_scalar(kinds.get(target, pa.string())):
        raise InputError(f"an audit needs a numeric column {target}, {path} has {[*kinds]}")
    return source

"""What is known of items: ids of item_info, vectors, pictures, titles, levels of item_feature.

N items with the padding.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from mmrec.audit.scan.files import Files
from mmrec.audit.scan.images import DECODED, Images, read_images
from mmrec.audit.scan.split import MOST_CELLS
from mmrec.audit.scan.vectors import Vectors, read_vectors, vector_columns
from mmrec.data.items import ITEM, feature_files
from mmrec.errors import InputError
from mmrec.io.lenient import integers, kinds_of, whole
from mmrec.io.parquet import Ints
from mmrec.io.sources import Source, open_source

TITLE = "item_title"
UNKNOWN = -1


@dataclass(frozen=True)
class ItemIds:
    """Ids of item_info.

    Attributes:
        real: rows with an id above 0; `largest` of them.
        gaps: ids below the largest that are left out.
        repeats: rows whose id another row has; `negative` with an id below 0.
    """

    real: int
    largest: int
    gaps: int
    repeats: int
    negative: int

    @property
    def usable(self) -> bool:
        """Whether an array may have an entry for each id."""
        return 0 < self.largest <= MOST_CELLS


@dataclass(frozen=True)
class Damage:
    """A table that cannot be read to its end, and what the reader says of it."""

    table: str
    error: str


@dataclass(frozen=True)
class Titles:
    """Items with a row, with an empty title, and with the title of another item."""

    items: int
    empty: int
    repeated: int
    commonest: str
    commonest_items: int


def read_ids(path: Path | None) -> ItemIds | Damage | None:
    """The ids of item_info; None where there is no such file."""
    if path is None:
        return None
    try:
        ids = integers(whole(open_source(path), [ITEM])[ITEM].drop_null())
    except InputError as error:
        return Damage("item_info", str(error))
    real = ids[ids > 0]
    largest = int(real.max(initial=0))
    return ItemIds(
        real=len(real),
        largest=largest,
        gaps=largest - len(np.unique(real)),
        repeats=len(ids) - len(np.unique(ids)),
        negative=int((ids < 0).sum()),
    )


def read_titles(source: Source) -> Titles | None:
    """Compare titles without regard to case and spaces; None where there is no such column."""
    kind = kinds_of(source).get(TITLE, pa.null())
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return None
    titles = whole(source, [TITLE])[TITLE].to_pylist()
    plain = [" ".join((title or "").lower().split()) for title in titles]
    times = Counter(title for title in plain if title)
    commonest, count = times.most_common(1)[0] if times else ("", 0)
    return Titles(
        items=len(plain),
        empty=sum(not title for title in plain),
        repeated=sum(count for count in times.values() if count > 1),
        commonest=commonest[:60],
        commonest_items=count,
    )


def read_levels(source: Source, names: Iterable[str], num_items: int) -> dict[str, Ints]:
    """Those of the named columns that hold integers: (N,) by item, `UNKNOWN` where it has none."""
    kinds = kinds_of(source)
    there = [name for name in names if name in kinds and pa.types.is_integer(kinds[name])]
    if ITEM not in kinds or not there:
        return {}
    table = whole(source, [ITEM, *there])
    item = integers(table.pop(ITEM))
    inside = (item > 0) & (item < num_items)
    levels = {name: np.full(num_items, UNKNOWN, dtype=np.int64) for name in there}
    for name, array in table.items():
        levels[name][item[inside]] = integers(array, UNKNOWN)[inside]
    return levels


@dataclass
class Content:
    """What item tables and pictures hold.

    Attributes:
        levels: level column of item_feature to its value by item.
        damaged: tables that could not be read, or only in part, and what the reader says.
    """

    vectors: list[Vectors] = field(default_factory=list)
    images: Images | None = None
    titles: Titles | None = None
    levels: dict[str, Ints] = field(default_factory=dict)
    damaged: dict[str, Damage] = field(default_factory=dict)


def read_content(
    files: Files,
    *,
    num_items: int,
    levels: Iterable[str],
    most_images: int = DECODED,
    progress: Callable[[str], object] = lambda what: None,
) -> Content:
    """Read what there is; `levels` are the columns to take from item_feature."""
    content = Content()
    for table, path in files.tables.items():
        try:
            sources = [open_source(file) for file in feature_files(path)]
            for column in vector_columns(sources[0]):
                name = f"{table}.{column}"
                progress(name)
                content.vectors.append(read_vectors(name, sources, column, num_items=num_items))
            if table == "item_feature":
                content.titles = read_titles(sources[0])
                content.levels = read_levels(sources[0], levels, num_items)
        except InputError as error:
            content.damaged[table] = Damage(table, str(error))
    if files.images is not None:
        progress("pictures")
        content.images = read_images(files.images, num_items, most=most_images)
    return content

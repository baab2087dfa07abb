"""What is known of items: ids, features, vectors, pictures, titles, categories given by item.

N items with the padding.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from mmrec.audit.scan.columns import Columns
from mmrec.audit.scan.files import Files
from mmrec.audit.scan.images import DECODED, Images, read_images
from mmrec.audit.scan.item_table import ItemTable, feature_columns, read_item_table
from mmrec.audit.scan.names import MOST_CELLS, names_of
from mmrec.audit.scan.rows import Array
from mmrec.audit.scan.vectors import Vectors, read_vectors, vector_columns
from mmrec.data.checks import CATEGORIES
from mmrec.data.items import feature_files
from mmrec.errors import InputError
from mmrec.io.lenient import integers, is_scalar, kinds_of, whole
from mmrec.io.parquet import TEXT
from mmrec.io.sources import Source, open_source
from mmrec.schema import Items

GIVING = ("item_feature", "item_info")  # tables whose columns may bear a click log's names


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


def read_ids(path: Path | None, id_column: str) -> ItemIds | Damage | None:
    """The ids of item_info; None where there is no such file."""
    if path is None:
        return None
    try:
        array = whole(open_source(path), [id_column])[id_column]
    except InputError as error:
        return Damage("item_info", str(error))
    if not is_scalar(array.type):
        return Damage("item_info", f"its column {id_column} holds {array.type}, no whole numbers")
    ids = integers(array.drop_null())
    real = ids[ids > 0]
    largest = int(real.max(initial=0))
    return ItemIds(
        real=len(real),
        largest=largest,
        gaps=largest - len(np.unique(real)),
        repeats=len(ids) - len(np.unique(ids)),
        negative=int((ids < 0).sum()),
    )


def read_titles(source: Source, column: str | None) -> Titles | None:
    """Compare titles without regard to case and spaces; None where there is no such column."""
    if column is None or not TEXT.accepts(kinds_of(source).get(column, pa.null())):
        return None
    titles = whole(source, [column])[column].to_pylist()
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


def read_given(
    source: Source, columns: Iterable[str], items: Items, num_items: int
) -> dict[str, Array]:
    """Those of the categorical columns that a table has: (N,) by item, NaN where it has none."""
    kinds = kinds_of(source)
    there = [name for name in columns if CATEGORIES.accepts(kinds.get(name, pa.null()))]
    if not is_scalar(kinds.get(items.id, pa.string())) or not there:
        return {}
    table = whole(source, [items.id, *there])
    item = integers(table.pop(items.id))
    inside = (item > 0) & (item < num_items)
    given = {name: np.full(num_items, np.nan) for name in there}
    for name, array in table.items():
        given[name][item[inside]] = names_of(array)[inside]
    return given


@dataclass
class Content:
    """What item tables and pictures hold.

    Attributes:
        table: the columns of item_info, `features` those of the feature file.
        given: table to categorical column of the click log to its name by item.
        damaged: tables that could not be read, or only in part, and what the reader says.
    """

    vectors: list[Vectors] = field(default_factory=list)
    images: Images | None = None
    titles: Titles | None = None
    table: ItemTable | None = None
    features: Columns | None = None
    given: dict[str, dict[str, Array]] = field(default_factory=dict)
    damaged: dict[str, Damage] = field(default_factory=dict)


def read_content(
    files: Files,
    *,
    num_items: int,
    columns: Collection[str],
    most_images: int = DECODED,
    progress: Callable[[str], object] = lambda what: None,
) -> Content:
    """Read what there is; `columns` are the categorical ones of the click log."""
    content, items = Content(), files.schema.items
    for table, path in files.tables.items():
        try:
            sources = [open_source(file) for file in feature_files(path)]
            for column in vector_columns(sources[0], items):
                name = f"{table}.{column}"
                progress(name)
                vectors = read_vectors(name, sources, column, items, num_items=num_items)
                content.vectors.append(vectors)
            if table == "features":
                content.features = feature_columns(sources[0], items)
            if table == "item_info":
                content.table = read_item_table(sources[0], items)
            if table == "item_feature":
                content.titles = read_titles(sources[0], items.title)
            if table in GIVING:
                content.given[table] = read_given(sources[0], columns, items, num_items)
        except InputError as error:
            content.damaged[table] = Damage(table, str(error))
    if files.images is not None:
        progress("pictures")
        content.images = read_images(files.images, num_items, most=most_images)
    return content

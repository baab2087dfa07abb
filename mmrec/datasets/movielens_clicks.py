"""MovieLens's click logs: ratings in, `train`, `valid` and `test.parquet` and their schema out.

Every column of a row is made from ratings strictly before the row's second (`chronology`), by the
same rule in all three files. R ratings, L places of a history.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmrec.data.clicks import SPLITS
from mmrec.datasets import chronology
from mmrec.datasets.chronology import Floats, Ints, Past, Ratings
from mmrec.io.files import replacing
from mmrec.io.parquet import as_lists, write_parquet
from mmrec.io.progress import Progress
from mmrec.schema import Categorical, Clicks, Items, Schema

HISTORIES = ("all", "liked")
LAST = (10, 30, 100)  # a user's taste and mood drift: shares of likes among so many last ratings
ROWS_AT_A_TIME = 65_536
_LISTS = {"item_seq": pa.int64(), "liked": pa.int8(), "days_ago": pa.float32()}
_SHARE, _OTHERS = "user_like_share_{}", ("log_user_ratings", "log_item_ratings", "item_like_share")
_LEVELS = ("likes_level", "views_level")


def schema(history: str) -> Schema:
    """The roles of MovieLens's columns; histories of likes alone do not say what was liked."""
    liked = (Categorical("liked", limit=2),) if history == "all" else ()
    return Schema(
        Clicks(
            history="item_seq",
            target="item_id",
            labels=("label",),
            user="user_id",
            row_id="ID",
            time="timestamp",
            categorical=tuple(Categorical(name, limit=chronology.LEVELS + 1) for name in _LEVELS),
            numeric=(*map(_SHARE.format, LAST), *_OTHERS),
            history_categorical=liked,
            history_numeric=("days_ago",),
        ),
        Items(
            id="item_id",
            tags="item_tags",
            modalities={"image": "image_emb", "text": "text_emb"},
            title="item_title",
        ),
    )


def write_clicks(root: Path, ratings: Ratings, split: Ints, *, history: str, length: int) -> None:
    """Write `train`, `valid`, `test` and `test_labels.parquet` to `root`, rows as `ratings` stand.

    Args:
        root: the directory.
        ratings: all of them.
        split: (R,) which file each is in.
        history: of "all" earlier ratings of the user, or of those "liked".
        length: L; older entries are cut off.
    """
    everything = Past(ratings)
    past = everything if history == "all" else Past(ratings, kept=ratings.liked)
    known = pa.table(
        {"user_id": ratings.user, "item_id": ratings.item, "timestamp": ratings.time}
        | levels(ratings, split)
        | numbers(ratings, everything)
        | {"label": ratings.liked.astype(np.int64)}
    )
    with Progress(total=len(ratings.user), desc="histories", unit="row") as progress:
        for number, name in enumerate(SPLITS):
            rows = np.flatnonzero(split == number)
            table = known.take(pa.array(rows))
            if name == "test":
                # The labels of test stay apart: for measuring at the very end, out of readers' way.
                table = table.add_column(0, "ID", pa.array(np.arange(len(rows))))
                write_parquet(root / "test_labels.parquet", table.select(["ID", "label"]))
                table = table.drop_columns(["label"])
            with _open(root / f"{name}.parquet", table.schema) as writer:
                for start in range(0, len(rows), ROWS_AT_A_TIME):
                    part = rows[start : start + ROWS_AT_A_TIME]
                    seen = past.history(part, length)
                    chronology.check_history(seen, part, ratings, only_liked=history == "liked")
                    lists = [as_lists(m) for m in (seen.item, seen.liked, seen.days_ago)]
                    columns = [*table.slice(start, len(part)).columns, *lists]
                    writer.write_table(pa.table(columns, schema=writer.schema))
                    progress.update(len(part))


@contextmanager
def _open(path: Path, known: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """A file, written whole, of the known columns and the histories behind them."""
    fields = [pa.field(name, pa.list_(kind)) for name, kind in _LISTS.items()]
    schema = pa.schema([*known, *fields])
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        yield writer


def levels(ratings: Ratings, split: Ints) -> dict[str, Ints]:
    """What the train rows before a row show of its item, in ten steps."""
    in_train = (split == chronology.TRAIN).astype(np.int64)
    count = chronology.count_earlier(ratings.item, ratings.time, in_train)
    likes = chronology.count_earlier(ratings.item, ratings.time, in_train * ratings.liked)
    steps = (chronology.likes_level(likes, count), chronology.views_level(count))
    return dict(zip(_LEVELS, steps, strict=True))


def numbers(ratings: Ratings, past: Past, last: tuple[int, ...] = LAST) -> dict[str, Floats]:
    """What all rows before a row show of its user and its item; NaN where there are none.

    Args:
        ratings: R.
        past: of all of them.
        last: among how many last ratings of the user likes are counted.
    """
    count = chronology.count_earlier(ratings.item, ratings.time, np.ones_like(ratings.item))
    likes = chronology.count_earlier(ratings.item, ratings.time, ratings.liked.astype(np.int64))
    shares = {_SHARE.format(length): past.like_share(length) for length in last}
    log_counts = (chronology.log_count(past.count), chronology.log_count(count))
    others = (*log_counts, chronology.share(likes, count))
    return shares | dict(zip(_OTHERS, others, strict=True))

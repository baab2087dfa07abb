"""MovieLens as clicks, items and a schema: `python -m mmrec.datasets.movielens SOURCE DEST`.

A rating of 4 or more is a click (label 1). Every row knows only what came before it; how rows are
made is `mmrec.data.prepare`'s, here stands what is MovieLens's own. SOURCE is a release of
GroupLens (`ratings.csv`, `movies.csv`), and may hold `images/<movieId>.jpg`, `overviews.csv`
(movieId, overview) and `features.parquet` (movieId, image_emb, text_emb, ...).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmrec.cli import run
from mmrec.data.clicks import ClickData
from mmrec.data.items import read_vectors
from mmrec.data.prepare import Catalogue, Log, Options, Plan
from mmrec.data.prepare import prepare as prepare_log
from mmrec.data.prepare.options import IMAGES
from mmrec.errors import InputError, require
from mmrec.io.files import write_json
from mmrec.io.parquet import Column, Ints, as_lists, write_parquet
from mmrec.schema import FILE, Schema

if TYPE_CHECKING:
    import polars as pl

LIKED = 4.0  # a rating from here on is label 1
HISTORIES = {"all": ("label", "days_ago"), "liked": ("days_ago",)}
LAST = (10, 30, 100)  # a user's taste and mood drift: shares of likes among so many last ratings
NAMES = {f"user_label_share_last_{last}": f"user_like_share_{last}" for last in LAST} | {
    "history": "item_seq",
    "history_label": "liked",
    "history_days_ago": "days_ago",
    "row_id": "ID",
    "user_log_rows": "log_user_ratings",
    "item_log_rows": "log_item_ratings",
    "item_label_share": "item_like_share",
    "item_share_level": "likes_level",
    "item_rows_level": "views_level",
    "item_id_key": "movieId",
    "title": "item_title",
    "caption": "item_text",
    "tags": "item_tags",
}


def prepare(
    source: str | Path,
    dest: str | Path,
    *,
    history: str = "all",
    history_length: int = 100,
    images: str = "hardlink",
    cold: float = 0.0,
) -> ClickData:
    """Write `source` to the directory `dest`, with its `schema.json`, and open it.

    Args:
        source: directory of the MovieLens files.
        dest: a new or empty directory, or an earlier output of this function, replaced as a whole.
        history: "all" that the user rated before, and whether it was liked; or "liked" alone.
        history_length: entries of a history; older ones are cut off.
        images: how pictures get to `dest`: "hardlink" (copied where the file system refuses),
            "symlink", "copy", or "none".
        cold: share of the movies that train does not know: no rows of it, and in no history of it.

    Raises:
        InputError: a missing or damaged file of the source, or a `dest` in use.
    """
    source = Path(source)
    options = _options(source, history, history_length, images)
    options = replace(options, plan=replace(options.plan, cold=cold))
    if not source.is_dir():
        raise InputError(f"a directory with ratings.csv is needed, there is none at {source}")
    try:
        from mmrec.datasets.movielens_csv import read_movies, read_ratings
    except ImportError:
        raise InputError("reading MovieLens needs polars: pip install 'mmrec[prepare]'") from None
    ratings = read_ratings(source)
    movies = read_movies(source, ratings)
    with TemporaryDirectory() as folder:
        events, items = Path(folder) / "events.parquet", Path(folder) / "items.parquet"
        _events(ratings).write_parquet(events)
        _items(movies).write_parquet(items)
        finish = partial(_finish, source=source, movie_ids=movies["movieId"].to_numpy())
        made = prepare_log(events, items, dest, options, finish=finish)
    print(*made.report, sep="\n")
    return ClickData.open(made.root, check=False)


def _options(source: Path, history: str, history_length: int, images: str) -> Options:
    require(history in HISTORIES, f"history is one of {', '.join(HISTORIES)}, got {history}")
    require(history_length >= 1, f"history_length is 1 or more, got {history_length}")
    pictures = "{item_id}.jpg" if (source / "images").is_dir() else None
    return Options(
        log=Log(user="user_id", item="item_id", time="timestamp", labels=("label",), time_unit="s"),
        items=Catalogue(
            title="title",
            tags="genres",
            description="overview",
            image=pictures,
            image_folder=None if pictures is None else str(source.resolve() / "images"),
        ),
        plan=Plan(
            history="all" if history == "all" else "positive",
            history_length=history_length,
            history_features=HISTORIES[history],
            split="user-time",
            statistics=("user:rows", "item"),
            last=LAST,
            levels=True,
            images=images,
            names=NAMES,
        ),
    )


def _events(ratings: pl.DataFrame) -> pl.DataFrame:
    named = {"userId": "user_id", "movieId": "item_id"}
    liked = (ratings["rating"] >= LIKED).alias("label")
    return ratings.rename(named).select("user_id", "item_id", "timestamp", liked)


def _items(movies: pl.DataFrame) -> pl.DataFrame:
    return movies.rename({"movieId": "item_id"}).select("item_id", "title", "genres", "overview")


def _finish(root: Path, *, source: Path, movie_ids: Ints) -> None:
    """What the release brings besides: vectors, and names for numbers."""
    if (source / "features.parquet").exists():
        _write_features(source / "features.parquet", root / "features.parquet", movie_ids)
    maps = {
        "movie_id_of_item": ("item", int),
        "user_id_of_user": ("user", int),
        "genre_of_tag": ("tag", str),
    }
    names: dict[str, Any] = {
        name: [None, *map(kind, pq.read_table(root / "maps" / f"{of}.parquet")["key"].to_pylist())]
        for name, (of, kind) in maps.items()
    }
    write_json(root / "movielens.json", names)
    schema = Schema.read(root / FILE)
    vectors = {"image": "image_emb", "text": "text_emb"}
    items = replace(schema.items, title="item_title", modalities=vectors)
    write_json(root / FILE, replace(schema, items=items).to_dict())


def _write_features(source: Path, dest: Path, movie_ids: Ints) -> None:
    """Ready-made vectors with movie ids, as feature parquet with item ids, in order of them."""

    def item_of(column: Column) -> Ints:
        movies = column.numbers()
        place = np.minimum(np.searchsorted(movie_ids, movies), len(movie_ids) - 1)
        column.refuse_where(movie_ids[place] != movies, "features belong to movies of movies.csv")
        return place + 1

    masks = {"image_emb": "has_image", "text_emb": "has_text"}
    content, seen = read_vectors(source, "movieId", masks, len(movie_ids) + 1, item_of)
    columns: dict[str, Any] = {"item_id": np.flatnonzero(seen)}
    for name, mask in masks.items():
        columns |= {name: as_lists(content[name].vectors[seen])}
        columns |= {mask: content[name].present[seen]}
    write_parquet(dest, pa.table(columns))


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m mmrec.datasets.movielens",
        description="Prepare a MovieLens release (docs/concepts/data_format.md).",
    )
    parser.add_argument("source", help="directory with ratings.csv and movies.csv")
    parser.add_argument("dest", help="directory to write; an earlier output is replaced")
    parser.add_argument(
        "--history",
        choices=tuple(HISTORIES),
        default="all",
        help="of all that the user rated before, or of what they liked (default: all)",
    )
    parser.add_argument(
        "--history-length", type=int, default=100, help="entries kept per row (default: 100)"
    )
    parser.add_argument(
        "--images",
        choices=IMAGES,
        default="hardlink",
        help="how images/<movieId>.jpg get there (default: hardlink, copied where not possible)",
    )
    parser.add_argument(
        "--cold", type=float, default=0.0, help="share of the movies that train does not know (0)"
    )
    args = parser.parse_args(arguments)
    data = prepare(
        args.source,
        args.dest,
        history=args.history,
        history_length=args.history_length,
        images=args.images,
        cold=args.cold,
    )
    rows = ", ".join(f"{name} {count:,}" for name, count in data.rows.items())
    print(f"wrote {data.root}: {rows} rows")


if __name__ == "__main__":
    run(main)

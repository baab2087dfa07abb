"""MovieLens as clicks, items and a schema: `python -m mmrec.datasets.movielens SOURCE DEST`.

A rating of 4 or more is a click (label 1). Every row knows only what came before it: its history
is what the user had rated by then, liked or not (`movielens_clicks.py`, by way of `chronology.py`).
SOURCE is a release of GroupLens (`ratings.csv`, `movies.csv`), and may hold `images/<movieId>.jpg`,
`overviews.csv` (movieId, overview) and `features.parquet` (movieId, image_emb, text_emb, ...).
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmrec.cli import run
from mmrec.data.clicks import SPLITS, ClickData
from mmrec.data.items import read_vectors
from mmrec.datasets import chronology
from mmrec.datasets.chronology import Ratings
from mmrec.datasets.movielens_clicks import HISTORIES, schema, write_clicks
from mmrec.errors import InputError
from mmrec.io.files import sync_directory, write_json
from mmrec.io.parquet import Column, Ints, as_lists, left_pad, write_parquet
from mmrec.io.pictures import picture_name
from mmrec.io.progress import Progress
from mmrec.schema import FILE

if TYPE_CHECKING:
    import polars as pl

LIKED = 4.0  # a rating from here on is label 1
MARK = "movielens.json"  # tells an earlier output of this command from somebody's directory
WRITTEN = {MARK, FILE, "item_info.parquet", "item_feature.parquet", "features.parquet"}
WRITTEN |= {"test_labels.parquet", "item_images", *(f"{name}.parquet" for name in SPLITS)}
IMAGES = ("hardlink", "symlink", "copy", "none")


def prepare(
    source: str | Path,
    dest: str | Path,
    *,
    history: str = "all",
    history_length: int = 100,
    images: str = "hardlink",
) -> ClickData:
    """Write `source` to the directory `dest`, with its `schema.json`, and open it.

    Args:
        source: directory of the MovieLens files.
        dest: a new or empty directory, or an earlier output of this function, replaced as a whole.
        history: "all" that the user rated before, and whether it was liked; or "liked" alone.
        history_length: entries of a history; older ones are cut off.
        images: how pictures get to `dest`: "hardlink" (copied where the file system refuses),
            "symlink", "copy", or "none".

    Raises:
        InputError: a missing or damaged file of the source, or a `dest` in use.
    """
    source, dest = Path(source), Path(dest).resolve()
    if images not in IMAGES:
        raise InputError(f"images is one of {', '.join(IMAGES)}, got {images}")
    if history not in HISTORIES:
        raise InputError(f"history is one of {', '.join(HISTORIES)}, got {history}")
    if history_length < 1:
        raise InputError(f"history_length is 1 or more, got {history_length}")
    if not source.is_dir():
        raise InputError(f"a directory with ratings.csv is needed, there is none at {source}")
    _check_dest(dest)
    try:
        from mmrec.datasets.movielens_csv import read_movies, read_ratings
    except ImportError:
        raise InputError("reading MovieLens needs polars: pip install 'mmrec[prepare]'") from None
    table = read_ratings(source)
    movies = read_movies(source, table)
    movie_ids = movies["movieId"].to_numpy()
    ratings, user_ids = _dense(table, movie_ids)
    split = chronology.split_by_user(ratings.user, ratings.time, ratings.item)
    _check_splits(ratings, split, source)
    print(f"{len(ratings.user):,} ratings, {len(user_ids):,} users, {len(movie_ids):,} movies")
    mark = {
        "made_by": "python -m mmrec.datasets.movielens",
        "history": history,
        "history_length": history_length,
        "movie_id_of_item": [None, *movie_ids.tolist()],
        "user_id_of_user": [None, *user_ids.tolist()],
        "genre_of_tag": [None, *_genres(movies)],
    }
    # All of it is made beside `dest` and moved there at the end: never half a data set.
    making = dest.with_name(f".{dest.name}.preparing")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    try:
        write_clicks(making, ratings, split, history=history, length=history_length)
        _write_items(making, movies, ratings, split == chronology.TRAIN)
        if (source / "features.parquet").exists():
            _write_features(source / "features.parquet", making / "features.parquet", movie_ids)
        linked = _place_images(source / "images", making / "item_images", movie_ids, images)
        print(f"{linked:,} movies have a picture")
        write_json(making / FILE, schema(history).to_dict())
        write_json(making / MARK, mark)
        ClickData.open(making)
        _swap(making, dest)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return ClickData.open(dest, check=False)


def _check_splits(ratings: Ratings, split: Ints, source: Path) -> None:
    liked = {name: ratings.liked[split == n] for n, name in enumerate(SPLITS)}
    for name in SPLITS:
        if not liked[name].size:
            raise InputError(f"users need some ten ratings each, {name} gets none from {source}")
    for name in SPLITS[:2]:
        if len(np.unique(liked[name])) < 2:
            raise InputError(
                f"ratings must lie on both sides of {LIKED:g}, those of {name} do not in {source}"
            )


def _check_dest(dest: Path) -> None:
    if dest.exists() and not dest.is_dir():
        raise InputError(f"a directory is needed to write to, {dest} is a file")
    if not dest.is_dir():
        return
    held = sorted(entry.name for entry in dest.iterdir())
    foreign = [name for name in held if name not in WRITTEN or MARK not in held]
    if foreign:
        raise InputError(
            f"a new or empty directory or an earlier output of this command is needed, "
            f"{dest} holds {foreign[0]}"
        )


def _swap(made: Path, dest: Path) -> None:
    old = dest.with_name(f".{dest.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if dest.exists():
        dest.rename(old)
    made.rename(dest)
    sync_directory(dest.parent)
    shutil.rmtree(old, ignore_errors=True)


def _dense(table: pl.DataFrame, movie_ids: Ints) -> tuple[Ratings, Ints]:
    """Ratings in order of time with dense ids, and the user ids that these stand for."""
    table = table.sort("timestamp", "userId", "movieId")
    user_ids = np.unique(table["userId"].to_numpy())
    user = np.searchsorted(user_ids, table["userId"].to_numpy()) + 1
    item = np.searchsorted(movie_ids, table["movieId"].to_numpy()) + 1
    time = table["timestamp"].to_numpy()
    liked = table["rating"].to_numpy() >= LIKED
    return Ratings(user=user, item=item, time=time, liked=liked), user_ids


def _genres(movies: pl.DataFrame) -> list[str]:
    genres: list[str] = movies["genres"].explode().drop_nulls().unique().sort().to_list()
    return genres


def _write_items(
    root: Path, movies: pl.DataFrame, ratings: Ratings, train: NDArray[np.bool_]
) -> None:
    """Tags of every item, and titles, texts and levels beside them."""
    n = movies.height + 1
    tag_of = {genre: tag for tag, genre in enumerate(_genres(movies), start=1)}
    tags = [[tag_of[genre] for genre in genres] for genres in movies["genres"]]
    lengths = np.array([0, *map(len, tags)], dtype=np.int64)
    flat = np.array([tag for row in tags for tag in row], dtype=np.int64)
    padded = left_pad(flat, lengths, max(5, int(lengths.max())))
    info = pa.table({"item_id": np.arange(n), "item_tags": as_lists(padded)})
    write_parquet(root / "item_info.parquet", info)

    count = np.bincount(ratings.item[train], minlength=n)[1:]
    likes = np.bincount(ratings.item[train & ratings.liked], minlength=n)[1:]
    texts = [
        ". ".join(part for part in (title, ", ".join(genres), overview) if part)
        for title, genres, overview in movies.select("title", "genres", "overview").iter_rows()
    ]
    columns = {
        "item_id": np.arange(1, n),
        "item_title": movies["title"].to_list(),
        "item_tags": pa.array(tags, pa.list_(pa.int64())),
        "likes_level": chronology.likes_level(likes, count),
        "views_level": chronology.views_level(count),
        "item_text": texts,
    }
    write_parquet(root / "item_feature.parquet", pa.table(columns))


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


def _place_images(source: Path, dest: Path, movie_ids: Ints, how: str) -> int:
    """Link or copy `<movieId>.jpg` to `<item_id>.jpg`; returns how many there are."""
    if how == "none" or not source.is_dir():
        return 0
    dest.mkdir()
    there = {entry.name for entry in os.scandir(source)}
    wanted = [
        (picture_name(movie), picture_name(item))
        for item, movie in enumerate(movie_ids.tolist(), start=1)
        if picture_name(movie) in there
    ]
    for old, new in Progress(wanted, desc="images", unit="image"):
        if how == "symlink":
            (dest / new).symlink_to((source / old).resolve())
            continue
        try:
            (os.link if how == "hardlink" else shutil.copyfile)(source / old, dest / new)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source / old, dest / new)
    return len(wanted)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m mmrec.datasets.movielens",
        description="Prepare a MovieLens release (docs/data_format.md).",
    )
    parser.add_argument("source", help="directory with ratings.csv and movies.csv")
    parser.add_argument("dest", help="directory to write; an earlier output is replaced")
    parser.add_argument(
        "--history",
        choices=HISTORIES,
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
    args = parser.parse_args(arguments)
    data = prepare(
        args.source,
        args.dest,
        history=args.history,
        history_length=args.history_length,
        images=args.images,
    )
    rows = ", ".join(f"{name} {count:,}" for name, count in data.rows.items())
    print(f"wrote {data.root}: {rows} rows")


if __name__ == "__main__":
    run(main)

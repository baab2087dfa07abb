"""A small release written here, prepared by the command, and compared with loops over its lines."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reference import chronology as slow

from mmrec.data.clicks import ClickData
from mmrec.data.items import ItemTable
from mmrec.datasets.movielens import main, prepare
from mmrec.errors import InputError
from mmrec.io.pictures import picture_name
from mmrec.schema import Categorical, Schema

MOVIES = {
    2: ("Jumanji (1995)", "Adventure|Children|Fantasy", "A game\nof jungle, and more."),
    5: ('"Quote" Movie, The (1999)', "(no genres listed)", None),
    31: ("Wide One (2001)", "Action|Comedy|Drama|Horror|IMAX|War|Western", "Seven genres."),
    7: ("Plain (1980)", "Drama", None),
    900: ("Café (2004)", "Comedy", "Coffee."),
    901: ("Never rated", "", None),
    11: ("Twelve (1957)", "Drama|Crime", None),
}
RATED = sorted(set(MOVIES) - {901})
PICTURES = [2, 7, 900]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Seven users and 36 rated movies, most of them made up: a split takes ten ratings a user."""
    root = tmp_path / "release"
    (root / "images").mkdir(parents=True)
    random = np.random.default_rng(3)
    extra = {movie: (f"Film {movie} (2010)", "Drama|War", None) for movie in range(1000, 1030)}
    ids = [*RATED, *extra]
    lines = []
    for user in (40, 3, 17, 8, 21, 9, 60):
        movies = random.permutation(ids)[: random.integers(12, 31)]
        times = random.integers(10**9, 10**9 + 20, size=len(movies))  # ties are the rule
        stars = random.integers(1, 11, size=len(movies)) / 2
        lines += list(zip([user] * len(movies), movies, stars, times, strict=True))
    write_csv(root / "ratings.csv", ["userId", "movieId", "rating", "timestamp"], lines)
    every = MOVIES | extra
    rows = [(movie, title, genres) for movie, (title, genres, _) in every.items()]
    write_csv(root / "movies.csv", ["movieId", "title", "genres"], rows)
    plots = [(movie, plot) for movie, (*_, plot) in every.items() if plot]
    write_csv(root / "overviews.csv", ["movieId", "overview"], plots)
    for movie in PICTURES:
        (root / "images" / f"{movie}.jpg").write_bytes(f"picture {movie}".encode())
    (root / "images" / "77.jpg").write_bytes(b"of no movie")
    write_features(root, [900, 31, 2], [True, False, True])
    return root


def write_csv(path: Path, header: list[str], rows: list[Any]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([header, *rows])


def write_features(root: Path, movies: list[int], pictured: list[bool]) -> None:
    def vectors(width: int) -> pa.Array:
        flat = [np.float16(movie % 100 + place) for movie in movies for place in range(width)]
        return pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float16()), width)

    columns = {"movieId": movies, "has_image": pictured, "image_emb": vectors(3)}
    pq.write_table(pa.table(columns | {"text_emb": vectors(2)}), root / "features.parquet")


def picture_of(data: ClickData, item: int) -> Path | None:
    assert data.images is not None
    path = data.images / picture_name(item)
    return path if path.exists() else None


def rows_of(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def digest(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


NUMBERS = (
    "user_like_share_10",
    "user_like_share_30",
    "user_like_share_100",
    "log_user_ratings",
    "log_item_ratings",
    "item_like_share",
)


def read_ratings(source: Path, names: dict[str, Any]) -> list[slow.Rating]:
    """The lines in order of time, with the ids that the data set gave."""
    item_of = {movie: item for item, movie in enumerate(names["movie_id_of_item"])}
    user_of = {user: dense for dense, user in enumerate(names["user_id_of_user"])}
    with open(source / "ratings.csv", newline="") as handle:
        lines = list(csv.DictReader(handle))
    lines.sort(key=lambda line: (int(line["timestamp"]), int(line["userId"]), int(line["movieId"])))
    return [
        (
            user_of[int(line["userId"])],
            item_of[int(line["movieId"])],
            int(line["timestamp"]),
            float(line["rating"]) >= 4,
        )
        for line in lines
    ]


def slow_row(ratings: list[slow.Rating], split: list[int], row: int, kept: str) -> dict[str, Any]:
    user, item, time, liked = ratings[row]
    likes, views = slow.levels(ratings, split, row)
    past = [one for one in slow.history(ratings, row, 9, only_liked=kept == "liked") if one[0]]
    items, opinions, days = (
        (list(column) for column in zip(*past, strict=True)) if past else ([],) * 3
    )
    return {
        "user_id": user,
        "item_id": item,
        "timestamp": time,
        "likes_level": likes,
        "views_level": views,
        **dict(zip(NUMBERS, slow.numbers(ratings, row, (10, 30, 100)), strict=True)),
        "label": int(liked),
        "item_seq": items,
        **({"liked": opinions} if kept == "all" else {}),
        "days_ago": np.float32(days).tolist(),
    }


@pytest.mark.parametrize("kept", ["all", "liked"])
def test_clicks_agree_with_loops_over_the_lines(source: Path, tmp_path: Path, kept: str) -> None:
    data = prepare(source, tmp_path / "out", history_length=9, history=kept)
    assert data == ClickData.open(tmp_path / "out")
    names = json.loads((tmp_path / "out" / "movielens.json").read_text())
    ratings = read_ratings(source, names)
    split = slow.splits(ratings)
    expected: dict[str, list[dict[str, Any]]] = {"train": [], "valid": [], "test": []}
    for row in range(len(ratings)):
        expected[["train", "valid", "test"][split[row]]].append(slow_row(ratings, split, row, kept))
    test_labels = [row.pop("label") for row in expected["test"]]
    for name, rows in expected.items():
        got = rows_of(getattr(data, name))
        keys = [row.pop("ID") for row in got if "ID" in row]
        assert len({*keys}) == len(rows) * (name == "test")
        for one, other in zip(got, rows, strict=True):
            numbers, wanted = ([row.pop(name) for name in NUMBERS] for row in (one, other))
            assert numbers == pytest.approx(wanted, rel=1e-6, nan_ok=True)
            assert one == other
    assert pq.read_table(data.test)["ID"].to_pylist() == keys
    apart = rows_of(tmp_path / "out" / "test_labels.parquet")
    assert apart == [{"ID": n, "label": x} for n, x in zip(keys, test_labels, strict=True)]
    assert min(map(len, expected.values())) > 5
    assert (data.num_items, data.widths["item_seq"]) == (38, 9)


def test_the_schema_names_what_the_rows_hold(source: Path, tmp_path: Path) -> None:
    data = prepare(source, tmp_path / "out")
    clicks = data.schema.clicks
    assert Schema.read(tmp_path / "out" / "schema.json") == data.schema
    assert (clicks.labels, clicks.user, clicks.row_id) == (("label",), "user_id", "ID")
    assert (clicks.time, clicks.numeric) == ("timestamp", NUMBERS)
    assert [column.name for column in clicks.categorical] == ["likes_level", "views_level"]
    assert clicks.history_categorical == (Categorical("liked", limit=2),)
    assert clicks.history_numeric == ("days_ago",)
    batch = next(iter(data.loader("train", batch_size=64)))
    assert batch.categorical.shape == (64, 2)
    assert batch.numeric.shape == (64, 6)
    assert batch.history_categorical.shape == (64, data.widths["item_seq"], 1)
    assert batch.history_numeric.shape == (64, data.widths["item_seq"], 1)
    assert batch.numeric[:, :3].isnan().any(), "first ratings of their users"
    likes = prepare(source, tmp_path / "likes", history="liked").schema.clicks
    assert likes == dataclasses.replace(clicks, history_categorical=())


def test_items_keep_titles_genres_texts_and_pictures(source: Path, tmp_path: Path) -> None:
    data = prepare(source, tmp_path / "out")
    names = json.loads((tmp_path / "out" / "movielens.json").read_text())
    movies = names["movie_id_of_item"]
    assert movies[:8] == [None, 2, 5, 7, 11, 31, 900, 901]
    tag_of = {genre: tag for tag, genre in enumerate(names["genre_of_tag"])}
    assert data.item_feature is not None
    features = {movies[row["item_id"]]: row for row in rows_of(data.item_feature)}
    assert len(features) == 37
    tags = {movie: [tag_of["Drama"], tag_of["War"]] for movie in movies[1:]}
    for movie, (title, genres, plot) in MOVIES.items():
        row = features[movie]
        assert row["item_title"] == title
        words = [genre for genre in genres.split("|") if genre and genre[0] != "("]
        assert row["movieId"] == str(movie)
        tags[movie] = [tag_of[word] for word in words]
        plot = None if plot is None else plot.replace("\n", " ")
        assert row["item_text"] == ". ".join(filter(None, [title, ", ".join(words), plot]))
    assert data.features is not None
    table = ItemTable.read(data.item_info, data.schema.items, data.features)
    assert table.tags.shape == (38, 7)  # the movie with seven genres keeps them all
    for item, movie in enumerate(movies[1:], start=1):
        own = tags[movie]
        assert table.tags[item].tolist() == [0] * (7 - len(own)) + own
        assert table.keys is not None
        assert table.keys[item].as_py() == str(movie)
        picture = picture_of(data, item)
        assert (picture is not None) == (movie in PICTURES)
        if picture is not None:
            assert picture.read_bytes() == f"picture {movie}".encode()
        assert table.has_image[item].item() == (movie in (900, 2))
        assert table.has_text[item].item() == (movie in (900, 31, 2))
        base = movie % 100
        if movie in (900, 2):
            assert table.image[item].tolist() == [base, base + 1, base + 2]
        if movie in (900, 31, 2):
            assert table.text[item].tolist() == [base, base + 1]


def test_a_second_run_gives_the_same_bytes_and_replaces_everything(
    source: Path, tmp_path: Path
) -> None:
    first, out = tmp_path / "first", tmp_path / "out"
    prepare(source, first)
    prepare(source, out, history_length=3, images="copy")
    assert digest(first) != digest(out)
    assert (out / "item_images" / "1.jpg").stat().st_nlink == 1
    (out / "item_images" / "999.jpg").touch()
    for left in (".out.preparing", ".out.old"):  # what a killed run leaves
        (tmp_path / left / "item_images").mkdir(parents=True)
        (tmp_path / left / "item_images" / "5.jpg").touch()
    prepare(source, out)
    assert digest(first) == digest(out)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_pictures_are_linked_or_copied_or_left(source: Path, tmp_path: Path) -> None:
    picture = source / "images" / "7.jpg"
    hard = picture_of(prepare(source, tmp_path / "a"), 3)
    soft = picture_of(prepare(source, tmp_path / "b", images="symlink"), 3)
    copy = picture_of(prepare(source, tmp_path / "c", images="copy"), 3)
    assert hard is not None
    assert soft is not None
    assert copy is not None
    assert os.path.samefile(hard, picture)
    assert not hard.is_symlink()
    assert soft.is_symlink()
    assert soft.resolve() == picture.resolve()
    assert not os.path.samefile(copy, picture)
    assert copy.read_bytes() == picture.read_bytes()
    assert prepare(source, tmp_path / "d", images="none").images is None


def test_pictures_are_copied_where_links_do_not_work(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    copied = picture_of(prepare(source, tmp_path / "out"), 3)
    assert copied is not None
    assert copied.read_bytes() == b"picture 7"


def test_bare_releases_will_do(source: Path, tmp_path: Path) -> None:
    for name in ("overviews.csv", "features.parquet"):
        (source / name).unlink()
    for picture in (source / "images").iterdir():
        picture.unlink()
    (source / "images").rmdir()
    data = prepare(source, tmp_path / "out")
    assert (data.features, data.images) == (None, None)
    assert data.item_feature is not None
    assert rows_of(data.item_feature)[0]["item_text"] == (
        "Jumanji (1995). Adventure, Children, Fantasy"
    )


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("40,2,7.5,100", r"ratings lie in 0\.5\.\.5, got '7\.5' in .*ratings\.csv, line 6$"),
        ("40,2,good,100", r"ratings lie in 0\.5\.\.5, got 'good' in .*ratings\.csv, line 6$"),
        ("40,2,nan,100", r"ratings lie in 0\.5\.\.5, got 'nan' in .*ratings\.csv, line 6$"),
        ("40,2,,100", r"ratings lie in 0\.5\.\.5, got None in .*ratings\.csv, line 6$"),
        ("40,2,4.0", "timestamp is an integer of 0 or more, got None .*line 6$"),
        ("40,2,4.0,yesterday", "timestamp is an integer of 0 or more, got 'yesterday' .*line 6$"),
        ("x,2,4.0,100", "userId is an integer of 0 or more, got 'x' .*line 6$"),
        ("40,-2,4.0,100", "movieId is an integer of 0 or more, got '-2' .*line 6$"),
        ("40,2,4.0,100,5,6", r"a CSV file in UTF-8 is needed, .*ratings\.csv is none"),
        ("40,77,4.0,100", r"is in .*movies\.csv, got movieId 77 in .*ratings\.csv, line 6$"),
        ("repeat", r"rates a movie once, got user 40 .* a second time in .*csv, line 6$"),
    ],
)
def test_a_bad_line_of_ratings_is_named(
    source: Path, tmp_path: Path, line: str, sentence: str
) -> None:
    path = source / "ratings.csv"
    lines = path.read_text().splitlines()
    lines[5] = lines[4] if line == "repeat" else line
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=sentence):
        prepare(source, tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["release"]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("ratings.csv", None, r"ratings\.csv is needed, there is none in"),
        ("movies.csv", None, r"movies\.csv is needed, there is none in"),
        ("ratings.csv", b"", r"a CSV file in UTF-8 is needed, .*ratings\.csv is none"),
        ("ratings.csv", b"\xff\xfe\x00,\x81\n\xff,\xfe\n", "a (CSV file in UTF-8|column)"),
        ("ratings.csv", b"user,movie,rating,timestamp\n1,1,3,5\n", "a column userId is needed"),
        ("ratings.csv", b"userId,movieId,rating,timestamp\n", "at least one row is needed"),
        ("movies.csv", b"movieId,title\n2,x\n", "a column genres is needed, the header of"),
        ("movies.csv", b"movieId,title,genres\n2,x,y\n2,x,y\n", "got movieId 2 a second time in"),
        ("overviews.csv", b"movieId,plot\n2,x\n", "a column overview is needed"),
        ("features.parquet", b"text", r"a parquet file is needed, .*features\.parquet"),
    ],
)
def test_a_bad_file_is_named_and_nothing_is_written(
    source: Path, tmp_path: Path, name: str, content: bytes | None, sentence: str
) -> None:
    (source / name).unlink()
    if content is not None:
        (source / name).write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        prepare(source, tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["release"]


def test_features_of_unknown_or_repeated_movies_are_refused(source: Path, tmp_path: Path) -> None:
    write_features(source, [2, 77], [True, True])
    with pytest.raises(InputError, match=r"movies of movies\.csv, got 77 in .*movieId, row 1$"):
        prepare(source, tmp_path / "out")
    write_features(source, [2, 900, 2], [True, True, True])
    with pytest.raises(InputError, match=r"in one row, got 2 a second .*movieId, row 2$"):
        prepare(source, tmp_path / "out")
    write_features(source, [2, 900], [False, False])
    data = prepare(source, tmp_path / "out")
    assert data.features is not None
    assert not ItemTable.read(data.item_info, data.schema.items, data.features).has_image.any()


def test_too_few_ratings_for_a_split(source: Path, tmp_path: Path) -> None:
    lines = (source / "ratings.csv").read_text().splitlines()
    few = [lines[0], "1,2,5.0,7", "1,5,3.0,8", "1,7,3.0,9"]
    (source / "ratings.csv").write_text("\n".join(few))
    with pytest.raises(InputError, match=r"train, valid and test needs rows, valid gets none of"):
        prepare(source, tmp_path / "out")
    fives = [",".join([*line.split(",")[:2], "5.0", line.split(",")[3]]) for line in lines[1:]]
    (source / "ratings.csv").write_text("\n".join([lines[0], *fives]))
    with pytest.raises(InputError, match=r"label is 1 in \d+ and 0 in 0 of"):
        prepare(source, tmp_path / "out")


def test_somebodys_directory_is_left_alone(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "mine"
    dest.mkdir()
    prepare(source, dest)
    (dest / "results.txt").write_text("precious")
    prepare(source, dest)  # stands already: nothing is written
    with pytest.raises(InputError, match=r"earlier output .*, .*mine holds results\.txt$"):
        prepare(source, dest, history="liked")
    with pytest.raises(InputError, match=r"earlier output .*, .*release holds features"):
        prepare(source, source)
    with pytest.raises(InputError, match=r"results\.txt is a file$"):
        prepare(source, dest / "results.txt")
    assert (dest / "results.txt").read_text() == "precious"


def test_wrong_options(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="history_length is 1 or more, got 0"):
        prepare(source, tmp_path / "out", history_length=0)
    with pytest.raises(InputError, match=r"history is one of all, liked, got disliked$"):
        prepare(source, tmp_path / "out", history="disliked")
    with pytest.raises(InputError, match=r"images is one of hardlink, .*, got teleport"):
        prepare(source, tmp_path / "out", images="teleport")
    with pytest.raises(InputError, match=r"there is none at .*/nowhere"):
        prepare(tmp_path / "nowhere", tmp_path / "out")


def test_the_command_line(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(source), str(tmp_path / "out"), "--history-length", "4", "--images", "none"])
    assert f"wrote {tmp_path / 'out'}: train " in capsys.readouterr().out
    assert ClickData.open(tmp_path / "out").widths["item_seq"] == 4
    command = [
        sys.executable,
        "-m",
        "mmrec.datasets.movielens",
        str(tmp_path),
        str(tmp_path / "new"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"error: ratings.csv is needed, there is none in {tmp_path}\n"


def test_train_does_not_know_cold_movies(source: Path, tmp_path: Path) -> None:
    data = prepare(source, tmp_path / "cold", images="none", cold=0.4)
    train, valid = pq.read_table(data.train), pq.read_table(data.valid)
    told = set(train["item_id"].to_pylist())
    told |= {item for row in train["item_seq"].to_pylist() for item in row}
    shown = set(valid["item_id"].to_pylist()) - told
    whole = prepare(source, tmp_path / "whole", images="none")
    assert shown
    assert train.num_rows < whole.rows["train"]
    assert valid.num_rows == whole.rows["valid"]

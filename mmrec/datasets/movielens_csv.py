"""The CSV files of a MovieLens release, read and checked (polars).

`ratings.csv` userId, movieId, rating, timestamp; `movies.csv` movieId, title, genres (`A|B`);
`overviews.csv` movieId, overview (not of GroupLens; optional).
"""

from pathlib import Path

import polars as pl

from mmrec.errors import InputError

NO_GENRES = "(no genres listed)"


def read_ratings(source: Path) -> pl.DataFrame:
    """userId, movieId, timestamp int64, rating float64; each user rates a movie once.

    Raises:
        InputError: no such file, another header, or a bad value, with its line.
    """
    path = source / "ratings.csv"
    table = _read(path, {"userId": pl.Int64, "movieId": pl.Int64, "timestamp": pl.Int64})
    text = table.select("line", pl.col("rating"), number=_number("rating", pl.Float64))
    bad = text.filter(~pl.col("number").is_between(0.5, 5.0).fill_null(False))
    if bad.height:
        line, got, _ = bad.row(0)
        raise InputError(f"ratings lie in 0.5..5, got {got!r} in {path}, line {line}")
    again = table.filter(~pl.struct("userId", "movieId").is_first_distinct())
    if again.height:
        row = again.row(0, named=True)
        raise InputError(
            f"a user rates a movie once, got user {row['userId']} and movie {row['movieId']} "
            f"a second time in {path}, line {row['line']}"
        )
    return table.with_columns(rating=text["number"])


def read_movies(source: Path, ratings: pl.DataFrame) -> pl.DataFrame:
    """movieId int64, title str, genres list of str, overview str; by movieId.

    What is missing is an empty string or an empty list.
    """
    path = source / "movies.csv"
    movies = _read(path, {"movieId": pl.Int64}, also=("title", "genres"))
    movies = _once(movies, path).select(
        "movieId",
        title=_clean("title"),
        genres=pl.col("genres").fill_null("").str.split("|"),
    )
    movies = movies.with_columns(
        genres=pl.col("genres").list.eval(pl.element().filter(~pl.element().is_in(["", NO_GENRES])))
    )
    unknown = ratings.join(movies, on="movieId", how="anti", maintain_order="left")
    if unknown.height:
        row = unknown.row(0, named=True)
        raise InputError(
            f"every rated movie is in {path}, got movieId {row['movieId']} "
            f"in {source / 'ratings.csv'}, line {row['line']}"
        )
    plots = source / "overviews.csv"
    if plots.exists():
        overviews = _read(plots, {"movieId": pl.Int64}, also=("overview",))
        overviews = _once(overviews, plots).select("movieId", overview=_clean("overview"))
        movies = movies.join(overviews, on="movieId", how="left")
    else:
        movies = movies.with_columns(overview=pl.lit(""))
    return movies.with_columns(pl.col("overview").fill_null("")).sort("movieId")


def _read(
    path: Path, integers: dict[str, type[pl.Int64]], also: tuple[str, ...] = ("rating",)
) -> pl.DataFrame:
    """All columns as strings, `integers` cast; `line` is the line of a file without line breaks."""
    if not path.is_file():
        raise InputError(f"{path.name} is needed, there is none in {path.parent}")
    try:
        table = pl.read_csv(path, infer_schema=False)
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"a CSV file in UTF-8 is needed, {path} is none: {reason}") from None
    missing = [name for name in (*integers, *also) if name not in table.columns]
    if missing:
        found = ", ".join(table.columns)
        raise InputError(f"a column {missing[0]} is needed, the header of {path} has {found}")
    if not table.height:
        raise InputError(f"at least one row is needed, there is none in {path}")
    table = table.select(*integers, *also).with_row_index("line", offset=2)
    for name, kind in integers.items():
        number = table.select("line", name, number=_number(name, kind))
        bad = number.filter(pl.col("number").is_null() | (pl.col("number") < 0))
        if bad.height:
            line, got, _ = bad.row(0)
            raise InputError(
                f"{name} is an integer of 0 or more, got {got!r} in {path}, line {line}"
            )
        table = table.with_columns(number["number"].alias(name))
    return table


def _number(name: str, kind: type[pl.Int64] | type[pl.Float64]) -> pl.Expr:
    return pl.col(name).str.strip_chars().cast(kind, strict=False)


def _clean(name: str) -> pl.Expr:
    return pl.col(name).fill_null("").str.replace_all(r"\s+", " ").str.strip_chars()


def _once(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    again = table.filter(~pl.col("movieId").is_first_distinct())
    if again.height:
        got = again.row(0, named=True)["movieId"]
        raise InputError(f"each movie stands in one row, got movieId {got} a second time in {path}")
    return table

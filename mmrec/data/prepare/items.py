"""The person's table of items to an item table, captions and pictures of the layout.

A catalogue has a row an item: `key`, `title`, `description`, `levels` and `tags` (lists of text),
`c0…` (categories as text), `n0…` (numbers), `pictures` (list of paths), `since` (microseconds).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from mmrec.data.prepare.ids import Maps
from mmrec.data.prepare.options import Catalogue, Log, Options, split_category
from mmrec.data.prepare.read import number_of, require_columns, scan, text_of, unreadable
from mmrec.data.prepare.times import find_clock, microseconds
from mmrec.errors import InputError, require
from mmrec.io.parquet import write_parquet
from mmrec.io.pictures import SUFFIXES, find_pictures
from mmrec.io.progress import Progress

_WORDS = ("title", "description")
_ROLES = ("title", "description", "category_path", "tags", "since")


def read_catalogue(
    path: str | Path | None, options: Options
) -> tuple[pl.DataFrame, dict[str, int]]:
    """The items of a file, one row a key, and what was odd: rows without a key, keys again.

    None is a file without rows.
    """
    if path is None:
        return pl.DataFrame(schema=_schema(options)), {"no_key": 0, "repeats": 0}
    asked = options.items
    table = scan(path, options.log.delimiter)
    kinds = table.collect_schema()
    wanted = {options.item_column: "the items' key"}
    wanted |= {getattr(asked, role): role for role in _ROLES if getattr(asked, role) is not None}
    wanted |= dict.fromkeys(asked.category_names, "categorical")
    wanted |= dict.fromkeys(asked.numeric, "numeric")
    wanted |= dict.fromkeys(_image_columns(asked), "image")
    require_columns(table, wanted, path)
    table = table.with_row_index("__line")
    columns: dict[str, pl.Expr] = {"key": text_of(options.item_column, kinds[options.item_column])}
    for role in _WORDS:
        name = getattr(asked, role)
        columns[role] = pl.lit("") if name is None else _clean(text_of(name, kinds[name]))
    for role, made in (("category_path", "levels"), ("tags", "tags")):
        columns[made] = _words(getattr(asked, role), kinds, asked.separator)
    for place, name in enumerate(asked.category_names):
        columns[f"c{place}"] = text_of(name, kinds[name])
    for place, name in enumerate(asked.numeric):
        columns[f"n{place}"] = number_of(name, kinds[name])
    columns["pictures"] = _picture_paths(asked, kinds)
    columns["since"] = _since(table, options, str(path))
    try:
        _refuse_bad_numbers(table, columns, asked, path)
        found = table.select(**columns).collect()
    except pl.exceptions.PolarsError as error:
        raise InputError(unreadable(path, error)) from None
    with_key = found.drop_nulls("key")
    once = with_key.unique("key", keep="first", maintain_order=True)
    odd = {"no_key": found.height - with_key.height, "repeats": with_key.height - once.height}
    require(once.height, f"at least one item is needed, {path} has none with a key")
    return once.cast(pl.Schema(_schema(options))), odd


def _schema(options: Options) -> dict[str, Any]:
    asked, text = options.items, pl.List(pl.String)
    kinds: dict[str, Any] = {"key": pl.String, "title": pl.String, "description": pl.String}
    kinds |= {"levels": text, "tags": text}
    kinds |= {f"c{place}": pl.String for place in range(len(asked.categorical))}
    kinds |= {f"n{place}": pl.Float64 for place in range(len(asked.numeric))}
    return kinds | {"pictures": text, "since": pl.Int64}


def _clean(text: pl.Expr) -> pl.Expr:
    return text.fill_null("").str.replace_all(r"\s+", " ").str.strip_chars()


def _words(name: str | None, kinds: pl.Schema, separator: str) -> pl.Expr:
    """A list of clean words, of a list or of a text that the separator cuts."""
    if name is None:
        return pl.lit([], dtype=pl.List(pl.String))
    if isinstance(kinds[name], pl.List):
        words = pl.col(name).cast(pl.List(pl.String))
    else:
        words = text_of(name, kinds[name]).str.split(separator)
    clean = words.list.eval(_clean(pl.element()).filter(_clean(pl.element()) != ""))
    return clean.fill_null([])


def _since(table: pl.LazyFrame, options: Options, where: str) -> pl.Expr:
    name = options.items.since
    if name is None:
        return pl.lit(None, dtype=pl.Int64)
    log = options.log
    asked = Log(
        log.user, log.item, name, time_unit=log.time_unit, time_format=log.time_format,
        time_zone=log.time_zone,
    )  # fmt: skip
    return microseconds(asked, find_clock(table, asked, where))


def _refuse_bad_numbers(
    table: pl.LazyFrame, columns: dict[str, pl.Expr], asked: Catalogue, path: str | Path
) -> None:
    kinds = table.collect_schema()
    for place, name in enumerate(asked.numeric):
        given, value = text_of(name, kinds[name]), columns[f"n{place}"]
        wrong = (given.is_not_null() & value.is_null()) | value.is_infinite().fill_null(False)
        bad = table.filter(wrong).select("__line", name).head(1).collect()
        if bad.height:
            line, got = bad.row(0)
            raise InputError(
                f"numbers are finite, or left out, got {got!r} in {path}, column {name}, row {line}"
            )


def write_items(folder: Path, catalogue: pl.DataFrame, maps: Maps, options: Options) -> None:
    """`item_info.parquet` and `item_feature.parquet`: every item of the map, in order of ids.

    What a catalogue does not say of an item is missing.
    """
    plan, asked, log = options.plan, options.items, options.log
    table = maps["item"].join(catalogue, on="key", how="left", maintain_order="left")
    identity = [
        pl.col("id").alias(plan.named(log.item)),
        pl.col("key").alias(plan.named(f"{log.item}_key")),
    ]
    info: list[pl.Expr | pl.Series] = [*identity]
    if asked.tags is not None or asked.category_path is not None:
        info.append(_tag_ids(table, maps["tag"]).alias(plan.named("tags")))
    for place, name in enumerate(asked.category_names):
        ids = table.select(key=f"c{place}").join(
            maps[f"item_{name}"], on="key", how="left", maintain_order="left"
        )
        info.append(ids["id"].fill_null(0).alias(name))
    for place, name in enumerate(asked.numeric):
        info.append(pl.col(f"n{place}").cast(pl.Float32).alias(name))
    write_parquet(folder / "item_info.parquet", _arrow(table.select(info)))
    if not modalities_of(options):
        return
    title = pl.col("title").fill_null("")
    feature = table.select(
        *identity, title.alias(plan.named("title")), _caption().alias(plan.named("caption"))
    )
    write_parquet(folder / "item_feature.parquet", _arrow(feature))


def modalities_of(options: Options) -> dict[str, str]:
    """What of the items can be embedded: pictures, words -> the column of their vectors."""
    asked = options.items
    words = asked.title or asked.description or asked.tags or asked.category_path
    return {name: name for name, there in {"image": asked.image, "text": words}.items() if there}


def _arrow(frame: pl.DataFrame) -> pa.Table:
    """With the list and string types that other programs know."""
    table = frame.to_arrow()
    plain = {pa.large_string(): pa.string(), pa.string_view(): pa.string()}
    fields = [field.with_type(plain.get(field.type, field.type)) for field in table.schema]
    return table.cast(pa.schema(fields))


def _caption() -> pl.Expr:
    """Title, tags, levels and description as sentences, what is missing left out."""
    parts = [
        pl.col("title"),
        pl.col("tags").list.join(", "),
        pl.col("levels").list.join(", "),
        pl.col("description"),
    ]
    there = [pl.when(part != "").then(part) for part in parts]
    return pl.concat_str(there, separator=". ", ignore_nulls=True).fill_null("")


def tags_of(catalogue: pl.DataFrame) -> pl.DataFrame:
    """(key of the item, tag): its tags, and its path down to each level."""
    paths = [
        catalogue.select("key", tag=pl.col("levels").list.head(depth).list.join(" > ")).filter(
            catalogue["levels"].list.len() >= depth
        )
        for depth in range(1, int(catalogue["levels"].list.len().max() or 0) + 1)  # type: ignore[arg-type]
    ]
    tags = catalogue.select("key", tag="tags").explode("tag").drop_nulls("tag")
    return pl.concat([tags, *paths])


def _tag_ids(table: pl.DataFrame, ids: pl.DataFrame) -> pl.Series:
    """A list of tags an item, in the order of the catalogue; none is an empty list."""
    known = table.select("key", "levels", "tags").drop_nulls("tags")
    pairs = tags_of(known).join(
        ids.rename({"key": "tag", "id": "number"}), on="tag", how="left", maintain_order="left"
    )
    lists = pairs.group_by("key", maintain_order=True).agg("number")
    joined = table.select("key").join(lists, on="key", how="left", maintain_order="left")
    return joined["number"].fill_null([])


def _image_columns(asked: Catalogue) -> list[str]:
    """Columns that tell of pictures."""
    image = asked.image
    if image is None:
        return []
    return [part.split("}")[0] for part in image.split("{")[1:]] if "{" in image else [image]


def _picture_paths(asked: Catalogue, kinds: pl.Schema) -> pl.Expr:
    """A list of file names, empty where pictures are bytes or none are told."""
    image = asked.image
    if image is None or kinds.get(image) == pl.Binary:
        return pl.lit([], dtype=pl.List(pl.String))
    if "{" not in image:
        return _words(image, kinds, asked.separator)
    names = _image_columns(asked)
    blank = image
    for name in names:
        blank = blank.replace("{" + name + "}", "{}")
    made = pl.format(blank, *(text_of(name, kinds[name]) for name in names))
    return pl.concat_list(made).list.drop_nulls().fill_null([])


class Pictures:
    """Puts each item's first picture that is there to `<id>.jpg`, or with its own suffix.

    Args:
        source: folder that paths are relative to.
        dest: folder of the layout.
        how: "hardlink" (copied where the file system refuses), "symlink", "copy" or "none".
    """

    def __init__(self, source: Path, dest: Path, how: str) -> None:
        self.source, self.dest, self.how = source, dest, how
        self.facts: dict[str, Any] = {"pictures": 0, "without": 0, "more": 0}
        self.facts |= {"named": 0, "found": 0, "folder": str(source)}

    def place(self, ids: list[int], names: list[list[str] | None]) -> None:
        """The pictures of these items."""
        if self.how == "none":
            return
        self.dest.mkdir(exist_ok=True)
        both = list(zip(ids, names, strict=True))
        for item, paths in Progress(both, desc="pictures", unit="item"):
            there = [path for name in paths or () if (path := self.source / name).is_file()]
            self.facts["without"] += not there
            self.facts["named"] += bool(paths)
            self.facts["found"] += bool(there)
            self.facts["more"] += max(0, len(there) - 1)
            if there:
                self._put(there[0], self.dest / f"{item}{_suffix(there[0])}")

    def store(self, ids: list[int], contents: list[bytes | None]) -> None:
        """Pictures that stand in a table."""
        if self.how == "none":
            return
        self.dest.mkdir(exist_ok=True)
        for item, content in zip(ids, contents, strict=True):
            self.facts["without"] += not content
            if content:
                (self.dest / f"{item}{SUFFIXES[0]}").write_bytes(content)
                self.facts["pictures"] += 1

    def inherit(self, folder: Path) -> None:
        """Those that an earlier preparation placed, where there is none yet."""
        if self.how == "none" or not folder.is_dir():
            return
        self.dest.mkdir(exist_ok=True)
        placed = find_pictures(self.dest)
        for item, path in find_pictures(folder).items():
            if item not in placed:
                self._put(Path(path), self.dest / Path(path).name)

    def _put(self, path: Path, target: Path) -> None:
        self.facts["pictures"] += 1
        if self.how == "symlink":
            target.symlink_to(path.resolve())
            return
        try:
            (os.link if self.how == "hardlink" else shutil.copyfile)(path, target)
        except OSError:  # another file system, or one without links
            shutil.copyfile(path, target)


def _suffix(path: Path) -> str:
    return path.suffix.lower() if path.suffix.lower() in SUFFIXES else SUFFIXES[0]


def place_pictures(
    path: str | Path | None,
    folder: Path,
    catalogue: pl.DataFrame,
    maps: Maps,
    options: Options,
    former: Path | None = None,
) -> dict[str, Any]:
    """Every item's picture to `item_images` of a folder; returns what came of it.

    Args:
        path: of the table that tells of pictures.
        former: an earlier preparation, whose pictures stay where this table has none.
    """
    asked, ids = options.items, maps["item"]
    if asked.image is None:
        return {}
    if path is None:
        pictures = Pictures(Path(), folder / "item_images", options.plan.images)
        pictures.inherit(Path() if former is None else former / "item_images")
        return pictures.facts
    base = Path(path) if Path(path).is_dir() else Path(path).parent
    source = base if asked.image_folder is None else Path(asked.image_folder)
    pictures = Pictures(source, folder / "item_images", options.plan.images)
    table = scan(path, options.log.delimiter)
    kinds = table.collect_schema()
    if kinds.get(asked.image) == pl.Binary:
        key = text_of(options.item_column, kinds[options.item_column])
        both = table.select(key=key, picture=asked.image).unique("key", keep="first")
        for frame in both.collect().iter_slices(1000):
            frame = frame.join(ids, on="key", maintain_order="left")
            pictures.store(frame["id"].to_list(), frame["picture"].to_list())
    else:
        named = catalogue.select("key", "pictures").join(ids, on="key", maintain_order="left")
        pictures.place(named["id"].to_list(), named["pictures"].to_list())
    if former is not None:
        pictures.inherit(former / "item_images")
    if pictures.dest.is_dir() and not any(pictures.dest.iterdir()):
        pictures.dest.rmdir()  # a folder without a picture is refused by what embeds them
    return pictures.facts


def item_settings(options: Options) -> list[tuple[str, dict[str, int]]]:
    """Name and settings of the items' categorical columns."""
    return [split_category(text) for text in options.items.categorical]

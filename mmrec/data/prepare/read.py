"""Raw tables read lazily, and the log's columns checked and typed: (events, columns) of one make.

A typed event has `line` (its number in the file), `user_key`, `item_key`, `time` (microseconds),
`y0…` (labels: 0, 1, -1 = not known), `c0…` (categories as text), `n0…` (numbers), and where asked
for `kept` (may stand in histories), `group_key`, `weight`, `row_id`, `part`. What cannot be read is
an infinite number, a label or part of -2, a time `UNREADABLE`, and refused. Next: `ids.py`.
"""

from __future__ import annotations

import glob
import json
from math import inf
from pathlib import Path

import polars as pl

from mmrec.data.prepare.options import SPLITS, Condition, Log, Options, split_label
from mmrec.data.prepare.times import Clock, find_clock, microseconds
from mmrec.errors import InputError, require

_KINDS = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".parquet": "parquet"}
_KINDS |= dict.fromkeys((".jsonl", ".ndjson", ".json"), "json")
_ONES, _ZEROS = ["1", "1.0", "true", "True", "TRUE"], ["0", "0.0", "false", "False", "FALSE"]
_PARTS = {"train": 0, "valid": 1, "test": 2}
_LISTS = ("category_path", "tags", "image")  # what is asked of items that may be several
UNREADABLE = -(2**63)  # a time that there is, but no moment
_INFERRED = 10_000  # lines of JSON that tell its columns


def scan(path: str | Path, delimiter: str | None = None) -> pl.LazyFrame:
    """A CSV (all columns text), Parquet or JSON-lines file, a folder of them, or a pattern.

    Raises:
        InputError: no such file, or of no such kind.
    """
    files = find_files(path)
    kind = kind_of(files[0])
    try:
        if kind == "csv":
            comma = delimiter or ("\t" if ".tsv" in Path(files[0]).suffixes else ",")
            table = pl.scan_csv(files, infer_schema=False, separator=comma)
        elif kind == "parquet":
            table = pl.scan_parquet(files)
        else:
            found = pl.scan_ndjson(files, infer_schema_length=_INFERRED).collect_schema()
            # One type of all lines: text, also where the first thousand hold numbers.
            text = {n: pl.String for n, t in found.items() if not t.is_nested() and t != pl.Boolean}
            table = pl.scan_ndjson(
                files, infer_schema_length=_INFERRED, schema_overrides=dict(text)
            )
        table.collect_schema()
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"a {kind} file is needed, {unreadable(path, error)}") from None
    return table


def unreadable(path: str | Path, error: Exception) -> str:
    """What is wrong with a table, with the first line that is no JSON where it should be."""
    for file in find_files(path):
        if kind_of(file) == "json":
            with open(file, "rb") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip() and not _is_object(line):
                        return f"{file} cannot be read: line {number} is no JSON object"
    reason = str(error).partition("\n")[0]
    return f"{path} cannot be read: {reason}"


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def find_files(path: str | Path) -> list[str]:
    """The files of a path, in the order of their names."""
    place = Path(path)
    if place.is_dir():
        files = sorted(str(file) for file in place.iterdir() if file.suffix in _KINDS)
    elif place.exists():
        files = [str(place)]
    else:
        files = sorted(glob.glob(str(path)))
    require(files, f"a file of CSV, Parquet or JSON lines is needed, there is none at {path}")
    return files


def kind_of(file: str) -> str:
    """Csv, parquet or json, by the ending."""
    endings = [ending for ending in Path(file).suffixes if ending in _KINDS]
    require(endings, f"files end in {', '.join(_KINDS)}, got {file}")
    return _KINDS[endings[-1]]


def require_columns(table: pl.LazyFrame, wanted: dict[str, str], where: str | Path) -> None:
    """Every wanted column (name -> what for) must be there and hold one value a row."""
    kinds = table.collect_schema()
    for name, role in wanted.items():
        if name not in kinds:
            found = ", ".join(kinds.names())
            hint = "; is the delimiter another?" if len(kinds) == 1 else ""
            raise InputError(f"a column {name} is needed ({role}), {where} has {found}{hint}")
        if kinds[name].is_nested() and role not in _LISTS:
            raise InputError(
                f"one value a row is needed, column {name} ({role}) of {where} holds "
                f"{kinds[name]}: write one column a value (tags of items alone may be lists)"
            )


def columns_of(options: Options) -> dict[str, str]:
    """Column of the log -> what for."""
    log, plan = options.log, options.plan
    wanted = {log.user: "user", log.item: "item", log.time: "time"}
    for text in log.labels:
        name, condition = split_label(text)
        wanted[name if condition is None else condition.column] = "label"
    wanted |= dict.fromkeys(log.category_names, "categorical")
    wanted |= dict.fromkeys(log.numeric, "numeric")
    wanted |= dict.fromkeys(log.row_id, "row_id")
    if plan.history not in ("positive", "all"):
        wanted.setdefault(Condition.parse(plan.history).column, "history")
    if plan.split not in SPLITS:
        wanted.setdefault(plan.split, "split")
    for column, role in ((log.group, "group"), (log.weight, "weight")):
        if column is not None:
            wanted[column] = role
    return wanted


def text_of(column: str, kind: pl.DataType) -> pl.Expr:
    """Any single value as text without white space around it; null where there is none.

    Whole floats are read as the integers that they were, bytes as hexadecimal digits.
    """
    value = pl.col(column)
    if kind.is_nested():
        raise InputError(f"one value a row is needed, column {column} holds {kind}")
    if kind.is_float():
        whole = value.cast(pl.Int64, strict=False)
        value = pl.when(value == whole).then(whole.cast(pl.String)).otherwise(value.cast(pl.String))
    elif kind == pl.Binary:
        value = value.bin.encode("hex")
    text = value.cast(pl.String).str.strip_chars()
    return pl.when(text != "").then(text)


def number_of(column: str, kind: pl.DataType) -> pl.Expr:
    """A float; null and NaN where there is none, null also where it cannot be read."""
    if kind.is_numeric() or kind == pl.Boolean:
        return pl.col(column).cast(pl.Float64)
    return text_of(column, kind).cast(pl.Float64, strict=False)


def compare(condition: Condition, kind: pl.DataType) -> pl.Expr:
    """Whether a condition holds; null where the column has no value."""
    text, number = text_of(condition.column, kind), number_of(condition.column, kind)
    if condition.operator in ("==", "!="):
        numbers = [float(v) for v in condition.values if _is_number(v)]
        same = text.is_in(list(condition.values)) | number.is_in(numbers).fill_null(False)
        return same if condition.operator == "==" else ~same
    (value,) = condition.values
    require(_is_number(value), f"{condition.operator} compares with a number, got {value!r}")
    bound = float(value)
    holds = {
        ">=": number >= bound,
        ">": number > bound,
        "<=": number <= bound,
        "<": number < bound,
    }
    return holds[condition.operator]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def typed(
    kinds: pl.Schema, options: Options, clock: Clock, *, labelled: bool
) -> dict[str, pl.Expr]:
    """Typed column -> how it is made of a raw table that has a `line`.

    Args:
        kinds: of the raw columns.
        labelled: False where labels that are not there are not known.
    """
    log = options.log

    def text(name: str) -> pl.Expr:
        return text_of(name, kinds[name])

    columns = {
        "line": pl.col("line"),
        "user_key": text(log.user),
        "item_key": text(log.item),
        "time": _moment(log, clock, kinds),
    }
    for place, label in enumerate(log.labels or ("",)):
        columns[f"y{place}"] = _label(label, kinds, labelled=labelled)
    for place, name in enumerate(log.category_names):
        columns[f"c{place}"] = text(name)
    for place, name in enumerate(log.numeric):
        number, given = number_of(name, kinds[name]), text(name).is_not_null()
        columns[f"n{place}"] = pl.when(number.is_null() & given).then(inf).otherwise(number)
    return columns | _rarer(kinds, options, labelled=labelled)


def _rarer(kinds: pl.Schema, options: Options, *, labelled: bool) -> dict[str, pl.Expr]:
    """What few logs have, and what new rows may lack."""
    log, plan = options.log, options.plan
    columns: dict[str, pl.Expr] = {}

    def text(name: str) -> pl.Expr:
        return text_of(name, kinds[name])

    if plan.history not in ("positive", "all"):
        condition = Condition.parse(plan.history)
        there = condition.column in kinds
        kept = compare(condition, kinds[condition.column]) if there else pl.lit(False)
        columns["kept"] = kept.fill_null(False)
    if log.group is not None:
        columns["group_key"] = text(log.group).fill_null("")
    if log.weight is not None and (labelled or log.weight in kinds):
        columns["weight"] = number_of(log.weight, kinds[log.weight])
    if log.row_id:
        columns["row_id"] = pl.concat_str(
            [text(n).fill_null("") for n in log.row_id], separator="|"
        )
    if labelled and plan.split not in SPLITS:
        columns["part"] = text(plan.split).replace_strict(_PARTS, default=-2, return_dtype=pl.Int8)
    return columns


def _moment(log: Log, clock: Clock, kinds: pl.Schema) -> pl.Expr:
    time = microseconds(log, clock)
    temporal = kinds[log.time].is_temporal()
    given = (pl.col(log.time) if temporal else text_of(log.time, kinds[log.time])).is_not_null()
    return pl.when(time.is_null() & given).then(UNREADABLE).otherwise(time)


def sink(table: pl.LazyFrame, path: Path) -> None:
    """Write a table in bounded memory."""
    table.sink_parquet(path, compression="lz4")


def _label(label: str, kinds: pl.Schema, *, labelled: bool) -> pl.Expr:
    if not label:
        return pl.lit(1, dtype=pl.Int8)
    name, condition = split_label(label)
    column = name if condition is None else condition.column
    if column not in kinds and not labelled:
        return pl.lit(-1, dtype=pl.Int8)
    if condition is not None:
        return compare(condition, kinds[column]).cast(pl.Int8).fill_null(-1)
    text = text_of(column, kinds[column])
    zero_or_bad = pl.when(text.is_in(_ZEROS)).then(0).otherwise(-2)
    known = pl.when(text.is_in(_ONES)).then(1).otherwise(zero_or_bad)
    return pl.when(text.is_null()).then(-1).otherwise(known).cast(pl.Int8)


def refuse_bad(raw: pl.LazyFrame, made: pl.LazyFrame, options: Options, where: str) -> None:
    """Raise for the first value that could not be read, with its column and row."""
    log, columns = options.log, made.collect_schema()
    bad = {log.time: ("times can be read", pl.col("time") == UNREADABLE)}
    for place, name in enumerate(log.numeric):
        bad[name] = ("numbers are finite, or left out", pl.col(f"n{place}").is_infinite())
    for place, label in enumerate(log.labels):
        name, condition = split_label(label)
        if condition is None:
            bad[name] = ("labels are 0 or 1, or left out", pl.col(f"y{place}") == -2)
    if log.weight is not None and "weight" in columns:
        weight = pl.col("weight").fill_null(-1)
        good = weight.is_finite() & (weight >= 0)
        bad[log.weight] = ("weights are finite, 0 or more", ~good)
    if "part" in columns:
        bad[options.plan.split] = ("a split is train, valid or test", pl.col("part") == -2)
    first = made.select(
        **{f"b{n}": pl.col("line").filter(wrong).min() for n, (_, wrong) in enumerate(bad.values())}
    ).collect(engine="streaming")
    for number, (column, (rule, _)) in enumerate(bad.items()):
        line = first.item(0, f"b{number}")
        if line is not None:
            got = raw.filter(pl.col("line") == line).select(column).collect().item()
            raise InputError(f"{rule}, got {got!r} in {where}, column {column}, row {line}")


def open_log(
    path: str | Path, options: Options, folder: Path, *, labelled: bool
) -> tuple[pl.LazyFrame, Clock]:
    """The typed events of a log, and how its times were read.

    The columns that are asked for are copied to `folder` as parquet first, since a log is looked
    through several times.
    """
    table = scan(path, options.log.delimiter)
    wanted = columns_of(options)
    if not labelled:
        there = table.collect_schema().names()
        optional = ("label", "weight", "split", "history")
        wanted = {n: role for n, role in wanted.items() if role not in optional or n in there}
    require_columns(table, wanted, path)
    raw = folder / "raw.parquet"
    kept = table.select(*wanted).with_row_index("line").with_columns(pl.col("line").cast(pl.Int64))
    try:
        sink(kept, raw)
    except pl.exceptions.PolarsError as error:
        raise InputError(unreadable(path, error)) from None
    table = pl.scan_parquet(raw)
    require(
        table.select(pl.len()).collect().item(), f"at least one event is needed, {path} has none"
    )
    clock = find_clock(table, options.log, str(path))
    made = typed(table.collect_schema(), options, clock, labelled=labelled)
    sink(table.select(**made), folder / "typed.parquet")
    events = pl.scan_parquet(folder / "typed.parquet")
    refuse_bad(table, events, options, str(path))
    raw.unlink()
    return events, clock

"""Times to whole microseconds since 1970 in UTC: recognised or asked for, never guessed.

What is recognised: dates and datetimes of Parquet, ISO 8601 text, and numbers whose size fits
exactly one unit of the years 1990 to 2100.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import NoReturn

import polars as pl

from mmrec.data.prepare.options import UNITS, Log
from mmrec.errors import InputError, require

DAY = 86_400_000_000  # microseconds
_EARLY, _LATE = 631_152_000, 4_102_444_800  # 1990 and 2100, in seconds
_ZONE = r"(Z|z|UTC|[+-]\d{2}(:?\d{2})?)"
_CLOCK = r"[T ]\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)?"
# Matched whole, without captures, which are slow; the parts stand in fixed places.
_ISO = rf"^\d{{4}}-\d{{2}}-\d{{2}}({_CLOCK}(\s?{_ZONE})?)?$"
_ZONED = rf"^.{{16}}.*{_ZONE}$"


@dataclass(frozen=True)
class Clock:
    """How a column of times is read.

    Attributes:
        kind: "number", "iso", "format", "aware", "datetime" or "date".
        unit: of numbers.
        told: what was made of it, for the report.
    """

    kind: str
    unit: str | None = None
    told: str = ""

    @property
    def scale(self) -> int | None:
        """Microseconds of one unit of whole numbers, negative = units of one microsecond."""
        return None if self.unit is None else UNITS[self.unit]


def find_clock(table: pl.LazyFrame, log: Log, where: str) -> Clock:
    """How the column of times is to be read.

    Raises:
        InputError: it fits no rule, or several.
    """
    kind = table.collect_schema()[log.time]
    if kind == pl.Date:
        return Clock("date", told="dates: events of one day do not see each other")
    if kind == pl.Datetime:
        zone = getattr(kind, "time_zone", None)
        if zone:
            return Clock("aware", told=f"datetimes of zone {zone}")
        return Clock("datetime", told=f"datetimes, {_naive(log)}")
    if log.time_format is not None:
        return Clock("format", told=f"text as {log.time_format}, {_naive(log)}")
    text = _text(log.time)
    number = text.cast(pl.Float64, strict=False)
    iso = text.str.contains(_ISO)
    found = table.select(
        rows=text.is_not_null().sum(),
        numbers=number.is_not_null().sum(),
        low=number.min(),
        high=number.max(),
        iso=iso.sum(),
        timed=(iso & (text.str.len_bytes() > 10)).sum(),
        zoned=(iso & text.str.contains(_ZONED)).sum(),
    ).collect(engine="streaming")
    rows, numbers, low, high, dates, timed, zoned = found.row(0)
    require(rows, f"every event needs a time, there is none in {where}, column {log.time}")
    if numbers == rows:
        return _numbers(log, low, high, where)
    if dates < rows:
        _refuse(table, text.is_not_null() & number.is_null() & ~iso, log, where)
    if not timed:
        return Clock("iso", told="dates: events of one day do not see each other")
    some = "" if zoned in (0, rows) else f" {rows - zoned:,} of {rows:,}"
    return Clock("iso", told="ISO 8601" + ("" if zoned == rows else f",{some} {_naive(log)}"))


def _refuse(table: pl.LazyFrame, wrong: pl.Expr, log: Log, where: str) -> NoReturn:
    bad = table.with_row_index("row").filter(wrong)
    shown = bad.select("row", _text(log.time).alias("got")).head(1).collect()
    row, got = shown.row(0) if shown.height else (0, "a mixture of numbers and dates")
    raise InputError(
        "times are numbers, or ISO 8601 like 2024-05-31T10:00:00Z; for others give the time "
        f"format (%d/%m/%Y %H:%M, say), got {got!r} in {where}, column {log.time}, row {row}"
    )


def _naive(log: Log) -> str:
    return f"without a zone read as {log.time_zone or 'UTC'}"


def _numbers(log: Log, low: float, high: float, where: str) -> Clock:
    if log.time_unit is not None:
        return Clock("number", log.time_unit, f"numbers, in {log.time_unit} as asked")
    for unit in ("s", "ms", "us", "ns"):
        scale = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}[unit]
        if _EARLY * scale <= low and high <= _LATE * scale:
            days = [datetime.fromtimestamp(end / scale, timezone.utc).date() for end in (low, high)]
            return Clock(
                "number", unit, f"numbers, by their size in {unit}: {days[0]} to {days[1]}"
            )
    raise InputError(
        f"times that are numbers lie between 1990 and 2100 in s, ms, us or ns, else the time unit "
        f"is asked for, got {low:.15g} to {high:.15g} in {where}, column {log.time}"
    )


def microseconds(log: Log, clock: Clock) -> pl.Expr:
    """(rows,) int64, null where there is no time or none that can be read."""
    column = pl.col(log.time)
    if clock.kind == "aware":
        return column.dt.epoch("us")
    if clock.kind in ("date", "datetime"):
        moment = column.cast(pl.Datetime("us")) if clock.kind == "date" else column
        return _in_utc(moment, log)
    text = _text(log.time)
    if clock.kind == "format":
        assert log.time_format is not None
        moment = text.str.strptime(pl.Datetime("us"), log.time_format, strict=False)
        return _in_utc(moment, log)
    if clock.kind == "number":
        scale = clock.scale
        assert scale is not None
        whole = text.cast(pl.Int64, strict=False)
        if scale < 0:
            return whole.floordiv(-scale)
        return pl.coalesce(
            whole * scale, (text.cast(pl.Float64, strict=False) * scale).cast(pl.Int64)
        )
    return _iso(text, log)


def _iso(text: pl.Expr, log: Log) -> pl.Expr:
    """Of text that `_ISO` matches: day, clock in fixed places, then the zone."""
    text = pl.when(text.str.contains(_ISO)).then(text)
    day = text.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False).cast(pl.Int64) * DAY
    rest = text.str.slice(10)
    sign = rest.str.find("[+-]")
    zone = pl.when(sign.is_not_null()).then(rest.str.slice(sign)).otherwise(pl.lit(""))
    zone = zone.str.replace(":", "", literal=True)
    clock = pl.when(sign.is_not_null()).then(rest.str.slice(0, sign)).otherwise(rest)
    clock = clock.str.strip_chars_end("ZzUTC ")

    def part(of: pl.Expr, place: int, length: int = 2) -> pl.Expr:
        return of.str.slice(place, length).cast(pl.Int64, strict=False).fill_null(0)

    seconds = part(clock, 1) * 3600 + part(clock, 4) * 60 + part(clock, 7)
    fraction = clock.str.slice(10, 6).str.pad_end(6, "0").cast(pl.Int64, strict=False)
    local = day + seconds * 1_000_000 + fraction
    shift = (part(zone, 1) * 3600 + part(zone, 3) * 60) * 1_000_000
    moment = local - pl.when(zone.str.starts_with("-")).then(-shift).otherwise(shift)
    if log.time_zone is None:
        return moment
    here = _in_utc(local.cast(pl.Datetime("us")), log)
    return pl.when(text.str.contains(_ZONED)).then(moment).otherwise(here)


def _in_utc(moment: pl.Expr, log: Log) -> pl.Expr:
    """Of datetimes; those without a zone are of the one asked for."""
    if log.time_zone is not None:
        moment = moment.dt.replace_time_zone(
            log.time_zone, ambiguous="earliest", non_existent="null"
        ).dt.convert_time_zone("UTC")
    return moment.dt.epoch("us")


def _text(name: str) -> pl.Expr:
    text = pl.col(name).cast(pl.String).str.strip_chars()
    return pl.when(text != "").then(text)

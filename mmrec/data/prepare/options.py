"""What is asked of a preparation: columns of the log, columns of the items, and how rows are made.

All plain data, kept in the result's `prepared.json`. Next: `read.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from mmrec.errors import finite, not_negative, positive, probability, require

UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": -1_000, "days": 86_400_000_000}
SPLITS = ("time", "user-time", "user")
IMAGES = ("hardlink", "symlink", "copy", "none")
UNKNOWN_ITEMS = ("keep", "drop", "refuse")
NEGATIVES = ("popularity", "uniform")
ROWS = ":rows"  # behind what a statistic is of: no shares of positives
CLICKED = "clicked"  # the label of logs that hold clicks only
_CONDITION = re.compile(r"([^=<>!]+?)\s*(>=|<=|==|!=|>|<)\s*([^=<>!\s].*)")


@dataclass(frozen=True)
class Condition:
    """A column compared with a value, or with one of several.

    >>> Condition.parse("kind==cart|buy")
    Condition(column='kind', operator='==', values=('cart', 'buy'))
    """

    column: str
    operator: str
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Of `column>=4`, or `column==this|that`."""
        found = _CONDITION.fullmatch(text.strip())
        require(found, f"a condition reads COLUMN>=VALUE (or ==, !=, >, <, <=), got {text!r}")
        assert found is not None
        column, operator, value = found.groups()
        values = tuple(part.strip() for part in value.split("|"))
        require(
            len(values) == 1 or operator in ("==", "!="),
            f"several values are compared by == or !=, got {text!r}",
        )
        return cls(column.strip(), operator, values)


def split_label(text: str) -> tuple[str, Condition | None]:
    """The name of a label, and its condition where it is not a column of 0 and 1.

    >>> split_label("click"), split_label("liked=rating>=4")[0], split_label("rating>=4")[0]
    (('click', None), 'liked', 'rating')
    """
    if not re.search(r"[=<>!]", text):
        return text, None
    named = re.fullmatch(r"([^=<>!]+)=(?!=)(.+)", text)
    if named is None:
        condition = Condition.parse(text)
        return condition.column, condition
    return named[1].strip(), Condition.parse(named[2])


@dataclass(frozen=True)
class Log:
    """Columns of the events, in the person's own names.

    Attributes:
        user, item, time: who met what when.
        labels: columns of 0 and 1 (null = not known), or conditions: `bought=kind==purchase`. None
            at all = the log holds clicks only.
        categorical: names; `seller:hash=4096` and `country:min=5` as in `Categorical`.
        numeric: numbers.
        group, weight: of the row, see `Clicks`.
        row_id: columns that name a row together, joined by "|"; none = the row's number in the
            file, from 0.
        time_unit: of times that are numbers, one of `UNITS`; None = told by their size.
        time_format: of times that are text, as strptime reads it; None = ISO 8601.
        time_zone: of times that name none, "Europe/Berlin" say; None = UTC.
        delimiter: of CSV; None = a comma, a tab in .tsv.
    """

    user: str
    item: str
    time: str
    labels: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    group: str | None = None
    weight: str | None = None
    row_id: tuple[str, ...] = ()
    time_unit: str | None = None
    time_format: str | None = None
    time_zone: str | None = None
    delimiter: str | None = None

    def __post_init__(self) -> None:
        require(
            self.time_unit is None or self.time_unit in UNITS,
            f"time_unit is one of {', '.join(UNITS)}, got {self.time_unit}",
        )
        for text in self.labels:
            split_label(text)
        for text in self.categorical:
            split_category(text)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Of the labels that come out."""
        return tuple(split_label(text)[0] for text in self.labels) or (CLICKED,)

    @property
    def category_names(self) -> tuple[str, ...]:
        """Of the categorical columns."""
        return tuple(split_category(text)[0] for text in self.categorical)


@dataclass(frozen=True)
class Catalogue:
    """Columns of the items, in the person's own names.

    Attributes:
        id: the item's name, as in the log; None = the log's column name.
        title, description: words of the caption.
        category_path: levels from wide to narrow; each path so far is a tag.
        tags: words, each a tag.
        categorical, numeric: of the item.
        image: a column of file names or of bytes, or a template of columns: `{sku}.jpg`.
        image_folder: where pictures lie; None = the folder of the items' file.
        since: when the item could first be shown; asked for by negatives alone.
        separator: between tags, levels and pictures that stand in one text.
    """

    id: str | None = None
    title: str | None = None
    description: str | None = None
    category_path: str | None = None
    tags: str | None = None
    categorical: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    image: str | None = None
    image_folder: str | None = None
    since: str | None = None
    separator: str = "|"

    def __post_init__(self) -> None:
        require(self.separator, "a separator is at least one character, got none")
        for text in self.categorical:
            split_category(text)

    @property
    def category_names(self) -> tuple[str, ...]:
        """Of the categorical columns."""
        return tuple(split_category(text)[0] for text in self.categorical)


@dataclass(frozen=True)
class Plan:
    """How rows are made.

    Attributes:
        history: which earlier events stand in a history: "positive" by the first label, "all", or
            a condition (`kind!=view`).
        history_length: the newest so many.
        history_features: of each: "label", "days_ago", and categorical or numeric columns of the
            log.
        split: one of `SPLITS`, or a column of train, valid and test.
        shares: of train, valid and test.
        cold: share of items that train does not know.
        statistics: "item", "user" or categorical columns, whose rows and share of positives so far
            are told; "user:rows" tells rows alone.
        windows: besides so far, in the last so many days.
        last: share of positives among the user's last so many events.
        levels: the item's rows and positives among train's rows so far, in ten steps.
        negatives: drawn for each positive of a log that holds clicks only.
        negatives_by: "popularity" so far, or "uniform".
        unknown_items: of the log, which the items' file lacks: one of `UNKNOWN_ITEMS`.
        images: how pictures get there, one of `IMAGES`.
        seed: of users and items held out, and of negatives.
        events_in_memory: about so many at a time.
        names: what columns are called that are made here, by the name they have without.
    """

    history: str = "positive"
    history_length: int = 50
    history_features: tuple[str, ...] = ("days_ago",)
    split: str = "time"
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1)
    cold: float = 0.0
    statistics: tuple[str, ...] = ()
    windows: tuple[int, ...] = ()
    last: tuple[int, ...] = ()
    levels: bool = False
    negatives: int = 0
    negatives_by: str = "popularity"
    unknown_items: str = "keep"
    images: str = "hardlink"
    seed: int = 0
    events_in_memory: int = 1_000_000
    names: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        positive(history_length=self.history_length, events_in_memory=self.events_in_memory)
        not_negative(negatives=self.negatives, seed=self.seed)
        probability(cold=self.cold)
        finite(train=self.shares[0], valid=self.shares[1], test=self.shares[2])
        require(
            abs(sum(self.shares) - 1) < 1e-6 and min(self.shares[:2]) > 0,
            f"shares of train, valid and test add up to 1, got {self.shares}",
        )
        for name, allowed in (
            ("unknown_items", UNKNOWN_ITEMS),
            ("images", IMAGES),
            ("negatives_by", NEGATIVES),
        ):
            got = getattr(self, name)
            require(got in allowed, f"{name} is one of {', '.join(allowed)}, got {got}")
        for days in (*self.windows, *self.last):
            positive(**{"each of windows and last": days})
        require(
            not self.windows or self.statistics,
            f"windows are of statistics, and none is asked for, got windows {self.windows}",
        )
        if self.history not in ("positive", "all"):
            Condition.parse(self.history)

    def named(self, column: str) -> str:
        """What a column made here is called."""
        return self.names.get(column, column)


@dataclass(frozen=True)
class Options:
    """Everything asked of `prepare`.

    Raises:
        InputError: parts that do not fit each other.
    """

    log: Log
    items: Catalogue = field(default_factory=Catalogue)
    plan: Plan = field(default_factory=Plan)

    def __post_init__(self) -> None:
        log, plan = self.log, self.plan
        require(
            log.labels or plan.negatives,
            "a log without a label holds clicks only: give a label, or ask for negatives",
        )
        require(
            not (log.labels and plan.negatives),
            f"negatives are drawn where a log holds clicks only, this one has the label "
            f"{', '.join(log.label_names)}",
        )
        known = ("item", "user", *log.category_names)
        for name in plan.statistics:
            good = name.removesuffix(ROWS) in known
            require(good, f"statistics are of {', '.join(known)}, got {name}")
        known = ("label", "days_ago", *log.category_names, *log.numeric)
        for name in plan.history_features:
            require(name in known, f"history features are of {', '.join(known)}, got {name}")

    @property
    def item_column(self) -> str:
        """Of the items' file."""
        return self.items.id or self.log.item


def split_category(text: str) -> tuple[str, dict[str, int]]:
    """The name of a categorical column, and what is asked of it.

    >>> split_category("seller:hash=4096")
    ('seller', {'hash_size': 4096})
    """
    name, *settings = text.split(":")
    asked = {}
    for setting in settings:
        found = re.fullmatch(r"(hash|min)=(\d+)", setting)
        require(found, f"a categorical column is NAME, NAME:min=N or NAME:hash=N, got {text!r}")
        assert found is not None
        asked[{"hash": "hash_size", "min": "min_count"}[found[1]]] = int(found[2])
    return name, asked

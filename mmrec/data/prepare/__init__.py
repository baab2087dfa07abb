"""From raw logs to the layout: `python -m mmrec.data.prepare EVENTS ITEMS DEST --user … --item …`.

In the order of the data: `options.py` (what is asked), `read.py` and `times.py` (raw files),
`ids.py`, `pipeline.py` (the steps), `buckets.py` (more rows than memory holds), `split.py`,
`negatives.py`, `statistics.py`, `past.py` (strictly earlier), `rows.py`, `items.py`, `report.py`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmrec.data.clicks import ClickData
from mmrec.data.items import check_item_info, check_titles
from mmrec.data.prepare.options import Catalogue, Condition, Log, Options, Plan
from mmrec.data.rows import ClickRows
from mmrec.errors import InputError, require
from mmrec.io.files import sync_directory, write_json
from mmrec.io.hashing import sha256_of
from mmrec.io.identity import as_json
from mmrec.io.plain import from_plain, to_plain
from mmrec.schema import FILE, Schema

__all__ = [
    "Catalogue",
    "Condition",
    "Log",
    "Options",
    "Plan",
    "Prepared",
    "prepare",
    "prepare_grown",
    "prepare_like",
]

MARK = "prepared.json"  # tells an earlier output of this from somebody's directory
_TABLES = ("log.parquet", "catalogue.parquet")


@dataclass(frozen=True)
class Prepared:
    """What a preparation made.

    Attributes:
        root: the folder.
        report: what it met, in sentences.
    """

    root: Path
    report: list[str]


def prepare(
    events: str | Path,
    items: str | Path | None,
    dest: str | Path,
    options: Options,
    *,
    finish: Callable[[Path], None] | None = None,
) -> Prepared:
    """Make a data set with its `schema.json` of a log and a table of items, in the folder `dest`.

    The same call again does nothing; one that was stopped goes on with the steps that stand.

    Args:
        events: CSV, Parquet or JSON lines: a file, a folder of files, or a pattern.
        items: likewise; None where nothing is known of items but their names.
        dest: new, empty, or an earlier output, which is replaced as a whole.
        options: what is asked.
        finish: called with the folder when all is there but not yet checked and moved.

    Raises:
        InputError: a file, column or value that cannot be used, or a `dest` in use.
    """
    return _Task(events, items, Path(dest).resolve(), options, finish=finish).run()


def prepare_like(
    data: str | Path, events: str | Path, dest: str | Path, items: str | Path | None = None
) -> Prepared:
    """Make rows to be scored, `rows.parquet`, as those of `data` were made, and their item table.

    Their past is the log of `data`, and what is labelled among the new events. Numbers of users,
    items and values stay, new ones come behind.

    Args:
        data: an output of `prepare`.
        events: new ones, in the same columns; labels, weights and splits may be left out.
        dest: as for `prepare`, but no data set to train on, `data` least of all.
        items: more items, or what is now known of old ones, in the same columns.
    """
    former, options = _former(data)
    target = Path(dest).resolve()
    require(
        not (target == former or (target / "train.parquet").exists()),
        f"rows to score need a folder of their own, {dest} holds a data set: give another",
    )
    return _Task(events, items, target, options, former).run()


def prepare_grown(
    data: str | Path, events: str | Path, dest: str | Path, items: str | Path | None = None
) -> Prepared:
    """Make a data set of a log that has grown since `data` was made of it, by the same options.

    Numbers of users, items, tags and values are those of `data`, new ones come behind: so a ranker
    of `data` knows them again, and can be trained on. (By `prepare` they would be numbered anew.)

    Args:
        data: an output of `prepare` or of this.
        events: the whole log, old and new events.
        dest: as for `prepare`, not `data` itself.
        items: the table of items as it is now; what it lacks, `data` knows.
            None = as `data` has it.
    """
    former, options = _former(data)
    require(Path(dest).resolve() != former, f"the grown data set needs another folder than {data}")
    return _Task(events, items, Path(dest).resolve(), options, grown_from=former).run()


def _former(data: str | Path) -> tuple[Path, Options]:
    """An earlier output, and what it was made by."""
    former = Path(data).resolve()
    mark = _read_mark(former)
    require(
        mark and (former / _TABLES[0]).exists(), f"an output of prepare is needed, {data} is none"
    )
    return former, from_plain(Options, mark["made_from"]["options"])


@dataclass(frozen=True)
class _Task:
    """One call: steps are made in a folder beside `dest`, and the whole is moved there."""

    events: str | Path
    items: str | Path | None
    dest: Path
    options: Options
    former: Path | None = None
    finish: Callable[[Path], None] | None = None
    grown_from: Path | None = None

    def run(self) -> Prepared:
        pipeline = self._pipeline()
        self._schema()  # columns with two roles are refused before any work
        _finish_move(self.dest)
        identity = self._identity()
        mark = _read_mark(self.dest)
        if mark.get("made_from") == identity:
            shutil.rmtree(pipeline.work, ignore_errors=True)  # of a kill right after the move
            return Prepared(self.dest, mark["report"])
        _check_dest(self.dest)
        self._check_image_folder()
        work = pipeline.work
        if not (work / MARK).exists() or json.loads((work / MARK).read_text()) != identity:
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            write_json(work / MARK, identity)
        try:
            return self._assemble(work, identity, pipeline.run())
        except InputError:
            shutil.rmtree(work, ignore_errors=True)  # other steps cannot help
            raise

    def _schema(self) -> Schema:
        """By the options; modalities, which a person adds by hand, as the data set before has."""
        from mmrec.data.prepare.rows import schema_of

        schema, before = schema_of(self.options), self.former or self.grown_from
        if before is None:
            return schema
        modalities = Schema.read(before / FILE).items.modalities
        return replace(schema, items=replace(schema.items, modalities=modalities))

    def _check_image_folder(self) -> None:
        """Of a first preparation: later ones may come where its pictures have gone."""
        folder = self.options.items.image_folder
        if folder is not None and self.former is None and self.grown_from is None:
            require(Path(folder).is_dir(), f"the image folder must be there, there is no {folder}")

    def _pipeline(self) -> Any:
        try:
            from mmrec.data.prepare.pipeline import Pipeline
        except ImportError:
            raise InputError("preparing data needs polars: pip install 'mmrec[prepare]'") from None
        work = self.dest.with_name(f".{self.dest.name}.preparing")
        return Pipeline(self.events, self.items, self.options, work, self.former, self.grown_from)

    def _identity(self) -> dict[str, Any]:
        """What the output is made from: bytes of tables, and options."""
        from mmrec.data.prepare.read import find_files

        files = {"events": find_files(self.events)}
        files["items"] = [] if self.items is None else find_files(self.items)
        for role in ("former", "grown_from"):
            before = getattr(self, role)
            files[role] = [] if before is None else [str(before / MARK), str(before / FILE)]
        told = {role: [sha256_of(file) for file in some] for role, some in files.items()}
        return {"files": told, "options": as_json(to_plain(self.options))}

    def _assemble(self, work: Path, identity: dict[str, Any], facts: dict[str, Any]) -> Prepared:
        """Put the steps' files together, check them as any data set, and move them to `dest`."""
        from mmrec.data.prepare.report import sentences

        made = work / "made"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        for name in ("rows", "items"):
            for path in (work / name).iterdir():
                if path.name != "facts.json":
                    _link(path, made / path.name)
        for name in ("maps", *_TABLES):
            _link(work / "log" / name, made / name)
        write_json(made / FILE, self._schema().to_dict())
        report = sentences(facts, self.options)
        if self.finish is not None:
            self.finish(made)
        mark = {"made_by": "python -m mmrec.data.prepare", "made_from": identity, "report": report}
        mark["written"] = sorted([MARK, *(path.name for path in made.iterdir())])
        write_json(made / MARK, mark)
        self._check_row_ids(made)
        self._check(made)
        _swap(made, self.dest)
        shutil.rmtree(work, ignore_errors=True)
        return Prepared(self.dest, report)

    def _check_row_ids(self, made: Path) -> None:
        """Said of the events: the files that are checked next are not the person's."""
        import polars as pl

        from mmrec.data.prepare.rows import row_id_of

        own, path = self.options.log.row_id, made / ("rows" if self.former else "test")
        if not own or not path.with_suffix(".parquet").exists():
            return
        ids = pl.scan_parquet(path.with_suffix(".parquet")).select(key=row_id_of(self.options))
        again = ids.group_by("key").len().filter(pl.col("len") > 1).select(pl.col("key").min())
        first = again.collect(engine="streaming").item()
        require(
            first is None,
            f"a row id names one event, {first!r} names several of {self.events}, column "
            f"{', '.join(own)}: give --row-id columns that together name one, or none",
        )

    def _check(self, made: Path) -> None:
        """As it will be opened; what is wrong is said of `dest`."""
        try:
            self._open(made)
        except InputError as error:
            raise InputError(str(error).replace(str(made), str(self.dest))) from None

    def _open(self, made: Path) -> None:
        if self.former is None:
            for name in ("train", "valid", "test"):
                require(
                    (made / f"{name}.parquet").exists(),
                    f"each of train, valid and test needs rows, {name} gets none of {self.events} "
                    f"by a split {self.options.plan.split} of {self.options.plan.shares}",
                )
            ClickData.open(made)
            return
        schema = Schema.read(made / FILE)
        num_items = check_item_info(made / "item_info.parquet", schema.items)
        if (made / "item_feature.parquet").exists():
            check_titles(made / "item_feature.parquet", schema.items, num_items)
        ClickRows.open(made / "rows.parquet", schema, num_items=num_items)


def _link(path: Path, target: Path) -> None:
    """The file, or every file of the folder, without copying where the file system allows it."""
    if path.is_dir():
        shutil.copytree(path, target, symlinks=True, copy_function=_link_file)
    else:
        _link_file(str(path), str(target))


def _link_file(path: str, target: str) -> str:
    try:
        os.link(path, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(path, target)
    return target


def _read_mark(folder: Path) -> dict[str, Any]:
    """What an earlier output says of itself; empty where there is none."""
    try:
        mark: dict[str, Any] = json.loads((folder / MARK).read_text())
    except (OSError, ValueError):
        return {}
    return mark if isinstance(mark, dict) else {}


def _check_dest(dest: Path) -> None:
    require(dest.is_dir() or not dest.exists(), f"a folder is needed to write to, {dest} is a file")
    held = sorted(entry.name for entry in dest.iterdir()) if dest.is_dir() else []
    written = _read_mark(dest).get("written", [])
    foreign = [name for name in held if name not in written]
    if foreign:
        raise InputError(
            f"a new or empty folder or an earlier output of this command is needed, {dest} holds "
            f"{foreign[0]}"
        )


def _swap(made: Path, dest: Path) -> None:
    old = dest.with_name(f".{dest.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if dest.exists():
        dest.rename(old)
    made.rename(dest)
    sync_directory(dest.parent)
    shutil.rmtree(old, ignore_errors=True)


def _finish_move(dest: Path) -> None:
    """After a kill between the renames of `_swap`: what was there comes back, or goes."""
    old = dest.with_name(f".{dest.name}.old")
    if old.exists() and not dest.exists():
        old.rename(dest)
    shutil.rmtree(old, ignore_errors=True)

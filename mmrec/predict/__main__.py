"""`python -m mmrec.predict`: a trained ranker's prediction file, from its checkpoint alone."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch

from mmrec.cli import import_modules, named, offer_modules, program
from mmrec.cli import run as run_command
from mmrec.data.clicks import ClickData
from mmrec.data.items import ItemTable
from mmrec.data.rows import ClickRows, header
from mmrec.devices import resolve_device
from mmrec.errors import InputError, require
from mmrec.predict import (
    TrainedRun,
    check_header,
    predict,
    require_submission,
    write_submission,
)
from mmrec.train.distributed import process_group
from mmrec.train.step.precision import resolve_precision

SPLIT = "test"


def main(arguments: list[str] | None = None) -> None:
    """Predict one split of a data set and write the submission."""
    given = _parse(arguments)
    import_modules(given.modules)
    with process_group(given.device) as world:
        resolve_precision(given.precision, resolve_device(given.device))  # before any work
        run = TrainedRun.open(given.run)
        rows, items = (_of_a_file if given.data is None else _of_a_data_set)(run, given)
        if world.is_first:
            _tell_bare(items)
        ranker = run.ranker(items, rows)
        key, columns = header(rows.schema)
        columns = given.column or columns
        check_header(key, columns, len(ranker.tasks))
        numbers, probability = predict(
            ranker,
            rows.loader(
                batch_size=given.batch_size,
                rank=world.rank,
                world_size=world.size,
                workers=given.workers,
            ),
            device=given.device,
            precision=given.precision,
            num_rows=rows.num_rows,
            progress=world.is_first,
        )
        if world.is_first:
            written = write_submission(
                numbers if rows.labelled else rows.row_ids(),
                probability,
                given.out,
                id_column=key,
                columns=columns,
            )
            print(*written, sep="\n")


def _of_a_data_set(run: TrainedRun, given: argparse.Namespace) -> tuple[ClickRows, ItemTable]:
    """One split of `--data`, and its items."""
    data = ClickData.open(given.data).with_modalities(_columns(run, given))
    features = given.features or run.features_of(data.root) or data.features
    items = ItemTable.read(data.item_info, data.schema.items, features)
    return data.of(given.split or SPLIT), items


def _of_a_file(run: TrainedRun, given: argparse.Namespace) -> tuple[ClickRows, ItemTable]:
    """The rows of `--rows` and the items of `--items`, in the columns of the training."""
    if run.schema is None:
        raise InputError(f"{run.checkpoint.path} holds no schema that tells columns: give --data")
    items = replace(run.schema.items, modalities=_columns(run, given))
    schema = replace(run.schema, items=items)
    table = ItemTable.read(given.items, items, given.features or run.features_of(None))
    return ClickRows.open(given.rows, schema, num_items=table.num_items), table


def _tell_bare(items: ItemTable) -> None:
    """Say how many items are scored without content, where others have some."""
    if items.has_content:
        present = torch.stack(list(items.present.values())).any(0)
        bare = int((~present[1:]).sum())
        if bare:
            told = f"{bare:,} of {items.num_items - 1:,} items have no vector of any modality"
            print(f"{told} and are scored without content", file=sys.stderr)


def _columns(run: TrainedRun, given: argparse.Namespace) -> dict[str, str]:
    """The ranker's modalities and their columns: as given, else as it was trained."""
    trained = {} if run.schema is None else run.schema.items.modalities
    return {**trained, **given.vectors}


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=program("mmrec.predict"),
        description="Write prediction.csv and its zip with a trained ranker.",
    )
    parser.add_argument(
        "run", type=Path, help="`out` of the training or of the example, or one checkpoint's JSON"
    )
    offer_modules(parser)
    parser.add_argument("--data", type=Path, help="a data set's folder")
    parser.add_argument("--rows", type=Path, help="instead: parquet of the rows to score")
    parser.add_argument("--items", type=Path, help="with --rows: parquet of the items")
    parser.add_argument("--features", type=Path, help="feature parquet (that of the training)")
    parser.add_argument(
        "--vectors",
        action="append",
        default=[],
        metavar="MODALITY=COLUMN",
        help="where its vectors of a modality stand (as in the training)",
    )
    parser.add_argument("--out", type=Path, required=True, help="where to write")
    parser.add_argument("--split", choices=("train", "valid", "test"), help=f"of --data ({SPLIT})")
    parser.add_argument(
        "--column",
        nargs="+",
        help="prediction columns, one a label (the names of the labels; the challenge's)",
    )
    parser.add_argument("--batch-size", type=int, default=2048, help="over all ranks (2048)")
    parser.add_argument("--workers", type=int, default=0, help="processes that read (0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    parser.add_argument(
        "--precision", default="auto", choices=("auto", "float32", "bfloat16", "float16")
    )
    given = parser.parse_args(arguments)
    given.vectors = named(given.vectors)
    require(
        (given.data is None) == (given.rows is not None and given.items is not None)
        and (given.rows is None) == (given.items is None),
        "what is scored is either --data, or --rows with --items",
    )
    require(
        given.rows is None or given.split is None,
        f"--split names a split of --data, and --rows are scored whole, got --split {given.split}",
    )
    require_submission(given.out)
    return given


if __name__ == "__main__":
    run_command(main)

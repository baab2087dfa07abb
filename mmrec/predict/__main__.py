"""`python -m mmrec.predict`: a trained ranker's prediction file, from its checkpoint alone."""

import argparse
from pathlib import Path

from mmrec.cli import run
from mmrec.data.clicks import ClickData
from mmrec.data.items import ItemTable
from mmrec.predict import load_ranker, predict, write_submission
from mmrec.train.distributed import process_group


def main() -> None:
    """Predict one split of a data set and write the submission."""
    given = _parse()
    with process_group(given.device) as world:
        data = ClickData.open(given.data)
        clicks, features = data.schema.clicks, given.features or data.features
        items = ItemTable.read(data.item_info, data.schema.items, features)
        rows, probability = predict(
            load_ranker(given.run, items, data),
            data.loader(
                given.split,
                batch_size=given.batch_size,
                rank=world.rank,
                world_size=world.size,
                workers=given.workers,
            ),
            device=given.device,
            precision=given.precision,
            num_rows=data.rows[given.split],
            progress=world.is_first,
        )
        if world.is_first:
            keyed = given.split == "test" and clicks.row_id is not None
            written = write_submission(
                data.row_ids(given.split) if keyed else rows,
                probability,
                given.out,
                id_column=data.header[0],
                columns=given.column or data.header[1],
            )
            print(*written, sep="\n")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mmrec.predict",
        description="Write prediction.csv and its zip with a trained ranker.",
    )
    parser.add_argument("run", type=Path, help="`out` of the training, or one checkpoint's JSON")
    parser.add_argument("--data", type=Path, required=True, help="the data set's folder")
    parser.add_argument("--features", type=Path, help="feature parquet (the data set's own)")
    parser.add_argument("--out", type=Path, required=True, help="where to write")
    parser.add_argument("--split", default="test", choices=("train", "valid", "test"))
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
    return parser.parse_args()


if __name__ == "__main__":
    run(main)

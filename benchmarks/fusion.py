"""How should image and text be combined? Every fusion on one data set, with intervals.

    python -m mmrec.datasets.movielens SOURCE DATA     # or any data set with features.parquet and
    python benchmarks/fusion.py DATA               # test_labels.parquet, in the MicroLens layout

    python benchmarks/fusion.py --synthetic pairs      # users like combinations of image and text
    python benchmarks/fusion.py --synthetic suits      # some images and texts suit each other
    python benchmarks/fusion.py --synthetic separate   # image and text add up
    python benchmarks/fusion.py --synthetic overlapping  # and each faintly tells the other, too

Each variant is trained with the same recipe, epochs and learning rates: for each rate once with
seed 0, then with the rate of the best valid AUC for all other seeds. The best epoch is that of the
best valid AUC too; tables and plots are about the test rows, which nothing was chosen by.
The same command resumes where it was stopped. Writes NAME.json and NAME.md under
benchmarks/results and NAME_*.png under docs/img.
"""

from __future__ import annotations

import argparse

from cells import read_data
from fusion_plots import plot_all
from fusion_report import cost_of, summarise, to_markdown
from machine import write_result
from sweep import Change, arguments, begin, spent, train_all

from mmrec.cli import run
from mmrec.errors import InputError
from mmrec.models import Recipe, small
from mmrec.nn.fusion import FUSIONS

BASELINE = "concat"
UNTRAINED = ("pca", "pca_each")

TRANSFORMER = {
    "name": "transformer",
    "layers": 1,
    "heads": 2,
    "ff_dim": 64,
    "dropout": 0.2,
    "last": 0,
    "width": 64,
}

OPTIONS: dict[str, Change] = {
    "tiers": {"history.tiers": 8},
    "align": {"items.alignment": 0.1},
    "pretrain": {"pretrain": True},
    "modality dropout": {"items.modality_dropout": 0.3},
    "no id dropout": {"items.id_dropout": 0.0},
    "by logloss": {"training.monitor": "logloss"},
}
"""Name -> what it changes; goes with any fusion."""

CONTROLS: dict[str, Change] = {
    "no content": {"items.fusion": None, "items.content_width": None},
    "no affinity": {"history.affinity": 0},
    "no tags": {"items.tag_dim": 0, "history.similar_tags": False},
    "no tags, no content": {
        "items.tag_dim": 0,
        "history.similar_tags": False,
        "items.fusion": None,
        "items.content_width": None,
    },
    "content only": {
        "items.id_dim": 0,
        "items.tag_dim": 0,
        "context.wide": False,
        "context.user_dim": 0,
    },
    "target only": {"history.encoder": "none", "history.affinity": 0, "history.recency": 0},
    "another's history": {"history": "another"},
    "DIN attention": {"history.encoder": {"name": "din", "hidden": (64,)}},
    "ReLU attention": {"history.encoder": {"name": "relu", "heads": 2, "width": 64}},
    "Transformer": {"history.encoder": TRANSFORMER},
}
"""Name -> what it changes of the baseline. The baseline itself pools the history by its mean."""


def base_recipe(given: argparse.Namespace) -> Recipe:
    """What all cells share: the small recipe, with its affinity and its recency."""
    return small().changed(
        {
            "items.fusion": BASELINE,
            "items.content_dim": given.width,
            "history.newest": given.newest,
        }
    )


def plan(given: argparse.Namespace) -> dict[str, Change]:
    """Name in the table -> what it changes of the base."""
    rows: dict[str, Change] = {BASELINE: {}}
    for option in given.options:
        if option not in ("plain", *OPTIONS):
            raise InputError(f"option must be one of plain, {', '.join(OPTIONS)}, got {option!r}")
    for variant in given.variants:
        if variant not in FUSIONS:
            raise InputError(f"variant must be one of {', '.join(FUSIONS)}, got {variant!r}")
        for option in given.options:
            change = dict(OPTIONS.get(option, {}))
            if option != "plain" and given.options_of and variant not in given.options_of:
                continue
            if option == "pretrain" and variant in UNTRAINED:
                continue
            change["items.fusion"] = variant
            rows[variant if option == "plain" else f"{variant}, {option}"] = change
    for control in given.controls:
        if control not in CONTROLS:
            raise InputError(f"control must be one of {', '.join(CONTROLS)}, got {control!r}")
        rows[control] = dict(CONTROLS[control])
    return rows


def main() -> None:
    """Train, summarise, write, draw."""
    given = parse()
    root = begin(given)
    data = read_data(root)
    base = base_recipe(given)
    rows = plan(given)
    results = train_all(rows, base, root, given)
    summary = summarise(results, data, baseline=BASELINE, jobs=given.jobs)
    costs = cost_of({name: found[0].cell.recipe for name, found in results.items()}, data)
    for row in summary["rows"]:
        row["us_per_item"] = costs[row["name"]]
    summary |= spent(given.out)
    path = write_result(given.name, summary, folder=given.results)
    path.with_suffix(".md").write_text(to_markdown(summary, path))
    plot_all(summary, given.images, given.name)
    print(to_markdown(summary, path))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = arguments(__doc__ or "", name="fusion")
    what = parser.add_argument_group("what is compared")
    usual = [name for name in FUSIONS if name != "precomputed"]
    what.add_argument("--variants", nargs="*", default=usual, help="fusions (all but precomputed)")
    what.add_argument(
        "--options", nargs="*", default=["plain", *OPTIONS], help=f"plain, {', '.join(OPTIONS)}"
    )
    what.add_argument(
        "--options-of", nargs="*", default=[BASELINE], help="fusions that get options (concat)"
    )
    what.add_argument("--controls", nargs="*", default=list(CONTROLS), help=", ".join(CONTROLS))
    what.add_argument("--width", type=int, default=64, help="of the fused vector (64)")
    what.add_argument(
        "--newest", type=int, default=10, help="items of a history that are read (10)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    run(main)

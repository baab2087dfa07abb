"""`mmrec train --data DATA --out RUN`: the ranker of a recipe, trained; also under torchrun.

In: a data set in the layout. Out: `RUN/ranker` (checkpoints, log), which `mmrec predict`, `serve`
and `export` open, and `RUN/metrics.json`. The same command resumes where it was stopped.
"""

import shlex
from argparse import ArgumentParser, Namespace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from mmrec.analysis import plot_run, summarise
from mmrec.cli import import_modules, named, offer_modules, program, two_columns
from mmrec.commands.opening import open_data, recipe_of
from mmrec.data.counts import read_pairs
from mmrec.data.items import ItemTable
from mmrec.io.files import write_json
from mmrec.io.plain import to_plain
from mmrec.io.provenance import provenance
from mmrec.models import Inputs, Ranker, Recipe, build_ranker, describe
from mmrec.models.pretrain import made_by, pretrained_vectors
from mmrec.predict import continue_ranker, write_sources
from mmrec.train import BatchLoader, Scores, TensorBoard, World, fit, from_first, process_group
from mmrec.train import score as score_rows
from mmrec.train.batch_size import settled_batch_size
from mmrec.train.distributed import first_talks

PATIENCE = timedelta(days=7)  # ranks wait for the first; torchrun ends all when one dies
WRITTEN = ("packed", "pretrained", "ranker", "batch_size.json", "metrics.json", "calibration.png")


def main(arguments: list[str] | None = None) -> None:
    """Every rank trains, the first one talks."""
    given = _parse(arguments)
    with process_group(given.device, timeout=PATIENCE) as world, first_talks(world):
        _Training(given, world).run()


class _Training:
    def __init__(self, given: Namespace, world: World) -> None:
        self.given, self.world, self.out = given, world, given.out

    def run(self) -> None:
        """Open, pretrain where the recipe says so, train, and report."""
        given = self.given
        self.data, self.counts = from_first(lambda: open_data(given.data, given, WRITTEN))
        data, recipe = self.data, given.recipe
        self.features: Path | None = given.features or data.features
        self.items = ItemTable.read(data.item_info, data.schema.items, self.features)
        if not self.items.has_content:
            print("no vectors of content: ids and columns alone (mmrec embed makes some)")
            recipe = recipe.without_content()
        if recipe.two_stage:
            vectors, place = from_first(lambda: self.pretrain(recipe)), self.out / "pretrained"
            self.items = self.items.with_vectors(vectors, made_by(place))
            recipe = recipe.with_ready_vectors()
        pairs = read_pairs(data.valid, data.schema.clicks)
        users = from_first(lambda: self.counts.users_shared_with(pairs))
        self.inputs = Inputs.of(data, self.counts, self.items, known_users=users)
        self.recipe = recipe.changed({"batch_size": from_first(lambda: self.batch_size(recipe))})
        ranker, scores = self.train()
        from_first(lambda: self.report(ranker, scores))

    def pretrain(self, recipe: Recipe) -> torch.Tensor:
        """Train the fusion alone, from what train's histories hold together, without labels."""
        histories = self.data.histories("train", batch_size=1024, seed=self.given.seed)
        former = self.given.continue_from
        start = former and former / "pretrained"
        place = self.out / "pretrained"
        return pretrained_vectors(recipe, self.items, histories, place, start=start)

    def build(self, recipe: Recipe) -> Ranker:
        """A ranker with fresh weights or those of a former run, the same on every rank."""
        torch.manual_seed(self.given.seed)
        if self.given.continue_from is None:
            return build_ranker(recipe, self.items, self.inputs)
        told = (self.items, self.data, self.inputs)
        ranker, self.inputs = continue_ranker(self.given.continue_from, *told, recipe=recipe)
        return ranker

    def batch_size(self, recipe: Recipe) -> int:
        """Rows of a global batch: the recipe's, or the largest that fits."""
        return recipe.batch_size or settled_batch_size(
            lambda: self.build(recipe),
            lambda rows: next(iter(self.loader("train", batch_size=rows))),
            config=recipe.training,
            train_rows=self.data.rows["train"],
            path=self.out / "batch_size.json",
        )

    def loader(self, split: str, **how: Any) -> BatchLoader:
        """This rank's batches."""
        how |= {"seed": self.given.seed, "workers": self.given.recipe.training.speed.workers}
        return self.data.loader(split, rank=self.world.rank, world_size=self.world.size, **how)

    def train(self) -> tuple[Ranker, Scores]:
        """The ranker with its best weights, and its scores of valid."""
        out, recipe = self.out / "ranker", self.recipe
        ranker, valid = self.build(recipe), self.loader("valid")
        from_first(lambda: write_sources(out, data=self.data.root, features=self.features))
        fit(
            ranker,
            self.loader("train", batch_size=recipe.batch_size, shuffle=True),
            valid,
            config=recipe.training,
            out=out,
            recipe=describe(recipe, self.inputs),
            callback=self.given.board,
        )
        how: Any = {"device": self.given.device, "precision": recipe.training.precision}
        return ranker, score_rows(ranker, valid, **how)

    def report(self, ranker: Ranker, scores: Scores) -> None:
        """Figures beside baselines, as a table and in `metrics.json`; pictures."""
        figures, lines = summarise(self.data, self.counts, ranker, scores)
        figures |= {"recipe": to_plain(self.recipe), "schema": self.data.schema.to_dict()}
        write_json(self.out / "metrics.json", figures | provenance())
        plot_run(self.out, scores)
        print(two_columns(lines))
        own = [word for name in self.given.modules for word in ("--import", name)]
        following = [str(self.out), "--data", str(self.given.data), "--out", "SCORED", *own]
        print("next: mmrec predict", shlex.join(following))


def _parse(arguments: list[str] | None) -> Namespace:
    parser = ArgumentParser(
        prog=program("mmrec.train"), description="Train the ranker of a recipe on a data set."
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="a data set's folder")
    add("--out", type=Path, required=True, metavar="RUN", help="where all results go")
    add("--features", type=Path, help="feature parquet (DATA/features.parquet if there)")
    many: Any = {"action": "append", "default": []}
    add("--vectors", **many, metavar="MODALITY=COLUMN", help="its vectors (as the schema says)")
    add("--recipe", help="a recipe's name or .toml file (small, or that of --continue-from)")
    add("--set", **many, metavar="NAME=VALUE", help="a recipe's setting")
    offer_modules(parser)
    add("--continue-from", type=Path, metavar="RUN", help="another --out, to train its ranker on")
    add("--restart", action="store_true", help="from scratch instead of resuming")
    add("--seed", type=int, default=0, help="of everything (0)")
    add("--device", default="auto", help="auto, cpu or cuda (auto)")
    add("--tensorboard", action="store_true", help="also write RUN/tensorboard")
    add("--quiet", action="store_true", help="no progress bars")
    given = parser.parse_args(arguments)
    import_modules(given.modules)
    given.vectors = named(given.vectors)
    given.board = TensorBoard(given.out / "tensorboard") if given.tensorboard else None
    given.recipe = recipe_of(given)
    return given

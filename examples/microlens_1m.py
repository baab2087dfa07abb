"""The whole MM-CTR challenge pipeline on MicroLens-1M, from pictures and titles to a submission.

    python examples/microlens_1m.py                        # synthetic data, no download
    python examples/microlens_1m.py --data DATA --out OUT  # real files: docs/start/your_data.md
    torchrun --nproc-per-node 8 examples/microlens_1m.py --data DATA --out OUT  # on 8 GPUs

audit -> frozen CLIP over covers and captions -> fusion to 128 dimensions, trained -> ranker with
history, CrossNetV2 and MLP -> embeddings, item_info, prediction.csv and its zip. The same
command resumes where it was stopped, also on another number of ranks.
"""

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mmrec import ClickData, Inputs, ItemTable, Recipe, build_ranker, describe, fit
from mmrec import predict as predict_rows
from mmrec.analysis import diagnose_tasks, plot_run, summarise
from mmrec.audit import audit
from mmrec.cli import Stages, named, run, two_columns
from mmrec.commands.opening import open_data, recipe_of
from mmrec.data.artifacts import write_fused
from mmrec.data.counts import ClickCounts, read_pairs
from mmrec.datasets.covers import write_captioned_covers
from mmrec.datasets.synthetic import DONE, SyntheticConfig, make_synthetic
from mmrec.embed import OpenClipEncoder, embed_items, tiny_clip
from mmrec.io.files import remove, write_json
from mmrec.io.plain import to_plain
from mmrec.io.provenance import provenance
from mmrec.models import Ranker, search_space
from mmrec.models.pretrain import made_by, pretrained_vectors
from mmrec.predict import continue_ranker, write_sources, write_submission
from mmrec.train import BatchLoader, Scores, World, from_first, process_group, score
from mmrec.train.batch_size import settled_batch_size
from mmrec.train.distributed import barrier, first_talks
from mmrec.train.search import search

EMBEDDING_WIDTH = 128
PATIENCE = timedelta(days=7)  # ranks wait for the first; torchrun ends all when one dies
WRITTEN = (
    *("packed", "audit", "encoder", "pretrained", "search", "ranker", "ranker_no_content"),
    *("batch_size.json", "diagnosis.json", "calibration.png", "metrics.json", "prediction.csv"),
    *("item_info.parquet", "custom_item_embeddings.parquet", "prediction.zip"),
)


def main() -> None:
    """Every rank runs the pipeline, the first one talks."""
    args = parse()
    with process_group(args.device, timeout=PATIENCE) as world, first_talks(world):
        Pipeline(args, world).run()


class Pipeline:
    """The stages, in order. `from_first`: by the first rank, while the others wait."""

    def __init__(self, args: Namespace, world: World) -> None:
        self.args, self.world, self.recipe = args, world, args.recipe
        self.out: Path = args.out
        self.how: Any = {"device": args.device, "precision": args.recipe.training.precision}
        self.ranks: Any = {"rank": world.rank, "world_size": world.size}
        self.vectors: torch.Tensor | None = None  # pretrained ones

    def run(self) -> None:
        """Run every stage and report."""
        args, out, stage = self.args, self.out, Stages()
        with stage("data"):
            self.data, self.counts = from_first(self.open_data)
        if not args.no_audit:
            with stage("audit"):
                print(from_first(lambda: audit(self.data.root, out=out / "audit").headlines()))
        with stage("embed"):
            self.items = self.read_items()
            if not self.items.has_content:  # the ranker goes by ids and columns
                self.recipe, args.no_ablation = self.recipe.without_content(), True
        if self.recipe.two_stage:
            with stage("pretrain"):
                self.vectors = from_first(self.pretrain)
                self.items = self.items.with_vectors(self.vectors, made_by(out / "pretrained"))
                self.recipe = self.recipe.with_ready_vectors()
        with stage("train"):
            pairs = read_pairs(self.data.valid, self.data.schema.clicks)
            users = from_first(lambda: self.counts.users_shared_with(pairs))
            self.inputs = Inputs.of(self.data, self.counts, self.items, known_users=users)
            self.recipe = self.recipe.changed({"batch_size": from_first(self.batch_size)})
            space, chosen = search_space(self.recipe), [out / "ranker", out / "ranker_no_content"]
            trials: Any = {"trials": args.search, "chosen": chosen}
            self.recipe = search(self.recipe, self.train, out / "search", space, **trials)
            ranker, best = self.train(self.recipe, out / "ranker")
            from_first(lambda: plot_run(out, best))
        if not args.no_diagnosis:
            with stage("diagnose"):
                # A rank draws donors from its own rows.
                found = diagnose_tasks(ranker, self.loader("valid"), progress=False, **self.how)
                from_first(lambda: write_json(out / "diagnosis.json", to_plain(found)))
                for task, of in found.items():
                    print(f"what the ranker's AUC of {task} on valid rests on: {of.table()}")
        plain: Scores | None = None
        if not args.no_ablation:
            with stage("train without content"):
                _, plain = self.train(self.recipe.without_content(), out / "ranker_no_content")
        with stage("predict"):
            files = self.predict(ranker)

        def report() -> None:
            figures, lines = summarise(self.data, self.counts, ranker, best, plain)
            figures |= {"recipe": to_plain(self.recipe), "schema": self.data.schema.to_dict()}
            figures |= {**provenance(), "seconds": stage.seconds, "mebibytes": stage.memory}
            files.update({p.stem: str(p) for p in (*out.glob("*.png"), *out.glob("ranker/*.png"))})
            write_json(out / "metrics.json", figures | {"files": files})
            print("\nsynthetic data, tiny encoder" if args.data is None else "")
            print(two_columns(lines | stage.lines() | files))

        from_first(report)

    def open_data(self) -> tuple[ClickData, ClickCounts]:
        """Find the data, or draw them from a known click model; check them, count clicks."""
        args, root = self.args, self.args.data or self.out / "data"
        if args.data is None:
            print("no --data given: synthetic data, drawn from a click model that is known")
            if args.restart and (root / DONE).exists():  # or it is somebody's
                remove(self.out, ["data"])
            make_synthetic(root, SyntheticConfig(seed=args.seed))
        return open_data(root, args, WRITTEN)

    def loader(self, split: str, **how: Any) -> BatchLoader:
        """This rank's batches."""
        how |= {"seed": self.args.seed, "workers": self.recipe.training.speed.workers}
        return self.data.loader(split, **self.ranks, **how)

    def read_items(self) -> ItemTable:
        """Tags and frozen features: ready ones, else those of pictures and titles."""
        found = None if self.args.model else self.data.features
        self.features: Path | None = self.args.features or found
        print(f"features: {self.features or 'those of titles and pictures'}")
        if self.features is None and self.data.item_feature is not None:
            self.features = self.embed()
        return ItemTable.read(self.data.item_info, self.data.schema.items, self.features)

    def embed(self) -> Path:
        """Every cover and caption through frozen CLIP, each rank its share; resumable."""
        args = self.args
        model, weights = args.model or "ViT-B-32", args.pretrained or "openai"
        if args.data is None and args.model is None:
            place = self.out / "encoder"
            pairs = partial(write_captioned_covers, place / "pairs", seed=args.seed)
            model, weights = from_first(lambda: tiny_clip(place, pairs, args.seed))
        how = {"device": args.device, "precision": args.clip_precision}
        encoder = OpenClipEncoder(model_name=model, pretrained=weights, **how)
        data, out = self.data, self.out / "features"
        files: Any = {"items": data.titles(), "images": data.images, "schema": data.schema.items}
        files |= {"restart": "changed" if args.restart else False, "workers": args.workers}
        ranks: Any = {**self.ranks, "barrier": barrier, "progress": not args.quiet}
        print(embed_items(encoder.towers, out=out, **files, **ranks))
        return out

    def pretrain(self) -> torch.Tensor:
        """Train the fusion alone, from what train's histories hold together, without labels."""
        histories = self.data.histories("train", batch_size=1024, seed=self.args.seed)
        old, new = (run and run / "pretrained" for run in (self.args.continue_from, self.out))
        return pretrained_vectors(self.recipe, self.items, histories, new, start=old)

    def build(self, recipe: Recipe) -> Ranker:
        """A ranker with fresh weights or those of a former run, the same on every rank."""
        torch.manual_seed(self.args.seed)
        if self.args.continue_from is not None and recipe == self.recipe:
            told = (self.items, self.data, self.inputs)
            ranker, self.inputs = continue_ranker(self.args.continue_from, *told, recipe=recipe)
            return ranker
        return build_ranker(recipe, self.items, self.inputs)

    def batch_size(self) -> int:
        """Rows of a global batch: the recipe's, or the largest that fits, as found at the start."""
        return self.recipe.batch_size or settled_batch_size(
            lambda: self.build(self.recipe),
            lambda rows: next(iter(self.loader("train", batch_size=rows))),
            config=self.recipe.training,
            train_rows=self.data.rows["train"],
            path=self.out / "batch_size.json",
        )

    def train(self, recipe: Recipe, out: Path) -> tuple[Ranker, Scores]:
        """Train one ranker; returns it with its best weights, and its scores of valid."""
        ranker, size = self.build(recipe), recipe.batch_size or 1
        train, valid = self.loader("train", batch_size=size, shuffle=True), self.loader("valid")
        described = describe(recipe, self.inputs)
        from_first(lambda: write_sources(out, data=self.data.root, features=self.features))
        fit(ranker, train, valid, config=recipe.training, out=out, recipe=described)
        return ranker, score(ranker, valid, **self.how)

    def predict(self, ranker: Ranker) -> dict[str, str]:
        """Write the submission, the embeddings and an item_info that holds them."""
        how = {"num_rows": self.data.rows["test"], "progress": not self.args.quiet} | self.how
        _, probability = predict_rows(ranker, self.loader("test"), **how)
        ready = self.vectors is not None or ranker.items.fusion is None
        fused = self.vectors if ready else ranker.items.content_table()

        def write() -> dict[str, str]:
            data, out = self.data, self.out
            ids, (key, columns) = data.row_ids(), data.header
            made = write_submission(ids, probability, out, id_column=key, columns=columns)
            files = write_fused(out, data.item_info, fused, data.schema.items)
            files |= {"prediction": made[0], "submission": made[1], "metrics": out / "metrics.json"}
            return {name: str(path) for name, path in files.items()}

        return from_first(write)


def parse() -> Namespace:
    """Read the command line; everything is checked before any work."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, help="a data set's folder (synthetic data)")
    add("--out", type=Path, default=Path("out"), help="where all results go (out)")
    add("--restart", action="store_true", help="from scratch instead of resuming")
    add("--continue-from", type=Path, metavar="RUN", help="another --out, to train its ranker on")
    add("--model", help="open_clip model name or config .json (ViT-B-32)")
    add("--pretrained", help="its pretrained tag or weights file (openai)")
    add("--features", type=Path, help="ready feature parquet (DATA/features.parquet if there)")
    many: Any = {"action": "append", "default": []}
    add("--vectors", **many, metavar="MODALITY=COLUMN", help="its vectors (as the schema says)")
    add("--clip-precision", default="auto", help="auto, fp32, bf16 or fp16 (auto)")
    add("--workers", type=int, help="image decoding processes (one a core)")
    add("--recipe", help="a recipe's name or .toml file (small, or that of --continue-from)")
    add("--set", **many, metavar="NAME=VALUE", help="a recipe's setting")
    add("--search", type=int, default=0, metavar="N", help="first choose of N settings, by valid")
    add("--seed", type=int, default=0, help="of everything (0)")
    add("--device", default="auto", help="auto, cpu or cuda (auto)")
    for what in ("audit", "diagnosis", "ablation"):
        add(f"--no-{what}", action="store_true", help=f"leave the {what} out")
    add("--quiet", action="store_true", help="no progress bars")
    args = parser.parse_args()
    args.vectors = named(args.vectors)
    args.recipe = recipe_of(args, width=EMBEDDING_WIDTH, trials=args.search)
    return args


if __name__ == "__main__":
    run(main)

"""The whole MM-CTR challenge pipeline on MicroLens-1M, from pictures and titles to a submission.

    python examples/microlens_1m.py                        # synthetic data, no download
    python examples/microlens_1m.py --data DATA --out OUT  # real files, see docs/data_format.md
    torchrun --nproc-per-node 8 examples/microlens_1m.py --data DATA --out OUT  # on 8 GPUs

audit -> frozen CLIP over covers and captions -> fusion to 128 dimensions, trained -> ranker with
Transformer, CrossNetV2 and MLP -> embeddings, item_info, prediction.csv and its zip. The same
command resumes where it was stopped, also on another number of ranks.
"""

import argparse
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mmrec import ClickData, Inputs, ItemTable, Recipe, build_ranker, describe, fit, get_recipe
from mmrec import predict as predict_rows
from mmrec.analysis import diagnose_tasks, plot_run, summarise
from mmrec.audit import audit
from mmrec.cli import Stages, run, two_columns
from mmrec.data.artifacts import write_item_embeddings, write_item_info
from mmrec.data.counts import ClickCounts, count_clicks, read_pairs
from mmrec.datasets.synthetic import SyntheticConfig, make_synthetic, write_captioned_covers
from mmrec.embed import OpenClipEncoder, embed_items, train_tiny_clip
from mmrec.io.files import remove, write_json
from mmrec.io.plain import parse_settings, to_plain
from mmrec.io.provenance import provenance
from mmrec.models import Ranker, check_parts
from mmrec.models.pretrain import pretrained_vectors
from mmrec.predict import write_submission
from mmrec.train import Scores, World, from_first, process_group, score, settled_batch_size
from mmrec.train.distributed import barrier, first_talks

EMBEDDING_WIDTH = 128
# Ranks wait while the first makes data, an audit or files; torchrun ends all when one dies.
PATIENCE = timedelta(days=7)
WRITTEN = (
    *("data", "packed", "audit", "encoder", "features", "pretrained"),
    *("ranker", "ranker_no_content"),
    *("batch_size.json", "diagnosis.json", "calibration.png", "metrics.json"),
    *("custom_item_embeddings.parquet", "item_info.parquet", "prediction.csv", "prediction.zip"),
)


def main() -> None:
    """Every rank runs the pipeline, the first one talks."""
    args = parse()
    with process_group(args.device, timeout=PATIENCE) as world, first_talks(world):
        Pipeline(args, world).run()


class Pipeline:
    """The stages, in order. `from_first`: by the first rank, while the others wait."""

    def __init__(self, args: argparse.Namespace, world: World) -> None:
        self.args, self.world, self.recipe = args, world, args.recipe
        self.out: Path = args.out
        self.how: Any = {"device": args.device, "precision": args.recipe.training.precision}
        self.vectors: torch.Tensor | None = None  # pretrained ones

    def run(self) -> None:
        """Run every stage and report."""
        args, out, stage = self.args, self.out, Stages()
        with stage("data"):
            self.data, self.counts = from_first(self.open_data)
            self.loader = partial(
                self.data.loader,
                seed=args.seed,
                rank=self.world.rank,
                world_size=self.world.size,
                workers=self.recipe.training.speed.workers,
            )
        if not args.no_audit:
            with stage("audit"):
                print(from_first(lambda: audit(self.data.root, out=out / "audit").headlines()))
        with stage("embed"):
            self.items = self.read_items()
        if self.recipe.two_stage:
            with stage("pretrain"):
                self.vectors = from_first(self.pretrain)
                self.items = self.items.with_vectors(self.vectors)
                self.recipe = self.recipe.with_ready_vectors()
        with stage("train"):
            pairs = read_pairs(self.data.valid, self.data.schema.clicks)
            users = from_first(lambda: self.counts.users_shared_with(pairs))
            self.inputs = Inputs.of(self.data, self.counts, self.items, known_users=users)
            self.recipe = self.recipe.changed({"batch_size": from_first(self.batch_size)})
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
            pictures = [out / "calibration.png", out / "ranker" / "training.png"]
            files.update({path.stem: str(path) for path in pictures if path.exists()})
            write_json(out / "metrics.json", figures | {"files": files})
            spent = {
                f"{name}, seconds and peak memory": f"{value:,.1f}  {stage.memory[name]:,} MiB"
                for name, value in stage.seconds.items()
            }
            print("\nsynthetic data, tiny encoder" if args.data is None else "")
            print(two_columns(lines | spent | files))

        from_first(report)

    def open_data(self) -> tuple[ClickData, ClickCounts]:
        """Find the data, or draw them from a known click model; check them, count clicks."""
        if self.args.restart:
            remove(self.out, WRITTEN)
        self.out.mkdir(parents=True, exist_ok=True)
        if self.args.data is None:
            print("no --data given: synthetic data, drawn from a click model that is known")
            make_synthetic(self.out / "data", SyntheticConfig(seed=self.args.seed))
        data = ClickData.open(self.args.data or self.out / "data").pack(self.out / "packed")
        return data, count_clicks(data.train, data.schema.clicks, data.num_items)

    def read_items(self) -> ItemTable:
        """Tags and frozen features: ready ones, else those of pictures and titles."""
        args = self.args
        features: Path | None = args.features or (None if args.model else self.data.features)
        if features is not None:
            print(f"features: ready-made, from {features}")
        items = self.data.schema.items
        items = replace(items, modalities={**items.modalities, **args.columns})
        return ItemTable.read(self.data.item_info, items, features or self.embed())

    def embed(self) -> Path:
        """Every cover and caption through frozen CLIP, each rank its share; resumable."""
        args = self.args
        model, weights = args.model or "ViT-B-32", args.pretrained or "openai"
        if args.data is None and args.model is None:
            model, weights = from_first(lambda: tiny_clip(self.out / "encoder", args.seed))
        how = {"device": args.device, "precision": args.clip_precision}
        encoder = OpenClipEncoder(model_name=model, pretrained=weights, **how)
        report = embed_items(
            encoder,
            items=self.data.titles(),
            images=self.data.images,
            out=self.out / "features",
            schema=self.data.schema.items,
            workers=args.workers,
            restart=args.restart,
            rank=self.world.rank,
            world_size=self.world.size,
            barrier=barrier,
            progress=not args.quiet,
        )
        print(report)
        return self.out / "features"

    def pretrain(self) -> torch.Tensor:
        """Train the fusion alone, from what train's histories hold together, without labels."""
        histories = self.data.histories("train", batch_size=1024, seed=self.args.seed)
        return pretrained_vectors(self.recipe, self.items, histories, self.out / "pretrained")

    def build(self, recipe: Recipe) -> Ranker:
        """A ranker with fresh weights, the same on every rank."""
        torch.manual_seed(self.args.seed)
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
        fit(ranker, train, valid, config=recipe.training, out=out, recipe=described)
        return ranker, score(ranker, valid, **self.how)

    def predict(self, ranker: Ranker) -> dict[str, str]:
        """Write the submission, the embeddings and an item_info that holds them."""
        rows, progress = self.data.rows["test"], self.recipe.training.progress
        loader = self.loader("test")
        _, probability = predict_rows(ranker, loader, num_rows=rows, progress=progress, **self.how)
        fused = ranker.items.content_table() if self.vectors is None else self.vectors

        def write() -> dict[str, str]:
            out, data, schema = self.out, self.data, self.data.schema
            tasks = schema.clicks.labels
            names = {"id_column": schema.clicks.row_id or "row"}
            columns = [self.args.column] if len(tasks) == 1 else tasks
            csv, archive = write_submission(
                data.row_ids(), probability, out, columns=columns, **names
            )
            place = out / "custom_item_embeddings.parquet"
            embeddings = write_item_embeddings(place, fused, schema.items)
            info = write_item_info(data.item_info, out / "item_info.parquet", fused, schema.items)
            files = {"custom_item_embeddings": embeddings, "item_info": info}
            files |= {"prediction": csv, "submission": archive, "metrics": out / "metrics.json"}
            return {name: str(path) for name, path in files.items()}

        return from_first(write)


def tiny_clip(folder: Path, seed: int) -> tuple[str, str]:
    """A small encoder that carries signal on the synthetic covers and titles."""
    print("encoder: a tiny CLIP, trained here on 2,000 synthetic covers that are no items")
    if not (folder / "model.json").exists():  # it is written last
        pairs = write_captioned_covers(folder / "pairs", seed=seed)
        items, images = pairs / "item_feature.parquet", pairs / "item_images"
        train_tiny_clip(items=items, images=images, out=folder, seed=seed)
    return str(folder / "model.json"), str(folder / "model.safetensors")


def parse() -> argparse.Namespace:
    """Read the command line; everything is checked before any work."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    add = parser.add_argument
    add("--data", type=Path, help="a data set's folder (synthetic data)")
    add("--out", type=Path, default=Path("out"), help="where all results go (out)")
    add("--restart", action="store_true", help="from scratch instead of resuming")
    add("--column", default="Task1&2", help="prediction column (Task1&2)")
    add("--model", help="open_clip model name or config .json (ViT-B-32)")
    add("--pretrained", help="its pretrained tag or weights file (openai)")
    add("--features", type=Path, help="ready feature parquet (DATA/features.parquet if there)")
    for name in ("image", "text"):
        add(f"--{name}-column", help=f"its {name} vectors (as the schema says)")
    add("--clip-precision", default="auto", help="auto, fp32, bf16 or fp16 (auto)")
    add("--workers", type=int, help="image decoding processes (one a core)")
    add("--recipe", default="small", help="a recipe's name or .toml file (small)")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="a recipe's setting")
    add("--seed", type=int, default=0, help="of everything (0)")
    add("--device", default="auto", help="auto, cpu or cuda (auto)")
    for what in ("audit", "diagnosis", "ablation"):
        add(f"--no-{what}", action="store_true", help=f"leave the {what} out")
    add("--quiet", action="store_true", help="no progress bars")
    args = parser.parse_args()
    columns = {"image": args.image_column, "text": args.text_column}
    args.columns = {name: column for name, column in columns.items() if column is not None}
    recipe = get_recipe(args.recipe).changed({"items.content_dim": EMBEDDING_WIDTH})
    run = {"seed": args.seed, "device": args.device, "progress": not args.quiet}
    recipe = recipe.changed({f"training.{name}": value for name, value in run.items()})
    args.recipe = check_parts(recipe.changed(parse_settings(args.set)))
    return args


if __name__ == "__main__":
    run(main)

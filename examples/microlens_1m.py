"""The whole MM-CTR challenge pipeline on MicroLens-1M, from pictures and titles to a submission.

    python examples/microlens_1m.py                        # synthetic data, no download
    python examples/microlens_1m.py --data DATA --out OUT  # real files, see docs/data_format.md
    torchrun --nproc-per-node 8 examples/microlens_1m.py --data DATA --out OUT  # on 8 GPUs

audit -> frozen CLIP over covers and captions -> fusion to 128 dimensions, trained -> ranker with
Transformer, CrossNetV2 and MLP -> embeddings, item_info, prediction.csv and its zip. The same
command goes on from where it was stopped, also on another number of ranks.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from contextlib import nullcontext, redirect_stdout
from datetime import timedelta
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from microlens_options import TRAINING, parse
from microlens_report import Clock, measure, show
from microlens_stages import audit_data, prepare, pretrain, read_items, ready, shared_users

from mmrec.analysis.diagnose import diagnose
from mmrec.analysis.plots import plot_calibration, plot_training
from mmrec.batch import Batch
from mmrec.cli import run
from mmrec.config import TrainConfig
from mmrec.data.artifacts import write_item_embeddings, write_item_info
from mmrec.data.counts import ClickCounts, read_pairs
from mmrec.data.items import ItemTable
from mmrec.data.microlens import MicroLens, to_batch
from mmrec.io.files import write_json
from mmrec.models.ranker import Ranker
from mmrec.models.recipes import Recipe, build_ranker, get_recipe
from mmrec.predict import predict, write_submission
from mmrec.stream.loader import Loader, make_loader
from mmrec.stream.stream import ParquetStream
from mmrec.train.batch_size import largest_batch_size
from mmrec.train.distributed import World, from_first, process_group
from mmrec.train.evaluate import Scores, score
from mmrec.train.step.precision import resolve_device
from mmrec.train.trainer import fit

EMBEDDING_WIDTH = 128
# While the first rank makes data, an audit or files, the others wait, for hours if they are large.
# Nothing hangs for it: torchrun ends all ranks as soon as one dies.
PATIENCE = timedelta(days=7)
SMALLEST_BATCH, STEPS_AN_EPOCH = 128, 100  # what `--batch-size auto` stays within


@dataclasses.dataclass(frozen=True)
class Setup:
    """What the stages from training on share.

    Attributes:
        known_users: see `build_ranker`.
        batch_size: rows of a step, over all ranks.
    """

    given: argparse.Namespace
    world: World
    data: MicroLens
    counts: ClickCounts
    items: ItemTable
    known_users: torch.Tensor | None
    batch_size: int = 0


def main() -> None:
    """Every rank runs the pipeline, the first one talks."""
    given = parse(__doc__ or "")
    with process_group(given.device, timeout=PATIENCE) as world:
        given.quiet = given.quiet or not world.is_first
        with nullcontext() if world.is_first else redirect_stdout(StringIO()):
            pipeline(given, world)


def pipeline(given: argparse.Namespace, world: World) -> None:
    """Run every stage and report. `from_first`: by the first rank, while the others wait."""
    clock = Clock()
    out: Path = given.out
    with clock("data"):
        root, data, counts = from_first(lambda: prepare(given))
    if not given.no_audit:
        with clock("audit"):
            from_first(lambda: audit_data(root, out / "audit"))
    with clock("embed"):
        items = read_items(given, data, world)
    recipe, config = choose(given, data)
    vectors: torch.Tensor | None = None
    if recipe.fusion == "precomputed" or given.fusion_training == "two-stage":
        with clock("pretrain"):
            vectors = from_first(lambda: pretrain(given, data, items, recipe, out / "pretrained"))
            items, recipe = ready(items, vectors, recipe)
    known_users = from_first(lambda: shared_users(data, counts))
    setup = Setup(given, world, data, counts, items, known_users)
    size = from_first(lambda: batch_size(setup, recipe, config))
    setup = dataclasses.replace(setup, batch_size=size)
    with clock("train"):
        ranker, best = train(setup, recipe, config, out / "ranker")
    if not given.no_diagnosis:
        with clock("diagnose"):
            diagnose_ranker(setup, ranker)
    if find_spec("matplotlib"):
        from_first(lambda: draw(data, best, out))
    plain: Scores | None = None
    if not given.no_ablation:
        with clock("train without content"):
            bare = dataclasses.replace(recipe, fusion="none", fusion_options={}, alignment=0.0)
            bare = dataclasses.replace(bare, modality_dropout=0.0, tiers=0)
            _, plain = train(setup, bare, config, out / "ranker_no_content")
    with clock("predict"):
        probability = predict_test(setup, ranker)
        files = from_first(lambda: write_files(setup, ranker, vectors, probability))

    def report() -> None:
        result = measure(data, counts, ranker, best, plain)
        result |= {"recipe": given.recipe, "seed": given.seed, "seconds": clock.seconds}
        result["files"] = {name: str(path) for name, path in files.items()}
        result["files"]["metrics"] = str(out / "metrics.json")
        write_json(out / "metrics.json", result)
        show(result, synthetic=given.data is None)

    from_first(report)


def choose(given: argparse.Namespace, data: MicroLens) -> tuple[Recipe, TrainConfig]:
    """The recipe and the training settings: the recipe's own, and what the user says instead."""
    recipe = get_recipe(given.recipe)
    changes: dict[str, Any] = {"content_dim": EMBEDDING_WIDTH, "context_sizes": data.context_sizes}
    if given.fusion:
        changes |= {"fusion": given.fusion, "fusion_options": {}}
    training = TRAINING[given.recipe]
    config = TrainConfig(
        epochs=given.epochs or training.epochs,
        learning_rate=given.learning_rate or training.learning_rate,
        weight_decay=training.weight_decay,
        embedding_weight_decay=training.embedding_weight_decay,
        schedule=training.schedule,
        warmup_steps=training.warmup_steps,
        monitor=given.monitor,
        precision=given.precision,
        device=given.device,
        seed=given.seed,
        save_every_seconds=given.save_every,
        progress=not given.quiet,
    )
    return dataclasses.replace(recipe, **changes), config


def loader(setup: Setup, split: str, batch_size: int, *, shuffle: bool) -> Loader[Batch]:
    """This rank's slices of one split's batches of ids."""
    stream = ParquetStream(
        getattr(setup.data, split),
        batch_size=batch_size,
        columns=setup.data.columns(split),
        list_widths={"item_seq": setup.data.history_length},
        collate=to_batch,
        shuffle=shuffle,
        seed=setup.given.seed,
        rank=setup.world.rank,
        world_size=setup.world.size,
    )
    return make_loader(
        stream, num_workers=setup.given.loader_workers, pin_memory=torch.cuda.is_available()
    )


def build(setup: Setup, recipe: Recipe) -> Ranker:
    """A ranker with fresh weights, the same on every rank."""
    torch.manual_seed(setup.given.seed)
    known_items = setup.counts.known_items if recipe.unknown_id else None
    return build_ranker(recipe, setup.items, known_users=setup.known_users, known_items=known_items)


def batch_size(setup: Setup, recipe: Recipe, config: TrainConfig) -> int:
    """Rows of a step, over all ranks: the recipe's, the user's, or the largest that fit.

    What was found is written down, since a run goes on with the size that it began with.
    """
    given, ranks = setup.given, setup.world.size
    usual: int = TRAINING[given.recipe].batch_size
    if given.batch_size != "auto":
        return int(given.batch_size or usual)
    path = given.out / "batch_size.json"
    if path.exists():
        size = int(json.loads(path.read_text())["batch_size"])
        print(f"batch size: {size:,} rows, as found at the start (--restart looks anew)")
        return size
    # Learning rates are not scaled: an epoch keeps enough steps to learn something.
    limit = max(SMALLEST_BATCH, setup.data.rows["train"] // (STEPS_AN_EPOCH * ranks))
    if resolve_device(given.device).type == "cpu":  # refuses no memory, so it cannot be asked
        limit = max(1, usual // ranks)
    start = min(SMALLEST_BATCH, limit)
    rows = next(iter(loader(setup, "train", start * ranks, shuffle=False)))
    ranker = build(setup, recipe)
    found = largest_batch_size(ranker, rows, config=config, start=start, limit=limit)
    write_json(path, {"batch_size": found * ranks})
    print(f"batch size: {found * ranks:,} rows, the largest that fit on {ranks} rank(s)")
    return found * ranks


def train(setup: Setup, recipe: Recipe, config: TrainConfig, out: Path) -> tuple[Ranker, Scores]:
    """Train one ranker; returns it with its best weights, and its scores of valid."""
    given, size = setup.given, setup.batch_size
    ranker = build(setup, recipe)
    valid = loader(setup, "valid", 4 * size, shuffle=False)
    fit(
        ranker,
        loader(setup, "train", size, shuffle=True),
        valid,
        config=config,
        out=out,
        recipe={"recipe": recipe.to_dict(), "seed": given.seed},
        restart=given.restart,
    )
    return ranker, score(ranker, valid, device=given.device, precision=given.precision)


def diagnose_ranker(setup: Setup, ranker: Ranker) -> None:
    """Say what the ranker's AUC rests on; a rank draws its donors from its own rows."""
    given = setup.given
    said = diagnose(
        ranker,
        loader(setup, "valid", 4 * setup.batch_size, shuffle=False),
        device=given.device,
        precision=given.precision,
        progress=False,
    )
    from_first(lambda: write_json(given.out / "diagnosis.json", said.to_json()))
    print(f"what the ranker's AUC on valid rests on: {said.table()}")


def draw(data: MicroLens, best: Scores, out: Path) -> None:
    """Training curves and calibration."""
    plot_training(out / "ranker")
    plot_calibration(read_pairs(data.valid).label, best.probability, out / "calibration.png")


def predict_test(setup: Setup, ranker: Ranker) -> Any:
    """(n,) click probabilities of the test rows, in their order."""
    given = setup.given
    _, probability = predict(
        ranker,
        loader(setup, "test", 4 * setup.batch_size, shuffle=False),
        device=given.device,
        precision=given.precision,
        num_rows=setup.data.rows["test"],
        progress=not given.quiet,
    )
    return probability


def write_files(
    setup: Setup, ranker: Ranker, vectors: torch.Tensor | None, probability: Any
) -> dict[str, Path]:
    """The embeddings (pretrained, or as the clicks have trained them), item_info, submission."""
    data, out = setup.data, setup.given.out
    vectors = ranker.items.content_table() if vectors is None else vectors
    column = setup.given.column
    csv, archive = write_submission(data.test_ids(), probability, out, column=column)
    return {
        "custom_item_embeddings": write_item_embeddings(
            out / "custom_item_embeddings.parquet", vectors
        ),
        "item_info": write_item_info(data.item_info, out / "item_info.parquet", vectors),
        "prediction": csv,
        "submission": archive,
    }


if __name__ == "__main__":
    run(main)

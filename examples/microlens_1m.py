"""The whole MM-CTR challenge pipeline on MicroLens-1M, from pictures and titles to a submission.

    python examples/microlens_1m.py                        # synthetic data, no download
    python examples/microlens_1m.py --data DATA --out OUT  # real files, see docs/data_format.md

audit -> frozen CLIP over covers and captions -> fusion to 128 dimensions, trained -> ranker with
Transformer, CrossNetV2 and MLP -> embeddings, item_info, prediction.csv and its zip. The same
command goes on from where it was stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from microlens_options import TRAINING, clear, parse
from microlens_report import Clock, measure, show
from safetensors.torch import load_file, save_file

from mmrec.batch import Batch
from mmrec.cli import run
from mmrec.data.artifacts import write_item_embeddings, write_item_info
from mmrec.data.counts import ClickCounts, count_clicks, read_pairs
from mmrec.data.items import ItemTable
from mmrec.data.loader import Loader, make_loader
from mmrec.data.microlens import MicroLens, to_batch
from mmrec.data.stream import ParquetStream
from mmrec.errors import InputError
from mmrec.files import replacing, write_json
from mmrec.models.ranker import Ranker
from mmrec.models.recipes import Recipe, build_items, build_ranker, get_recipe
from mmrec.predict import predict, write_submission
from mmrec.train.config import TrainConfig
from mmrec.train.diagnose import diagnose
from mmrec.train.evaluate import Scores, score
from mmrec.train.plots import plot_calibration, plot_training
from mmrec.train.precision import resolve_device
from mmrec.train.pretrain import pretrain_fusion
from mmrec.train.trainer import fit

EMBEDDING_WIDTH = 128
KNOWN_USERS_SHARE = 0.5  # users get biases of their own where train knows most of valid's users


def main() -> None:
    """Run every stage and report."""
    given = parse(__doc__ or "")
    clock = Clock()
    out: Path = given.out
    if given.restart:
        clear(out)
    out.mkdir(parents=True, exist_ok=True)
    with clock("data"):
        root = given.data or synthetic_data(out / "data", given.seed)
        data = MicroLens.open(root)
        counts = count_clicks(data.train, data.num_items)
    if not given.no_audit:
        with clock("audit"):
            audit_data(root, out / "audit")
    with clock("embed"):
        items = read_items(given, data, out)
    recipe, config = choose(given, data)
    vectors: torch.Tensor | None = None
    if recipe.fusion == "precomputed" or given.fusion_training == "two-stage":
        with clock("pretrain"):
            vectors = pretrain(given, data, items, recipe, out / "pretrained")
            items, recipe = ready(items, vectors, recipe)
    known_users = shared_users(data, counts)
    with clock("train"):
        ranker, best = train(
            given, data, counts, items, recipe, config, known_users, out / "ranker"
        )
    if not given.no_diagnosis:
        with clock("diagnose"):
            said = diagnose(
                ranker,
                loader(given, data, "valid", 4 * batch_size(given), shuffle=False),
                device=given.device,
                precision=given.precision,
                progress=False,
            )
            write_json(out / "diagnosis.json", said.to_json())
            print(f"what the ranker's AUC on valid rests on: {said.table()}")
    if find_spec("matplotlib"):
        plot_training(out / "ranker")
        label = read_pairs(data.valid).label
        plot_calibration(label, best.probability, out / "calibration.png")
    plain: Scores | None = None
    if not given.no_ablation:
        with clock("train without content"):
            bare = dataclasses.replace(recipe, fusion="none", fusion_options={}, alignment=0.0)
            bare = dataclasses.replace(bare, modality_dropout=0.0, tiers=0)
            _, plain = train(
                given, data, counts, items, bare, config, known_users, out / "ranker_no_content"
            )
    with clock("predict"):
        files = write_files(given, data, ranker, vectors, out)
    result = measure(data, counts, ranker, best, plain)
    result |= {"recipe": given.recipe, "seed": given.seed, "seconds": clock.seconds}
    result["files"] = {name: str(path) for name, path in files.items()}
    result["files"]["metrics"] = str(out / "metrics.json")
    write_json(out / "metrics.json", result)
    show(result, synthetic=given.data is None)


def synthetic_data(root: Path, seed: int) -> Path:
    """Data drawn from a known click model."""
    from mmrec.data.synthetic import SyntheticConfig, make_synthetic

    print("no --data given: synthetic data, drawn from a click model that is known")
    make_synthetic(root, SyntheticConfig(seed=seed))
    return root


def audit_data(root: Path, out: Path) -> None:
    """Say what is wrong with the data before anyone believes an AUC."""
    from mmrec.audit import audit

    report = audit(root, out=out)
    for finding in report.serious:
        print(f"audit, serious: {finding.sentence} {finding.advice}")
    others = len(report.findings) - len(report.serious)
    print(f"audit: {len(report.serious)} serious findings, {others} others in {out}")


def read_items(given: argparse.Namespace, data: MicroLens, out: Path) -> ItemTable:
    """Tags and frozen features: ready-made where there are some, else from pictures and titles."""
    features = given.features or (None if given.model else data.features)
    if features is None:
        features = embed(given, data, out)
    else:
        print(f"features: ready-made, from {features}")
    return ItemTable.read(
        data.item_info,
        features,
        image_column=given.image_column,
        text_column=given.text_column,
    )


def embed(given: argparse.Namespace, data: MicroLens, out: Path) -> Path:
    """Every cover and caption through frozen CLIP, into feature parquet; resumable."""
    from mmrec.embed import OpenClipEncoder, embed_items

    if data.item_feature is None:
        raise InputError(
            f"titles are needed to embed the items, there is no item_feature.parquet in {data.root}"
        )
    model, weights = given.model or "ViT-B-32", given.pretrained or "openai"
    if given.data is None and not given.model:
        model, weights = tiny_clip(out, given.seed)
        print(
            "encoder: a tiny CLIP made on the spot, trained for a moment on 2,000 synthetic covers "
            "and descriptions that are no items (real data takes ViT-B-32 of OpenAI)"
        )
    encoder = OpenClipEncoder(
        model_name=model, pretrained=weights, device=given.device, precision=given.clip_precision
    )
    names = pq.read_schema(data.item_feature).names
    words = "item_text" if "item_text" in names else "item_title"
    report = embed_items(
        encoder,
        items=data.item_feature,
        images=data.images,
        out=out / "features",
        title_column=words,
        workers=given.workers,
        restart=given.restart,
        progress=not given.quiet,
    )
    print(report)
    return out / "features"


def tiny_clip(out: Path, seed: int) -> tuple[str, str]:
    """A small encoder that carries signal on the synthetic covers and titles."""
    from mmrec.data.synthetic import write_captioned_covers
    from mmrec.embed import train_tiny_clip

    folder, done = out / "encoder", out / "encoder" / "done.json"
    if not done.exists():
        pairs = write_captioned_covers(folder / "pairs", seed=seed)
        files = train_tiny_clip(
            items=pairs / "item_feature.parquet",
            images=pairs / "item_images",
            out=folder,
            seed=seed,
        )
        write_json(done, {"config": str(files.config), "weights": str(files.weights)})
    files_there = json.loads(done.read_text())
    return files_there["config"], files_there["weights"]


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


def pretrain(
    given: argparse.Namespace, data: MicroLens, items: ItemTable, recipe: Recipe, folder: Path
) -> torch.Tensor:
    """Train the fusion alone, from what train's histories hold together and without labels."""
    name = "attention" if recipe.fusion == "precomputed" else recipe.fusion
    said = {"fusion": name, "seed": given.seed, "epochs": given.pretrain_epochs}
    path, done = folder / "vectors.safetensors", folder / "done.json"
    if done.exists():
        if json.loads(done.read_text()) != said:
            raise InputError(f"{folder} holds a fusion of another setting; use --restart")
        return load_file(path)["vectors"]
    alone = dataclasses.replace(recipe, fusion=name, fusion_options={}, id_dim=0, tag_dim=0)
    torch.manual_seed(given.seed)
    encoder = build_items(alone, items).to(resolve_device(given.device))
    histories = ParquetStream(
        data.train,
        batch_size=1024,
        columns=["item_seq"],
        list_widths={"item_seq": data.history_length},
        collate=history_alone,
        shuffle=True,
        seed=given.seed,
    )
    result = pretrain_fusion(encoder, histories, epochs=given.pretrain_epochs, seed=given.seed)
    print(
        "pretrained fusion: loss of items consumed together "
        f"{result.together[0]:.3f} -> {result.together[-1]:.3f}, of image and text "
        f"{result.modalities[0]:.3f} -> {result.modalities[-1]:.3f}"
    )
    vectors = encoder.content_table()
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        save_file({"vectors": vectors}, temporary)
    write_json(done, said)
    return vectors


def history_alone(columns: dict[str, torch.Tensor]) -> torch.Tensor:
    """The histories (B, L) of a batch of columns."""
    return columns["item_seq"]


def ready(items: ItemTable, vectors: torch.Tensor, recipe: Recipe) -> tuple[ItemTable, Recipe]:
    """Item table and recipe of a ranker that takes the fused vectors as they are."""
    there = torch.ones(items.num_items, dtype=torch.bool)
    there[0] = False
    fused = dataclasses.replace(
        items,
        image=vectors.half(),
        has_image=there,
        text=torch.zeros(items.num_items, 1, dtype=torch.float16),
        has_text=torch.zeros_like(there),
    )
    options = recipe.fusion_options if recipe.fusion == "precomputed" else {}
    return fused, dataclasses.replace(recipe, fusion="precomputed", fusion_options=options)


def shared_users(data: MicroLens, counts: ClickCounts) -> torch.Tensor | None:
    """Train's users where they are also valid's; None where ids of users say nothing of valid."""
    share = counts.share_known(read_pairs(data.valid).user)
    known = share >= KNOWN_USERS_SHARE
    print(
        f"train knows the users of {share:.0%} of valid's rows: users "
        f"{'have biases of their own' if known else 'are told apart by their histories alone'}"
    )
    return torch.from_numpy(counts.users) if known else None


def batch_size(given: argparse.Namespace) -> int:
    """Rows of a step."""
    return int(given.batch_size or TRAINING[given.recipe].batch_size)


def loader(
    given: argparse.Namespace, data: MicroLens, split: str, batch_size: int, *, shuffle: bool
) -> Loader[Batch]:
    """Batches of ids of one split."""
    stream = ParquetStream(
        getattr(data, split),
        batch_size=batch_size,
        columns=data.columns(split),
        list_widths={"item_seq": data.history_length},
        collate=to_batch,
        shuffle=shuffle,
        seed=given.seed,
    )
    return make_loader(
        stream, num_workers=given.loader_workers, pin_memory=torch.cuda.is_available()
    )


def train(
    given: argparse.Namespace,
    data: MicroLens,
    counts: ClickCounts,
    items: ItemTable,
    recipe: Recipe,
    config: TrainConfig,
    known_users: torch.Tensor | None,
    out: Path,
) -> tuple[Ranker, Scores]:
    """Train one ranker; returns it with its best weights, and its scores of valid."""
    torch.manual_seed(given.seed)
    known_items = counts.known_items if recipe.unknown_id else None
    ranker = build_ranker(recipe, items, known_users=known_users, known_items=known_items)
    size = batch_size(given)
    valid = loader(given, data, "valid", 4 * size, shuffle=False)
    fit(
        ranker,
        loader(given, data, "train", size, shuffle=True),
        valid,
        config=config,
        out=out,
        recipe={"recipe": recipe.to_dict(), "seed": given.seed},
        restart=given.restart,
    )
    return ranker, score(ranker, valid, device=given.device, precision=given.precision)


def write_files(
    given: argparse.Namespace,
    data: MicroLens,
    ranker: Ranker,
    vectors: torch.Tensor | None,
    out: Path,
) -> dict[str, Path]:
    """The embeddings (pretrained, or as the clicks have trained them), item_info, submission."""
    vectors = ranker.items.content_table() if vectors is None else vectors
    test = loader(given, data, "test", 4 * batch_size(given), shuffle=False)
    _, probability = predict(
        ranker,
        test,
        device=given.device,
        precision=given.precision,
        num_rows=data.rows["test"],
        progress=not given.quiet,
    )
    csv, archive = write_submission(data.test_ids(), probability, out, column=given.column)
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

"""The stages of `microlens_1m.py` before its ranker: data, audit, features, pretrained fusion."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import torch
from microlens_options import check, clear
from safetensors.torch import load_file, save_file

from mmrec.data.counts import ClickCounts, count_clicks, read_pairs
from mmrec.data.items import ItemTable
from mmrec.data.microlens import MicroLens
from mmrec.errors import InputError
from mmrec.io.files import replacing, write_json
from mmrec.models.pretrain import pretrain_fusion
from mmrec.models.recipes import Recipe, build_items
from mmrec.stream.stream import ParquetStream
from mmrec.train.distributed import World, barrier, from_first
from mmrec.train.step.precision import resolve_device

KNOWN_USERS_SHARE = 0.5  # users get biases of their own where train knows most of valid's users


def prepare(given: argparse.Namespace) -> tuple[Path, MicroLens, ClickCounts]:
    """Find or make the data, check them, count the clicks."""
    check(given)
    if given.restart:
        clear(given.out)
    given.out.mkdir(parents=True, exist_ok=True)
    root = given.data or synthetic_data(given.out / "data", given.seed)
    data = MicroLens.open(root)
    return root, data, count_clicks(data.train, data.num_items)


def synthetic_data(root: Path, seed: int) -> Path:
    """Data drawn from a known click model."""
    from mmrec.datasets.synthetic import SyntheticConfig, make_synthetic

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


def shared_users(data: MicroLens, counts: ClickCounts) -> torch.Tensor | None:
    """Train's users where they are also valid's; None where ids of users say nothing of valid."""
    share = counts.share_known(read_pairs(data.valid).user)
    known = share >= KNOWN_USERS_SHARE
    print(
        f"train knows the users of {share:.0%} of valid's rows: users "
        f"{'have biases of their own' if known else 'are told apart by their histories alone'}"
    )
    return torch.from_numpy(counts.users) if known else None


def read_items(given: argparse.Namespace, data: MicroLens, world: World) -> ItemTable:
    """Tags and frozen features: ready-made where there are some, else from pictures and titles."""
    features = given.features or (None if given.model else data.features)
    if features is None:
        features = embed(given, data, world)
    else:
        print(f"features: ready-made, from {features}")
    return ItemTable.read(
        data.item_info,
        features,
        image_column=given.image_column,
        text_column=given.text_column,
    )


def embed(given: argparse.Namespace, data: MicroLens, world: World) -> Path:
    """Every cover and caption through frozen CLIP, each rank its share; resumable."""
    from mmrec.embed import OpenClipEncoder, embed_items

    if data.item_feature is None:
        raise InputError(
            f"titles are needed to embed the items, there is no item_feature.parquet in {data.root}"
        )
    model, weights = given.model or "ViT-B-32", given.pretrained or "openai"
    if given.data is None and not given.model:
        model, weights = from_first(lambda: tiny_clip(given.out, given.seed))
        print(
            "encoder: a tiny CLIP made on the spot, trained for a moment on 2,000 synthetic covers "
            "and descriptions that are no items (real data takes ViT-B-32 of OpenAI)"
        )
    encoder = OpenClipEncoder(
        model_name=model, pretrained=weights, device=given.device, precision=given.clip_precision
    )
    workers = given.workers
    if workers is None and world.size > 1:
        workers = max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    names = pq.read_schema(data.item_feature).names
    report = embed_items(
        encoder,
        items=data.item_feature,
        images=data.images,
        out=given.out / "features",
        title_column="item_text" if "item_text" in names else "item_title",
        workers=workers,
        restart=given.restart,
        rank=world.rank,
        world_size=world.size,
        barrier=barrier,
        progress=not given.quiet,
    )
    print(report)
    return Path(given.out / "features")


def tiny_clip(out: Path, seed: int) -> tuple[str, str]:
    """A small encoder that carries signal on the synthetic covers and titles."""
    from mmrec.datasets.synthetic import write_captioned_covers
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

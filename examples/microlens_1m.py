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
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmrec.batch import Batch
from mmrec.cli import run
from mmrec.data.artifacts import write_item_embeddings, write_item_info
from mmrec.data.counts import ClickCounts, count_clicks, read_pairs
from mmrec.data.items import ItemTable
from mmrec.data.loader import Loader, make_loader
from mmrec.data.microlens import MicroLens, to_batch
from mmrec.data.stream import ParquetStream
from mmrec.errors import InputError
from mmrec.files import write_json
from mmrec.models.ranker import Ranker
from mmrec.models.recipes import RECIPES, Recipe, build_ranker, get_recipe
from mmrec.nn.fusion.registry import FUSIONS
from mmrec.predict import predict, write_submission
from mmrec.train.config import TrainConfig
from mmrec.train.evaluate import Scores, score
from mmrec.train.metrics import auc
from mmrec.train.trainer import fit

EMBEDDING_WIDTH = 128
KNOWN_USERS_SHARE = 0.5  # users get biases of their own where train knows most of valid's users


@dataclass(frozen=True)
class Training:
    """What goes with a recipe: how its ranker is trained where the user says nothing."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.0
    embedding_weight_decay: float = 0.0
    schedule: str = "cosine"
    warmup_steps: int = 0


TRAINING = {
    "small": Training(epochs=4, batch_size=512, learning_rate=3e-3, warmup_steps=50),
    "reference": Training(epochs=5, batch_size=128, learning_rate=5e-4, schedule="constant"),
    "reference-fused": Training(epochs=5, batch_size=128, learning_rate=5e-4, schedule="constant"),
}


def main() -> None:
    """Run every stage and report."""
    given = parse()
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
    recipe, config = choose(given, data, counts)
    known_users = shared_users(data, counts)
    with clock("train"):
        ranker, best = train(
            given, data, counts, items, recipe, config, known_users, out / "ranker"
        )
    plain: Scores | None = None
    if not given.no_ablation:
        with clock("train without content"):
            bare = dataclasses.replace(recipe, fusion="none", fusion_options={}, alignment=0.0)
            bare = dataclasses.replace(bare, modality_dropout=0.0, tiers=0)
            _, plain = train(
                given, data, counts, items, bare, config, known_users, out / "ranker_no_content"
            )
    with clock("predict"):
        files = write_files(given, data, ranker, out)
    result = measure(given, data, counts, ranker, best, plain)
    result["seconds"] = clock.seconds
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
    report = embed_items(
        encoder,
        items=data.item_feature,
        images=data.images,
        out=out / "features",
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


def choose(
    given: argparse.Namespace, data: MicroLens, counts: ClickCounts
) -> tuple[Recipe, TrainConfig]:
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


def shared_users(data: MicroLens, counts: ClickCounts) -> torch.Tensor | None:
    """Train's users where they are also valid's; None where ids of users say nothing of valid."""
    share = counts.share_known(read_pairs(data.valid).user)
    known = share >= KNOWN_USERS_SHARE
    print(
        f"train knows the users of {share:.0%} of valid's rows: users "
        f"{'have biases of their own' if known else 'are told apart by their histories alone'}"
    )
    return torch.from_numpy(counts.users) if known else None


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
    size = given.batch_size or TRAINING[given.recipe].batch_size
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
    given: argparse.Namespace, data: MicroLens, ranker: Ranker, out: Path
) -> dict[str, Path]:
    """The embeddings, the enhanced item_info, and the submission."""
    vectors = ranker.items.content_table()
    size = 4 * (given.batch_size or TRAINING[given.recipe].batch_size)
    test = loader(given, data, "test", size, shuffle=False)
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


def measure(
    given: argparse.Namespace,
    data: MicroLens,
    counts: ClickCounts,
    ranker: Ranker,
    scores: Scores,
    plain: Scores | None,
) -> dict[str, Any]:
    """All figures of the run; AUC of unseen items is None where valid has none of them."""
    pairs = read_pairs(data.valid)
    unseen = ~counts.known_items.numpy()[pairs.item]
    label = pairs.label.astype(np.float64)

    def of_unseen(some: Scores) -> float | None:
        both = len(np.unique(label[unseen])) == 2
        return auc(label[unseen], some.logit[unseen]) if both else None

    result: dict[str, Any] = {
        "rows": data.rows,
        "parameters": sum(p.numel() for p in ranker.parameters()),
        "valid": scores.metrics(),
        "baselines": {
            "item_mean": {"auc": auc(label, counts.item_logit(pairs.item))},
            "user_item_mean": {"auc": auc(label, counts.user_item_logit(pairs.user, pairs.item))},
        },
        "no_content": None,
        "auc_unseen_items": of_unseen(scores),
        "unseen_rows": int(unseen.sum()),
        "oracle": oracle(data.root),
        "recipe": given.recipe,
        "seed": given.seed,
    }
    if plain is not None:
        bare = plain.metrics()
        result["no_content"] = {"auc": bare["auc"], "auc_unseen_items": of_unseen(plain)}
    return result


def oracle(root: Path) -> dict[str, float] | None:
    """AUC and logloss of the true click probabilities of valid, for synthetic data."""
    path = root / "synthetic.json"
    if not path.exists():
        return None
    valid: dict[str, float] = json.loads(path.read_text())["oracle"]["valid"]
    return valid


def show(result: dict[str, Any], *, synthetic: bool) -> None:
    """One table."""
    lines: list[tuple[str, str]] = [
        ("rows", ", ".join(f"{k} {v:,}" for k, v in result["rows"].items()))
    ]
    lines.append(("parameters", f"{result['parameters']:,}"))
    valid, bases = result["valid"], result["baselines"]
    lines.append(("valid, item mean", f"AUC {bases['item_mean']['auc']:.4f}"))
    lines.append(("valid, user mean + item mean", f"AUC {bases['user_item_mean']['auc']:.4f}"))
    if result["no_content"]:
        lines.append(("valid, ranker without content", _aucs(result["no_content"])))
    with_unseen = valid | {"auc_unseen_items": result["auc_unseen_items"]}
    lines.append(("valid, ranker", f"{_aucs(with_unseen)}, logloss {valid['logloss']:.4f}"))
    if result["oracle"]:
        truth = result["oracle"]
        best = max(base["auc"] for base in bases.values())
        closed = (valid["auc"] - best) / (truth["auc"] - best)
        lines.append(("valid, oracle", f"AUC {truth['auc']:.4f}, logloss {truth['logloss']:.4f}"))
        lines.append(("gap of best baseline to oracle", f"{closed:.0%} closed by the ranker"))
    lines += [(f"seconds, {stage}", f"{value:.1f}") for stage, value in result["seconds"].items()]
    lines += [(name, path) for name, path in result["files"].items()]
    width = max(len(name) for name, _ in lines)
    print("\nsynthetic data, tiny encoder" if synthetic else "")
    for name, value in lines:
        print(f"{name:<{width}}  {value}")


def _aucs(values: dict[str, Any]) -> str:
    unseen = values["auc_unseen_items"]
    return f"AUC {values['auc']:.4f}" + ("" if unseen is None else f" (unseen items {unseen:.4f})")


class Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - begin, 2)


def clear(out: Path) -> None:
    """Remove what this script writes, and nothing else."""
    for name in ("data", "audit", "encoder", "features", "ranker", "ranker_no_content"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ("custom_item_embeddings.parquet", "item_info.parquet", "metrics.json"):
        (out / name).unlink(missing_ok=True)
    for name in ("prediction.csv", "prediction.zip"):
        (out / name).unlink(missing_ok=True)


def parse() -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    files = parser.add_argument_group("files")
    files.add_argument("--data", type=Path, help="data in the MicroLens layout (synthetic data)")
    files.add_argument("--out", type=Path, default=Path("out"), help="where all results go (out)")
    files.add_argument("--restart", action="store_true", help="begin anew instead of going on")
    files.add_argument("--column", default="Task1&2", help="prediction column (Task1&2)")
    content = parser.add_argument_group("content")
    content.add_argument("--model", help="open_clip model name or config .json (ViT-B-32)")
    content.add_argument("--pretrained", help="its pretrained tag or weights file (openai)")
    content.add_argument(
        "--features", type=Path, help="ready-made feature parquet (DATA/features.parquet if there)"
    )
    content.add_argument(
        "--image-column", default="image_emb", help="its image vectors (image_emb)"
    )
    content.add_argument("--text-column", default="text_emb", help="its text vectors (text_emb)")
    content.add_argument("--clip-precision", default="auto", help="auto, fp32, bf16 or fp16 (auto)")
    content.add_argument("--workers", type=int, help="image decoding processes (one a core)")
    ranker = parser.add_argument_group("ranker")
    ranker.add_argument("--recipe", default="small", choices=sorted(RECIPES), help="sizes (small)")
    ranker.add_argument("--fusion", choices=sorted(FUSIONS), help="how to fuse (the recipe's)")
    ranker.add_argument("--epochs", type=int, help="passes over train, at most (the recipe's)")
    ranker.add_argument("--batch-size", type=int, help="rows of a step (the recipe's)")
    ranker.add_argument("--learning-rate", type=float, help="of Adam (the recipe's)")
    ranker.add_argument(
        "--monitor", default="auc", choices=("auc", "logloss"), help="selects (auc)"
    )
    ranker.add_argument("--seed", type=int, default=0, help="of everything (0)")
    ranker.add_argument("--precision", default="auto", help="auto, float32, bfloat16 or float16")
    ranker.add_argument("--device", default="auto", help="auto, cpu or cuda (auto)")
    ranker.add_argument("--loader-workers", type=int, default=0, help="reading processes (0)")
    ranker.add_argument(
        "--save-every", type=float, default=60.0, help="seconds between checkpoints (60)"
    )
    what = parser.add_argument_group("what to leave out")
    what.add_argument("--no-audit", action="store_true", help="do not audit the data first")
    what.add_argument(
        "--no-ablation", action="store_true", help="do not train the ranker without content"
    )
    what.add_argument("--quiet", action="store_true", help="no progress bars")
    given = parser.parse_args()
    for name in ("epochs", "batch_size", "learning_rate"):
        value = getattr(given, name)
        if value is not None and value <= 0:
            raise InputError(f"--{name.replace('_', '-')} must be positive, got {value}")
    return given


if __name__ == "__main__":
    run(main)

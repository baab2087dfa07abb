"""The command line of `microlens_1m.py`, the training settings of each recipe, what it writes."""

from __future__ import annotations

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path

from mmrec.errors import InputError
from mmrec.models.recipes import RECIPES
from mmrec.nn.fusion.registry import FUSIONS


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
    "small": Training(
        epochs=4,
        batch_size=512,
        learning_rate=2e-3,
        weight_decay=0.01,
        embedding_weight_decay=0.01,
        warmup_steps=50,
    ),
    "light": Training(
        epochs=4,
        batch_size=512,
        learning_rate=1e-3,
        weight_decay=0.01,
        embedding_weight_decay=0.01,
        warmup_steps=50,
    ),
    "reference": Training(epochs=5, batch_size=128, learning_rate=5e-4, schedule="constant"),
    "reference-fused": Training(epochs=5, batch_size=128, learning_rate=5e-4, schedule="constant"),
}

FOLDERS = ("data", "audit", "encoder", "features", "pretrained", "ranker", "ranker_no_content")
FILES = (
    "custom_item_embeddings.parquet",
    "item_info.parquet",
    "prediction.csv",
    "prediction.zip",
    "diagnosis.json",
    "calibration.png",
    "metrics.json",
    "batch_size.json",
)


def clear(out: Path) -> None:
    """Remove what the script writes, and nothing else."""
    for name in FOLDERS:
        shutil.rmtree(out / name, ignore_errors=True)
    for name in FILES:
        (out / name).unlink(missing_ok=True)


def parse(description: str) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
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
    ranker.add_argument(
        "--fusion-training",
        default="end-to-end",
        choices=("end-to-end", "two-stage"),
        help="train the fusion on clicks, or before and without them (end-to-end)",
    )
    ranker.add_argument("--pretrain-epochs", type=int, default=3, help="of two-stage (3)")
    ranker.add_argument("--epochs", type=int, help="passes over train, at most (the recipe's)")
    ranker.add_argument(
        "--batch-size",
        type=rows_of_a_step,
        help="rows of a step over all ranks, or auto: the largest that fit the GPU (the recipe's)",
    )
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
        "--no-diagnosis", action="store_true", help="do not measure what each input carries"
    )
    what.add_argument(
        "--no-ablation", action="store_true", help="do not train the ranker without content"
    )
    what.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser.parse_args()


def rows_of_a_step(text: str) -> int | str:
    """A number, or auto."""
    return text if text == "auto" else int(text)


def check(given: argparse.Namespace) -> None:
    """Refuse numbers that make no sense."""
    for name in ("epochs", "batch_size", "learning_rate"):
        value = getattr(given, name)
        if value not in (None, "auto") and value <= 0:
            raise InputError(f"--{name.replace('_', '-')} must be positive, got {value}")

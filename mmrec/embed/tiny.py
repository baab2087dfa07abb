"""A very small open_clip model, made and trained on the spot, where no weights can be had.

It stands in for real CLIP in tests and in the example on synthetic data. It knows nothing of the
world: only how the pictures it was shown go with their captions.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrec.embed.captions import Captions
from mmrec.embed.clip import encode_trimmed, import_open_clip, quietly
from mmrec.embed.encoder import Preprocessing
from mmrec.embed.forward import torch_threads
from mmrec.embed.items import read_items
from mmrec.embed.pool import TASK_PICTURES, DecodePool, Reading, Task
from mmrec.embed.preprocess import ReadOptions, normalise
from mmrec.errors import InputError
from mmrec.io.files import replacing, write_json

TINY_CONFIG: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {
        "image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8,
    },
    "text_cfg": {
        "context_length": 32, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2,
    },
}  # fmt: skip


class TinyClip(NamedTuple):
    """Two files that `OpenClipEncoder(model_name=config, pretrained=weights)` takes."""

    config: Path
    weights: Path


def make_model(config: dict[str, Any] = TINY_CONFIG, *, seed: int = 0) -> nn.Module:
    """A freshly initialised `open_clip.CLIP` of this config; the same for the same seed."""
    open_clip = import_open_clip()
    with torch.random.fork_rng(devices=[]), quietly():
        torch.manual_seed(seed)
        model: nn.Module = open_clip.CLIP(**config)
    return model


def save_model(
    model: nn.Module, config: dict[str, Any], directory: str | os.PathLike[str]
) -> TinyClip:
    """Write `model.json` (open_clip's config format) and `model.safetensors` into `directory`."""
    from safetensors.torch import save_file

    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    files = TinyClip(config=folder / "model.json", weights=folder / "model.safetensors")
    tensors = {key: value.detach().contiguous() for key, value in model.state_dict().items()}
    with replacing(files.weights) as temporary:
        save_file(tensors, temporary)
    write_json(files.config, config)
    return files


def tiny_clip(folder: Path, pairs: Callable[[], Path], seed: int) -> tuple[str, str]:
    """Config and weights of `train_tiny_clip` in `folder`, trained there if they are not yet.

    Args:
        pairs: makes the folder that holds `item_feature.parquet` and `item_images`.
    """
    if not (folder / "model.json").exists():  # it is written last
        print("encoder: a tiny CLIP, trained here on synthetic covers that are no items")
        made = pairs()
        items, images = made / "item_feature.parquet", made / "item_images"
        train_tiny_clip(items=items, images=images, out=folder, seed=seed)
    return str(folder / "model.json"), str(folder / "model.safetensors")


def train_tiny_clip(
    *,
    items: str | os.PathLike[str],
    images: str | os.PathLike[str],
    out: str | os.PathLike[str],
    seed: int = 0,
    steps: int | None = None,
    batch_size: int = 128,
    captions: Captions | None = None,
    config: dict[str, Any] = TINY_CONFIG,
    learning_rate: float = 2e-3,
    workers: int = 0,
) -> TinyClip:
    """Train a small CLIP on the pictures and captions of `items`, and save it in `out`.

    The loss is CLIP's: in a batch, each picture against all captions and each caption against all
    pictures. Runs on one core; the same seed and data give the same weights.

    Args:
        items, images, captions: as in `embed_items`.
        steps: training steps; None is enough for some 2,000 items in half a minute.
        batch_size: pairs in a step, fewer where there are fewer.
        workers: decoding processes.

    Raises:
        InputError: fewer than two items have both a readable picture and a caption.
    """
    if (steps is not None and steps < 1) or batch_size < 2:
        raise InputError(
            f"steps is at least 1 and batch_size at least 2, got {steps} and {batch_size}"
        )
    captions = captions or Captions()
    table = read_items(items, images=images, captions=captions)
    model = make_model(config, seed=seed)
    open_clip = import_open_clip()
    size = int(config["vision_cfg"]["image_size"])
    preprocessing = Preprocessing(size=(size, size))
    context = int(config["text_cfg"]["context_length"])
    tokenizer = open_clip.SimpleTokenizer(context_length=context)
    reading = Reading({"image": ReadOptions(preprocessing=preprocessing)}, {})
    tasks = (
        Task(modality="image", sources=[s for _, s in some], rows=[row for row, _ in some])
        for some in table.sources(0, len(table), TASK_PICTURES, several=False)
    )
    pixels, words = [], []
    with DecodePool(reading, workers=workers) as pool:
        for task, done in pool.run(tasks):
            for row, picture in zip(task.rows, done.pictures, strict=True):
                if picture.pixels is not None and table.captions[row]:
                    pixels.append(picture.pixels.clone())
                    words.append(table.captions[row])
    if len(pixels) < 2:
        raise InputError(
            f"training an encoder takes at least 2 items with picture and caption, "
            f"got {len(pixels)} of {len(table)} in {table.path}"
        )
    # One thread: sums in one order, whatever the machine; so small a model gains next to nothing.
    with torch.random.fork_rng(devices=[]), torch_threads(1):
        torch.manual_seed(seed)
        _train(
            model,
            torch.stack(pixels),
            tokenizer(words),
            preprocessing,
            steps=200 if steps is None else steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
        )
    return save_model(model, config, out)


def _train(
    model: Any,
    pixels: Tensor,
    tokens: Tensor,
    preprocessing: Preprocessing,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
) -> None:
    """pixels (N, 3, H, W) uint8 and tokens (N, C) int64, pair by pair."""
    # Most of the vocabulary never occurs: train a table of the words that do, and put it back.
    # unique() sorts, so the end-of-text token keeps the highest id and stays the pooled one.
    used, compact = torch.unique(tokens, return_inverse=True)
    whole = model.token_embedding
    model.token_embedding = nn.Embedding(len(used), whole.embedding_dim)
    with torch.no_grad():
        model.token_embedding.weight.copy_(whole.weight[used])
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.02, fused=True
    )
    warm = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, max(0.02, 1 - step / steps))
    )
    model.train()
    for batch in _batches(len(pixels), min(batch_size, len(pixels)), steps):
        image = F.normalize(model.encode_image(normalise(pixels[batch], preprocessing)), dim=-1)
        text = F.normalize(encode_trimmed(model, compact[batch]), dim=-1)
        logits = model.logit_scale.exp() * image @ text.T  # (B, B)
        target = torch.arange(len(batch))
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, 4.6)  # CLIP's bound, ln 100
    with torch.no_grad():
        whole.weight[used] = model.token_embedding.weight
    model.token_embedding = whole
    model.eval()


def _batches(count: int, size: int, steps: int) -> Iterator[Sequence[int]]:
    order: list[int] = []
    for _ in range(steps):
        if len(order) < size:
            order = torch.randperm(count).tolist()
        yield order[:size]
        order = order[size:]

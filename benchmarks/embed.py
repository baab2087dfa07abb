"""Does extraction run at the speed of the slower of decoding and the forward pass?

    python benchmarks/embed.py --model ViT-B-32 --count 300 --name embed   # results/embed.json
    python benchmarks/embed.py --model ViT-B-32 --count 91718 --device cuda     # on a card
    python benchmarks/embed.py --model tiny --images DIR                        # real covers

One run measures decoding alone (all workers, nothing done with the pixels), the forward pass
alone (pixels and tokens ready), and `embed_items` from end to end, with randomly initialised
weights, which take as long as trained ones. Covers are made up, 300 x 400, about 25 kB, unless
`--images` names a folder. Then, on one core, the decoders; and what precision, channels_last and
torch.compile do to the forward pass. Every timing is the best of `--repeat`.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from machine import write_result
from PIL import Image

from mmrec.cli import run
from mmrec.embed import Captions, OpenClipEncoder, TinyClip, embed_items, save_model
from mmrec.embed.items import Catalogue, read_items
from mmrec.embed.pool import TASK_PICTURES, DecodePool, Reading, Task
from mmrec.embed.preprocess import ReadOptions, normalise, read_picture, resize_batch
from mmrec.embed.tiny import TINY_CONFIG, make_model
from mmrec.io.pictures import find_pictures, picture_name

WORDS = ["cat", "dog", "city", "song", "cook", "goal", "lake", "night", "small", "funny", "best"]


def make_covers(folder: Path, count: int) -> None:
    """`count` JPEGs: 400 different ones, told apart beyond that by bytes after their end."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:400, 0:300]
    different = []
    for _ in range(min(count, 400)):
        waves = [np.sin(x / rng.uniform(5, 60) + y / rng.uniform(5, 60)) for _ in range(3)]
        pixels = 127 + 60 * np.stack(waves, axis=-1) + rng.normal(0, 12, (400, 300, 3))
        buffer = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=75)
        different.append(buffer.getvalue())
    for i in range(count):
        (folder / picture_name(i + 1)).write_bytes(different[i % 400] + str(i).encode())


def make_items(path: Path, ids: list[int]) -> None:
    rng = np.random.default_rng(1)
    titles = [" ".join(rng.choice(WORDS, rng.integers(3, 12))) + f" #{i}" for i in ids]
    pq.write_table(pa.table({"item_id": ids, "item_title": titles}), path)


def make_weights(model: str, folder: Path) -> TinyClip:
    """Random weights of `model`, as files."""
    import open_clip

    config = TINY_CONFIG if model == "tiny" else open_clip.get_model_config(model)
    return save_model(make_model(config), config, folder)


def best(repeat: int, work: Callable[[], Any]) -> float:
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def decode_alone(items: Catalogue, options: ReadOptions, workers: int) -> int:
    tasks = (
        Task(modality="image", sources=[source for _, source in some])
        for some in items.sources(0, len(items), TASK_PICTURES)
    )
    with DecodePool(Reading({"image": options}, {}), workers=workers) as pool:
        return sum(len(done.pictures) for _, done in pool.run(tasks))


def forward_alone(
    encoder: OpenClipEncoder, pixels: torch.Tensor, tokens: torch.Tensor, count: int
) -> None:
    """`count` pictures and captions, from batches that lie ready on the device and the host."""
    size = len(pixels)
    for start in range(0, count, size):
        rows = min(size, count - start)
        encoder.encode_image(pixels[:rows])
        encoder.encode_text(tokens[:rows])
    if encoder.device.type == "cuda":
        torch.cuda.synchronize()


def read_all(data: list[bytes], options: ReadOptions) -> None:
    for picture in data:
        read_picture(picture, options)


def one_core(items: Catalogue, options: ReadOptions) -> dict[str, float]:
    """Pictures a second on one core: Pillow or torchvision, resized to the encoder's size."""
    files = [several[0] for several in items.files[:200] if several]
    data = [Path(f).read_bytes() for f in files]
    variants = {
        "pillow": replace(options, torchvision=False, resize_here=True, draft=False),
        "torchvision": replace(options, resize_here=True, draft=False),
        "torchvision, resize left to the device": replace(options, resize_here=False, draft=False),
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rates = {
        name: len(data) / best(3, partial(read_all, data, variant))
        for name, variant in variants.items()
    }
    torch.set_num_threads(threads)
    return rates


def forward_variants(files: TinyClip, device: str, batch: int, repeat: int) -> dict[str, float]:
    """Pictures a second of the image tower, relative to plain float32."""
    variants: dict[str, dict[str, Any]] = {
        "fp32": {"precision": "fp32"},
        "bf16": {"precision": "bf16"},
        "channels_last": {"precision": "fp32", "channels_last": True},
        "compile": {"precision": "fp32", "compile": True},
    }
    if device.startswith("cuda"):
        variants |= {
            "fp16": {"precision": "fp16"},
            "fp16, compile": {"precision": "fp16", "compile": True},
            "fp16, channels_last": {"precision": "fp16", "channels_last": True},
        }
    seconds = {}
    for name, options in variants.items():
        encoder = OpenClipEncoder(
            model_name=files.config, pretrained=files.weights, device=device, **options
        )
        pixels = torch.randn(batch, 3, *encoder.preprocessing.size, device=device)

        def forward(e: OpenClipEncoder = encoder, x: torch.Tensor = pixels) -> None:
            e.encode_image(x)
            if device.startswith("cuda"):
                torch.cuda.synchronize()

        forward()
        seconds[name] = best(max(3, repeat), forward)
    return {name: seconds["fp32"] / value for name, value in seconds.items()}


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    before = {
        "device": torch.cuda.get_device_name() if args.device.startswith("cuda") else "cpu",
        "threads": torch.get_num_threads(),
        "load_average_before": os.getloadavg()[0],
    }
    images = Path(args.images) if args.images else folder / "covers"
    if args.images:
        ids = sorted(find_pictures(images))[: args.count]
    else:
        images.mkdir()
        make_covers(images, args.count)
        ids = list(range(1, args.count + 1))
    make_items(folder / "items.parquet", ids)
    items = read_items(folder / "items.parquet", images=images, captions=Captions())
    files = make_weights(args.model, folder / "weights")
    encoder = OpenClipEncoder(
        model_name=files.config, pretrained=files.weights, device=args.device,
        precision=args.precision,
    )  # fmt: skip
    on_cuda = encoder.device.type == "cuda"
    options = ReadOptions(encoder.preprocessing, resize_here=not on_cuda)
    workers, batch = args.workers, args.batch_size or (256 if on_cuda else 64)
    batch = min(batch, len(ids))

    pictures = [read_picture(several[0], options).pixels for several in items.files[:batch]]
    ready = [p.to(encoder.device) for p in pictures if p is not None]
    pixels = normalise(resize_batch(ready, encoder.preprocessing), encoder.preprocessing)
    tokens = encoder.tokenize(items.captions[: len(pixels)])
    forward_alone(encoder, pixels, tokens, len(pixels))

    repeat = args.repeat
    decode = best(repeat, lambda: decode_alone(items, options, workers))
    forward = best(repeat, lambda: forward_alone(encoder, pixels, tokens, len(ids)))
    reports = [
        embed_items(
            encoder.towers, items=folder / "items.parquet", images=images, out=folder / "out",
            workers=workers, batch_size=batch, restart=True,
        )
        for _ in range(repeat)
    ]  # fmt: skip
    report = min(reports, key=lambda r: r.seconds.total)
    slower = max(decode, forward)
    result = {
        **before,
        "model": args.model,
        "precision": encoder.precision,
        "items": len(ids),
        "workers": workers,
        "batch_size": batch,
        "items_per_second": {
            "decode alone": round(len(ids) / decode, 1),
            "forward alone": round(len(ids) / forward, 1),
            "end to end": round(report.rate, 1),
        },
        "end_to_end_of_the_slower": round(slower / report.seconds.total, 3),
        # On one set of cores decoding and forward pass share the work: no order of doing them
        # can be faster than their sum, unless one leaves cores idle.
        "end_to_end_of_shared_cores": None
        if on_cuda
        else round((decode + forward) / report.seconds.total, 3),
        "seconds": {k: round(v, 2) for k, v in vars(report.seconds).items()},
        "one_core_per_second": {k: round(v) for k, v in one_core(items, options).items()},
    }
    if not args.no_variants:
        batch = batch if on_cuda else min(batch, 16)
        variants = forward_variants(files, args.device, batch, repeat)
        result["forward_variants_batch"] = batch
        result["forward_times_fp32"] = {k: round(v, 2) for k, v in variants.items()}
    return result


def main() -> None:
    p = argparse.ArgumentParser(description="Extraction: decode, forward and end to end.")
    p.add_argument("--model", default="ViT-B-32", help="tiny or an open_clip name; %(default)s")
    p.add_argument("--count", type=int, default=300, help="items; default %(default)s")
    p.add_argument("--images", metavar="DIR", help="real covers, <id>.jpg; default: made up")
    p.add_argument("--device", default="cpu")
    p.add_argument("--precision", default="auto")
    p.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--batch-size", type=int)
    p.add_argument("--repeat", type=int, default=2)
    p.add_argument("--no-variants", action="store_true", help="leave out precision and compile")
    p.add_argument("--name", help="also write the figures to results/NAME.json")
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(args, Path(folder))
    width = max(len(key) for key in result)
    for key, value in result.items():
        rows = value.items() if isinstance(value, dict) else [("", value)]
        for name, figure in rows:
            print(f"{key:<{width}}  {name:<38} {figure}")
            key = ""
    if args.name:
        write_result(args.name, result)


if __name__ == "__main__":
    run(main)

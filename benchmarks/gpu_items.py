"""Steps of `gpu.py` around items and rows: extraction, prediction, the answer to one request.

The encoder has CLIP ViT-B/32's size, torchvision's layers and random weights, so that nothing but
torchvision is needed: its speed is that of the real one, its vectors say nothing.
"""

from __future__ import annotations

import os
import statistics
import time
import zlib
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from embed import make_covers, make_items
from gpu_job import INPUTS, Job
from torch import Tensor, nn

from mmrec.data.clicks import ClickData
from mmrec.data.microlens import MICROLENS
from mmrec.embed import embed_items
from mmrec.embed.encoder import Preprocessing, towers
from mmrec.io.pictures import picture_name
from mmrec.models import Ranker, build_ranker
from mmrec.predict import predict

WORDS = 49_408  # of CLIP's vocabulary
LONGEST = 77  # words of a caption


class RandomTowers:
    """A picture and a caption encoder of ViT-B/32's size: `mmrec.embed.encoder.Pair`."""

    threads: int | None = None

    def __init__(self, device: torch.device, *, small: bool) -> None:
        from torchvision.models import VisionTransformer

        torch.manual_seed(0)
        sizes = (32, 16, 1, 2, 8, 16) if small else (224, 32, 12, 12, 768, 3072)
        side, patch, layers, heads, self.image_dim, hidden = sizes
        picture = VisionTransformer(side, patch, layers, heads, self.image_dim, hidden)
        picture.heads = nn.Identity()
        self.text_dim, heads = (8, 2) if small else (512, 8)
        layer = nn.TransformerEncoderLayer(
            self.text_dim, heads, 4 * self.text_dim, batch_first=True, norm_first=True
        )
        words = nn.Embedding(WORDS, self.text_dim)
        text = nn.Sequential(
            words, nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        )
        self.dtype = torch.float16 if device.type == "cuda" else torch.float32
        self.picture, self.text = (m.to(device, self.dtype).eval() for m in (picture, text))
        self.name, self.device = "random ViT-B/32", device
        self.preprocessing = Preprocessing(size=(side, side))

    def fingerprint(self) -> dict[str, Any]:
        return {"random": [self.image_dim, self.text_dim]}

    def encode_image(self, pixels: Tensor) -> Tensor:
        vectors: Tensor = self.picture(pixels.to(self.dtype))
        return vectors

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """A word's checksum is its token; 0 fills up."""
        rows = [[zlib.crc32(word.encode()) % WORDS for word in c.split()] for c in captions]
        tokens = torch.zeros(len(rows), LONGEST, dtype=torch.int64)
        for place, row in enumerate(rows):
            tokens[place, : len(row[:LONGEST])] = torch.tensor(row[:LONGEST])
        return tokens

    def encode_text(self, tokens: Tensor) -> Tensor:
        vectors: Tensor = self.text(tokens.to(self.device))
        return vectors.mean(1)


def embed(job: Job) -> None:
    """The step "embed": covers and titles to vectors, then each part by itself."""
    began = time.perf_counter()
    covers = write_covers(job.folder / "covers", job.size.covers)
    make_items(job.folder / "covers.parquet", list(range(1, job.size.covers + 1)))
    encoder = RandomTowers(job.device, small=job.small)
    job.note(part="covers made", seconds=time.perf_counter() - began)
    with job.attempt(part="end to end", items=job.size.covers) as row:
        report = embed_items(
            towers(encoder),
            items=job.folder / "covers.parquet",
            images=covers,
            out=job.folder / "embedded",
            workers=0 if job.small else None,
            contact_sheet=0,
        )
        row |= {"seconds": report.seconds.total, "items_per_second": report.rate}
        row["parts_s"] = vars(report.seconds)
    with job.attempt(part="forward alone") as row:
        row |= forward_rate(job, encoder)
    with job.attempt(part="decoding on the device") as row:
        row |= nvjpeg_rate(job, covers)


def write_covers(folder: Path, count: int) -> Path:
    """400 different pictures, the others links to them: what is read and decoded is the same."""
    folder.mkdir()
    drawn = min(count, 400)
    make_covers(folder, drawn)
    for number in range(drawn + 1, count + 1):
        os.link(folder / picture_name((number - 1) % drawn + 1), folder / picture_name(number))
    return folder


def forward_rate(job: Job, encoder: RandomTowers) -> dict[str, Any]:
    """Pictures a second of the encoder alone, pixels ready on the device."""
    rows, turns = (4, 2) if job.small else (256, 40)
    pixels = torch.randn(rows, 3, *encoder.preprocessing.size, device=job.device)
    with torch.inference_mode():
        encoder.encode_image(pixels)
        job.wait()
        began = time.perf_counter()
        for _ in range(turns):
            encoder.encode_image(pixels)
        job.wait()
    return {"pictures_per_second": rows * turns / (time.perf_counter() - began)}


def nvjpeg_rate(job: Job, covers: Path) -> dict[str, Any]:
    """Pictures a second of torchvision's decoder, nvJPEG on a card; one core of the CPU else."""
    from torchvision.io import ImageReadMode, decode_jpeg

    files = sorted(covers.iterdir())[: 4 if job.small else 400]
    data = [torch.frombuffer(bytearray(f.read_bytes()), dtype=torch.uint8) for f in files]
    began = 0.0
    for turn in range(2):  # the first sets up the decoder
        job.wait()
        began = time.perf_counter() if turn else 0.0
        decode_jpeg(data, mode=ImageReadMode.RGB, device=str(job.device))
    job.wait()
    return {"pictures_per_second": len(data) / (time.perf_counter() - began)}


def make_ranker(job: Job, name: str) -> Ranker:
    """With fresh weights: what it says is no matter."""
    torch.manual_seed(0)
    return build_ranker(job.recipe(name), job.items(), INPUTS)


def predictions(job: Job) -> None:
    """The step "predict": every row of test, from parquet to probabilities on the host."""
    for name in ("reference-fused", "small"):
        with job.attempt(recipe=name, rows=job.size.rows[2]) as row:
            data = ClickData.open(job.data, check=False)
            workers, size = 0 if job.small else 8, max(job.size.batches)
            ranker = make_ranker(job, name).to(job.device)
            job.wait()
            began = time.perf_counter()
            loader = data.loader("test", batch_size=size, workers=workers)
            rows, _ = predict(ranker, loader, device=job.device, num_rows=data.rows["test"])
            row |= {"batch": size, "seconds": time.perf_counter() - began, "predicted": len(rows)}


def requests(job: Job) -> None:
    """The step "scorer": milliseconds of one request, a user's history and many candidates."""
    if not find_spec("mmrec.serve"):
        job.note(left_out="this checkout has no mmrec.serve")
        return
    Scorer: Any = import_module("mmrec.serve").Scorer
    many, length, turns = (20, 5, 3) if job.small else (1000, 50, 200)
    draw = torch.Generator().manual_seed(0)
    for name in ("small", "reference-fused"):
        with job.attempt(recipe=name, candidates=many, history=length) as row:
            ranker = make_ranker(job, name).eval().to(job.device)
            scorer = Scorer(ranker, schema=MICROLENS)
            columns = {column.name: 1 for column in MICROLENS.clicks.categorical}
            seconds = []
            for _ in range(turns):
                ids = (1 + torch.randperm(job.size.items - 1, generator=draw)).tolist()
                began = time.perf_counter()
                scorer.top_k(ids[:length], ids[length:][:many], k=10, columns=columns)
                seconds.append(time.perf_counter() - began)
            later = sorted(seconds[turns // 10 :])
            row |= {"median_ms": 1e3 * statistics.median(later), "worst_ms": 1e3 * later[-1]}

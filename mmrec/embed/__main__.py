"""`python -m mmrec.embed`: items and pictures to feature parquet.

python -m mmrec.embed --items item_feature.parquet --images item_images --out features
torchrun --nproc-per-node 4 -m mmrec.embed --items … --images … --out …
"""

import argparse
import importlib
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import cast

import torch

from mmrec.cli import named, program, run
from mmrec.data.microlens import MICROLENS
from mmrec.devices import resolve_device
from mmrec.embed.captions import Captions
from mmrec.embed.clip import PRECISIONS, OpenClipEncoder
from mmrec.embed.encoder import Encoder
from mmrec.embed.extract import DTYPES, RESIZE, SEVERAL, embed_items
from mmrec.errors import InputError, modality_names, require
from mmrec.io.files import require_folder
from mmrec.io.pictures import PLAIN_NAMES
from mmrec.schema import Schema

TOWERS = {"clip-image": "image", "clip-text": "text"}
DEFAULT = ("image=clip-image", "text=clip-text")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog=program("mmrec.embed"),
        description="Embed every item's picture and caption with a frozen CLIP. The same command "
        "again does what is missing and nothing else.",
    )
    a = p.add_argument_group("input and output").add_argument
    a("--items", required=True, metavar="FILE", help="parquet of ids, titles and tags")
    a("--images", metavar="DIR", help="folder with <id>.jpg, or with item_images/ inside")
    a("--out", required=True, metavar="DIR", help="folder for the shards, report and contact sheet")
    a("--schema", type=Path, metavar="FILE", help="schema.json that names columns (MicroLens's)")
    for what in ("id", "title", "tags"):
        a(f"--{what}-column", metavar="NAME", help="instead of the schema's")
    a(
        "--image-column",
        metavar="NAME",
        help="column of --items with the pictures' bytes, or with file names inside --images",
    )
    a(
        "--image-names",
        default=PLAIN_NAMES,
        metavar="TEMPLATE",
        help="names in --images without suffix, {id}_{n} where an item has several; default {id}",
    )
    a(
        "--several",
        default="mean",
        choices=SEVERAL,
        help="of an item with several pictures: the mean of their vectors, or the first's",
    )
    a = p.add_argument_group("encoder").add_argument
    a(
        "--modality",
        action="append",
        metavar="NAME=ENCODER",
        help=f"once for each: {', '.join(TOWERS)} (of --model), or MODULE:FUNCTION, which is "
        f"called with the device and gives an encoder; default {' '.join(DEFAULT)}",
    )
    a("--model", default="ViT-B-32", help="open_clip name or config .json; default %(default)s")
    a("--pretrained", default="openai", help="weights file or open_clip tag; default %(default)s")
    a("--device", default="auto", help="auto, cpu, cuda, cuda:1, …; default %(default)s")
    a("--precision", default="auto", choices=PRECISIONS, help="auto: fp16 on CUDA, else fp32")
    a("--channels-last", action="store_true", help="memory format of the image tower")
    a("--compile", action="store_true", help="torch.compile the image tower")
    a("--caption", default=Captions.template, metavar="TEMPLATE", help="default '%(default)s'")
    a("--tag-prefix", default=Captions.tag_prefix, metavar="TEXT", help="default '%(default)s'")
    a = p.add_argument_group("running").add_argument
    a("--restart", action="store_true", help="start from scratch; removes shards that are there")
    a("--strict", action="store_true", help="stop at the first picture that cannot be used")
    a(
        "--workers",
        type=int,
        metavar="N",
        help="decoding processes; default one a core",
    )
    a("--batch-size", type=int, metavar="N", help="default 256 on CUDA, 64 elsewhere")
    a("--shard-size", type=int, default=4096, metavar="N", help="items; default %(default)s")
    a("--dtype", default="float16", choices=tuple(DTYPES), help="of vectors; default %(default)s")
    a("--resize", default="auto", choices=RESIZE, help="where; auto: on the device if CUDA")
    a("--exif-rotate", action="store_true", help="turn pictures as their EXIF says")
    a("--draft", action="store_true", help="let libjpeg scale large JPEGs while decoding")
    a("--max-pixels", type=int, default=50_000_000, metavar="N", help="default %(default)s")
    a("--quiet", action="store_true", help="no progress bar")
    return p


def main(argv: list[str] | None = None) -> None:
    """Parse, embed, print the report."""
    args = parser().parse_args(argv)
    require_folder(args.out)
    with _ranks() as (rank, world_size, barrier):
        device = args.device
        if device == "auto" and torch.cuda.is_available():
            device = f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"
        device = str(resolve_device(device))
        schema = (Schema.read(args.schema) if args.schema else MICROLENS).items
        for name in ("id", "title", "tags"):
            column = getattr(args, f"{name}_column")
            schema = schema if column is None else replace(schema, **{name: column})
        captions = Captions(template=args.caption, tag_prefix=args.tag_prefix)
        report = embed_items(
            _encoders(args, device),
            items=args.items,
            images=args.images,
            out=args.out,
            captions=captions,
            schema=schema,
            image_column=args.image_column,
            image_names=args.image_names,
            several=args.several,
            shard_size=args.shard_size,
            batch_size=args.batch_size,
            workers=args.workers,
            resize=args.resize,
            dtype=args.dtype,
            exif=args.exif_rotate,
            draft=args.draft,
            max_pixels=args.max_pixels,
            strict=args.strict,
            restart=args.restart,
            rank=rank,
            world_size=world_size,
            barrier=barrier,
            progress=not args.quiet and rank == 0,
        )
        if rank == 0:
            print(report)


def _encoders(args: argparse.Namespace, device: str) -> dict[str, Encoder]:
    """Of each `--modality`: a tower of one CLIP, or what a function of a module gives."""
    wanted, towers = named(args.modality or DEFAULT), {}
    modality_names(wanted)
    # All is looked up before the first weights are read.
    own = {name: _function(name, which) for name, which in wanted.items() if which not in TOWERS}
    if len(own) < len(wanted):
        towers = OpenClipEncoder(
            model_name=args.model,
            pretrained=args.pretrained,
            device=device,
            precision=args.precision,
            channels_last=args.channels_last,
            compile=args.compile,
        ).towers
    made: dict[str, Encoder] = {}
    for name, make in own.items():
        try:
            made[name] = make(device=device)
        except ImportError as error:  # a package that is not there
            raise InputError(f"{wanted[name]} cannot make the encoder of {name}: {error}") from None
    return made | {m: towers[TOWERS[which]] for m, which in wanted.items() if which in TOWERS}


def _function(modality: str, which: str) -> Callable[..., Encoder]:
    """MODULE:FUNCTION, which can be called with a device; a mistake inside it is not ours."""
    module, _, function = which.partition(":")
    rule = (
        f"an encoder is one of {', '.join(TOWERS)}, or MODULE:FUNCTION that can be called with "
        f"device=…, got {which!r} for {modality}"
    )
    good = all(part.isidentifier() for part in (*module.split("."), function))
    try:
        found = getattr(importlib.import_module(module), function, None) if good else None
        require(callable(found), f"{rule}, and there is no such function")
        make = cast("Callable[..., Encoder]", found)
        inspect.signature(make).bind(device="cpu")
    except (ImportError, TypeError) as error:
        raise InputError(f"{rule}: {error}") from None
    return make


@contextmanager
def _ranks() -> Iterator[tuple[int, int, Callable[[], object]]]:
    """(rank, world size, barrier) as torchrun gives them; alone without it."""
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    if world_size == 1:
        yield 0, 1, lambda: None
        return
    import torch.distributed as dist

    if "MASTER_ADDR" not in os.environ:
        raise InputError("WORLD_SIZE is set but MASTER_ADDR is not: start ranks with torchrun")
    # A rank with slow pictures may keep the others waiting for hours; torchrun ends them all if
    # one dies.
    dist.init_process_group("gloo", timeout=timedelta(days=7))
    try:
        yield dist.get_rank(), world_size, dist.barrier
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    run(main)

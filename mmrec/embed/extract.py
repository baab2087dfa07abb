"""All items through a frozen encoder, shard by shard, killed and resumed at any moment.

What comes in goes out as tasks to the pool; what comes back goes into the shard it belongs to.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch

from mmrec.data.microlens import MICROLENS
from mmrec.embed.captions import Captions
from mmrec.embed.encoder import Encoder
from mmrec.embed.forward import Forward, torch_threads
from mmrec.embed.growth import shard_rows
from mmrec.embed.items import Catalogue, read_items
from mmrec.embed.output import CONTACT, Restart, open_output, pending, read_ends, shard_name
from mmrec.embed.pool import TASK_PICTURES, DecodePool, Task
from mmrec.embed.preprocess import ReadOptions
from mmrec.embed.report import EmbedReport, Seconds, gather
from mmrec.embed.shard import Shard, refuse_picture
from mmrec.errors import InputError
from mmrec.io.pictures import MAX_PIXELS
from mmrec.io.progress import Progress
from mmrec.schema import Items

DTYPES = {"float16": torch.float16, "float32": torch.float32}
RESIZE = ("auto", "worker", "device")

T = TypeVar("T")


def embed_items(
    encoder: Encoder,
    *,
    items: str | os.PathLike[str],
    images: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    captions: Captions | None = None,
    schema: Items = MICROLENS.items,
    image_column: str | None = None,
    shard_size: int = 4096,
    batch_size: int | None = None,
    workers: int | None = None,
    resize: str = "auto",
    dtype: str = "float16",
    exif: bool = False,
    draft: bool = False,
    max_pixels: int = MAX_PIXELS,
    strict: bool = False,
    restart: Restart = False,
    rank: int = 0,
    world_size: int = 1,
    barrier: Callable[[], object] = lambda: None,
    contact_sheet: int = 6,
    progress: bool = False,
) -> EmbedReport:
    """Embed every item's picture and caption into parquet shards under `out`.

    Shards that are there are kept; what is missing is done, also where items were added at the end
    of the table. Columns: the
    schema's id, image and text vectors, has_image, has_text, status, note. An item whose picture
    is missing or unreadable falls back to its text alone: has_image is False, `status` says why.

    Args:
        encoder: see `Encoder`; `OpenClipEncoder` for any open_clip model.
        items: parquet of ids, titles and tags.
        images: folder of pictures, or None.
        captions: how title and tags become a caption.
        schema: names of the columns: id, title and tags of `items`, and the modalities "image"
            and "text" of what is written.
        image_column: column of `items` with the pictures' bytes, or with file names.
        shard_size: items in a shard; at most one shard's work is lost when a run is killed.
        batch_size: rows of a forward pass; None is 256 on CUDA, 64 elsewhere.
        workers: decoding processes; 0 decodes in this process, None is one a core, shared between
            the ranks that torchrun started on this machine.
        resize: "worker" resizes on the core that decoded, "device" on the encoder's device;
            "auto" is "device" on CUDA.
        dtype: of the vectors, "float16" or "float32".
        exif: turn pictures as their EXIF says; open_clip's own transform does not.
        draft: let libjpeg scale down JPEGs of several times the encoder's size while decoding.
        max_pixels: larger pictures get the status "too large" before they are decoded.
        strict: raise at the first picture that cannot be used.
        restart: start from scratch instead of resuming; removes the shards that are there.
            "changed" does so only where they were made from something else.
        contact_sheet: rows of _contact.png, items with their nearest neighbours; 0 for none.
        rank, world_size, barrier: this process's share; `barrier()` waits for all of them.

    Raises:
        InputError: bad input, one sentence; also when `out` was made with another encoder,
            captions, items or options.
        OSError: the disk is full, say; finished shards are kept.
    """
    _at_least(1, shard_size=shard_size, batch_size=batch_size, max_pixels=max_pixels)
    _at_least(0, workers=workers)
    _one_of(range(world_size), rank=rank)
    _one_of(RESIZE, resize=resize)
    _one_of(tuple(DTYPES), dtype=dtype)
    begin = time.perf_counter()
    captions = captions or Captions()
    table = read_items(
        items,
        images=images,
        captions=captions,
        schema=schema,
        image_column=image_column,
    )
    on_cuda = encoder.device.type == "cuda"
    options = ReadOptions(
        preprocessing=encoder.preprocessing,
        resize_here=resize == "worker" or (resize == "auto" and not on_cuda),
        max_pixels=max_pixels,
        exif=exif,
        draft=draft,
    )
    identity = {
        "format": 1,
        "encoder": encoder.fingerprint(),
        "captions": captions.fingerprint(),
        "items": table.fingerprint(),
        "columns": [schema.id, *schema.modalities.values()],
        "shard_size": shard_size,
        "dtype": dtype,
        "exif": exif,
        "draft": draft,
        "max_pixels": max_pixels,
    }
    run = _Run(
        encoder,
        table,
        folder=Path(out),
        batch_size=batch_size or (256 if on_cuda else 64),
        dtype=DTYPES[dtype],
        strict=strict,
    )
    with open_output(run.folder, identity, table.fingerprint, restart=restart, first=rank == 0):
        barrier()  # rank 0 has prepared the folder
        run.rows = shard_rows(read_ends(run.folder), shard_size)
        missing = pending(run.folder, run.shards)
        barrier()  # every rank has seen the same folder; now it may change
        if mine := missing[rank::world_size]:
            pool = DecodePool(
                options=options,
                tokenize=encoder.tokenize,
                workers=_share_of_cores() if workers is None else workers,
            )
            with pool, torch_threads(encoder.threads):
                run.make(mine, pool, progress=progress)
        barrier()  # all shards are there
        run.seconds.total = time.perf_counter() - begin
        report = run.report(shards_before=run.shards - len(missing))
        if strict and report.problems:
            refuse_picture(*report.problems[0], len(report.problems))
        if rank == 0:
            report.write()
            if contact_sheet:
                from mmrec.embed.sheet import draw_sheet  # a command of its own, run as a module

                png = run.folder / CONTACT
                draw_sheet(run.folder, table, png, rows=contact_sheet, max_pixels=max_pixels)
    return report


@dataclass
class _Run:
    """One rank's shards: tasks to the pool, results to the forward pass, vectors to the writer."""

    encoder: Encoder
    table: Catalogue
    folder: Path
    batch_size: int
    dtype: torch.dtype
    strict: bool
    rows: list[range] = field(default_factory=list)
    seconds: Seconds = field(default_factory=Seconds)
    items: int = 0
    images: int = 0
    texts: int = 0

    @property
    def shards(self) -> int:
        """How many there are in the end, of all ranks."""
        return len(self.rows)

    def make(self, mine: Sequence[int], pool: DecodePool, *, progress: bool) -> None:
        """Make the shards `mine`, in order."""
        tasks = (task for shard in mine for task in self._tasks(shard))
        total = sum(len(self.rows[shard]) for shard in mine)
        bar = Progress(total=total, unit="item", desc="embed", shown=progress, smoothing=0.1)
        with bar, ThreadPoolExecutor(1, thread_name_prefix="shard-writer") as writer:
            writing: Future[None] | None = None
            shard: Shard | None = None
            for task, done in self._waiting(pool.run(tasks)):
                shard = shard or self._begin(task.shard)
                if done.tokens is not None:
                    self.seconds.tokenize += done.seconds
                    shard.add_captions(task.captions, done.tokens)
                else:
                    self.seconds.decode += done.seconds
                    shard.add_pictures(task.start, done.pictures)
                    bar.update(len(done.pictures))
                if task.last:
                    write = shard.finish()
                    self.items += len(shard.rows)
                    self.images += len(shard.pictures)
                    self.texts += len(shard.captions)
                    shard = None
                    if writing is not None:
                        writing.result()  # at most one shard waits to be written
                    writing = writer.submit(write)
            if writing is not None:
                writing.result()

    def report(self, *, shards_before: int) -> EmbedReport:
        """On the whole output, and on what this rank did."""
        return gather(
            self.folder,
            encoder=self.encoder.name,
            image_dim=self.encoder.image_dim,
            text_dim=self.encoder.text_dim,
            shards=self.shards,
            shards_before=shards_before,
            items_now=self.items,
            encoded_images=self.images,
            encoded_texts=self.texts,
            seconds=self.seconds,
        )

    def _begin(self, index: int) -> Shard:
        rows = self.rows[index]
        return Shard(
            self.table,
            rows,
            path=self.folder / shard_name(index, self.shards),
            forward=Forward(
                self.encoder,
                rows=len(rows),
                batch_size=self.batch_size,
                dtype=self.dtype,
                seconds=self.seconds,
            ),
            strict=self.strict,
            seconds=self.seconds,
        )

    def _tasks(self, shard: int) -> Iterator[Task]:
        """Each distinct caption once, then all pictures in order."""
        rows = self.rows[shard]
        distinct = {caption for caption in self.table.captions[rows.start : rows.stop] if caption}
        # Short captions together: a batch of text is as wide as its longest caption.
        ordered = sorted(distinct, key=lambda caption: (len(caption), caption))
        for start in range(0, len(ordered), self.batch_size):
            yield Task(captions=ordered[start : start + self.batch_size], shard=shard)
        start = 0
        for sources in self.table.sources(rows.start, rows.stop, TASK_PICTURES):
            stop = start + len(sources)
            yield Task(sources=sources, start=start, shard=shard, last=stop == len(rows))
            start = stop

    def _waiting(self, results: Iterator[T]) -> Iterator[T]:
        while True:
            with self.seconds.timed("wait"):
                result = next(results, None)
            if result is None:
                return
            yield result


def _share_of_cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def _at_least(least: int, **options: int | None) -> None:
    for name, value in options.items():
        if value is not None and value < least:
            raise InputError(f"{name} is at least {least}, got {value}")


def _one_of(choices: Sequence[object], **option: object) -> None:
    for name, value in option.items():
        if value not in choices:
            raise InputError(f"{name} is one of {choices}, got {value!r}")

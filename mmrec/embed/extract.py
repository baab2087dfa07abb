"""All items through a frozen encoder, shard by shard, killed and resumed at any moment.

What comes in goes out as tasks to the pool; what comes back goes into the shard it belongs to.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from mmrec.embed.captions import Captions
from mmrec.embed.encoder import Encoder
from mmrec.embed.forward import Forward
from mmrec.embed.images import ReadOptions
from mmrec.embed.items import Items, read_items, stored_bytes
from mmrec.embed.pool import CHUNK, DecodePool, Done, Task
from mmrec.embed.report import EmbedReport, Seconds, gather
from mmrec.embed.shard import Shard, refuse_picture
from mmrec.embed.shards import CONTACT, open_output, pending, shard_name
from mmrec.embed.sheet import draw_sheet
from mmrec.errors import InputError

DTYPES = {"float16": torch.float16, "float32": torch.float32}
RESIZE = ("auto", "worker", "device")
_LIGHT = 5_000_000  # parameters of an image tower that is faster on one thread beside decoders


@dataclass(frozen=True)
class _Tag:
    """What a task belongs to: a shard, and rows of it."""

    shard: int
    rows: tuple[int, ...]
    last: bool


def embed_items(
    encoder: Encoder,
    *,
    items: str | os.PathLike[str],
    images: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    captions: Captions | None = None,
    id_column: str = "item_id",
    title_column: str = "item_title",
    tags_column: str = "item_tags",
    image_column: str | None = None,
    shard_size: int = 4096,
    batch_size: int | None = None,
    workers: int | None = None,
    resize: str = "auto",
    dtype: str = "float16",
    exif: bool = False,
    draft: bool = False,
    max_pixels: int = 50_000_000,
    strict: bool = False,
    restart: bool = False,
    rank: int = 0,
    world_size: int = 1,
    barrier: Callable[[], None] | None = None,
    contact_sheet: int = 6,
    progress: bool = False,
) -> EmbedReport:
    """Embed every item's picture and caption into parquet shards under `out`.

    Shards that are there are kept; what is missing is done. Columns: item_id, image_emb,
    text_emb, has_image, has_text, status, note. An item whose picture is missing or unreadable
    falls back to its text alone: has_image is False, `status` says why.

    Args:
        encoder: see `Encoder`; `OpenClipEncoder` for any open_clip model.
        items: parquet of ids, titles and tags.
        images: folder of pictures, or None.
        captions: how title and tags become a caption.
        image_column: column of `items` with the pictures' bytes, or with file names.
        shard_size: items in a shard; at most one shard's work is lost when a run is killed.
        batch_size: rows of a forward pass; None is 256 on CUDA, 64 elsewhere.
        workers: decoding processes; None is one a core, 0 decodes in this process.
        resize: "worker" resizes on the core that decoded, "device" on the encoder's device;
            "auto" is "device" on CUDA.
        dtype: of the vectors, "float16" or "float32".
        exif: turn pictures as their EXIF says; open_clip's own transform does not.
        draft: let libjpeg scale down JPEGs of several times the encoder's size while decoding.
        max_pixels: larger pictures get the status "too large" before they are decoded.
        strict: raise at the first picture that cannot be used.
        restart: begin anew instead of going on.
        contact_sheet: rows of contact.png, items with their nearest neighbours; 0 for none.
        rank, world_size, barrier: this process's share; `barrier()` waits for all of them.

    Raises:
        InputError: bad input, one sentence; also when `out` was made with another encoder,
            captions, items or options.
        OSError: the disk is full, say; finished shards are kept.
    """
    _check(shard_size, batch_size, workers, resize, dtype, rank, world_size, max_pixels)
    wait_for_all = barrier or (lambda: None)
    begin = time.perf_counter()
    captions = captions or Captions()
    table = read_items(
        items,
        images=images,
        captions=captions,
        id_column=id_column,
        title_column=title_column,
        tags_column=tags_column,
        image_column=image_column,
    )
    on_cuda = encoder.device.type == "cuda"
    options = ReadOptions(
        preprocessing=encoder.preprocessing,
        fit_here=resize == "worker" or (resize == "auto" and not on_cuda),
        max_pixels=max_pixels,
        exif=exif,
        draft=draft,
    )
    identity = {
        "format": 1,
        "encoder": encoder.fingerprint(),
        "captions": captions.fingerprint(),
        "items": table.fingerprint(),
        "shard_size": shard_size,
        "dtype": dtype,
        "exif": exif,
        "draft": draft,
        "max_pixels": max_pixels,
    }
    folder = Path(out)
    count = -(-len(table) // shard_size)
    seconds = Seconds()
    with open_output(folder, identity, restart=restart, first=rank == 0):
        wait_for_all()  # rank 0 has prepared the folder
        missing = pending(folder, count)
        wait_for_all()  # every rank has seen the same folder; now it may change
        mine = missing[rank::world_size]
        run = _Run(encoder, table, options, folder, shard_size, count, dtype, strict, seconds)
        if mine:
            if workers is None:
                workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
            with _threads(1 if on_cuda or _is_light(encoder) else None):
                run.shards(mine, batch_size or (256 if on_cuda else 64), workers, progress)
        wait_for_all()  # all shards are there
        seconds.total = time.perf_counter() - begin
        report = gather(
            folder,
            encoder=encoder.name,
            image_dim=encoder.image_dim,
            text_dim=encoder.text_dim,
            shards=count,
            shards_before=count - len(missing),
            items_now=run.items_now,
            encoded_images=run.encoded_images,
            encoded_texts=run.encoded_texts,
            seconds=seconds,
        )
        if strict and report.problems:
            refuse_picture(*report.problems[0], len(report.problems))
        if rank == 0:
            report.write()
            if contact_sheet:
                draw_sheet(folder, table, folder / CONTACT, rows=contact_sheet)
    return report


class _Run:
    """One rank's shards: tasks to the pool, results to the forward pass, vectors to the writer."""

    def __init__(
        self,
        encoder: Encoder,
        table: Items,
        options: ReadOptions,
        out: Path,
        shard_size: int,
        count: int,
        dtype: str,
        strict: bool,
        seconds: Seconds,
    ) -> None:
        self._encoder, self._table, self._options = encoder, table, options
        self._out, self._shard_size, self._count = out, shard_size, count
        self._dtype, self._strict, self._seconds = DTYPES[dtype], strict, seconds
        self.items_now = self.encoded_images = self.encoded_texts = 0

    def shards(self, mine: Sequence[int], batch_size: int, workers: int, progress: bool) -> None:
        """Do the shards `mine`, in order."""
        pool = DecodePool(options=self._options, tokenize=self._encoder.tokenize, workers=workers)
        total = sum(len(self._rows(shard)) for shard in mine)
        bar = tqdm(total=total, unit="item", desc="embed", disable=not progress, smoothing=0.1)
        with pool, bar, ThreadPoolExecutor(1, thread_name_prefix="shard-writer") as writer:
            writing: Future[None] | None = None
            work: Shard | None = None
            for done in self._wait(pool.run(self._tasks(mine, batch_size))):
                tag = done.tag
                assert isinstance(tag, _Tag)
                if work is None:
                    work = self._begin(tag.shard, batch_size)
                if done.tokens is not None:
                    self._seconds.tokenize += done.seconds
                    work.add_captions(tag.rows, done.tokens)
                else:
                    self._seconds.decode += done.seconds
                    work.add_pictures(tag.rows, done.pictures)
                    bar.update(len(tag.rows))
                if tag.last:
                    write = self._finish(work)
                    if writing is not None:
                        writing.result()  # at most one shard waits to be written
                    writing = writer.submit(write)
                    work = None
            if writing is not None:
                writing.result()

    def _begin(self, index: int, batch_size: int) -> Shard:
        return Shard(
            self._table,
            self._rows(index),
            path=self._out / shard_name(index, self._count),
            forward=Forward(self._encoder, batch_size, self._dtype, self._seconds),
            strict=self._strict,
            seconds=self._seconds,
        )

    def _finish(self, shard: Shard) -> Callable[[], None]:
        write = shard.finish()
        self.items_now += shard.items
        self.encoded_images += shard.pictures
        self.encoded_texts += shard.captions
        return write

    def _wait(self, results: Iterator[Done]) -> Iterator[Done]:
        while True:
            start = time.perf_counter()
            done = next(results, None)
            self._seconds.wait += time.perf_counter() - start
            if done is None:
                return
            yield done

    def _rows(self, shard: int) -> range:
        start = shard * self._shard_size
        return range(start, min(start + self._shard_size, len(self._table)))

    def _tasks(self, mine: Sequence[int], batch_size: int) -> Iterator[Task]:
        for shard in mine:
            rows = self._rows(shard)
            distinct: dict[str, list[int]] = {}
            for row in rows:
                caption = self._table.captions[row]
                if caption:
                    distinct.setdefault(caption, []).append(row - rows.start)
            # Short captions together: a batch of text is as wide as its longest caption.
            ordered = sorted(distinct, key=lambda caption: (len(caption), caption))
            for start in range(0, len(ordered), batch_size):
                batch = ordered[start : start + batch_size]
                first = tuple(distinct[caption][0] for caption in batch)
                yield Task(tag=_Tag(shard, first, False), captions=batch)
            for start, sources in self._sources(rows):
                stop = start + len(sources)
                tag = _Tag(shard, tuple(range(start, stop)), stop == len(rows))
                yield Task(tag=tag, sources=sources)

    def _sources(self, rows: range) -> Iterator[tuple[int, Sequence[str | bytes | None]]]:
        if self._table.image_column is not None:
            start = 0
            column = self._table.image_column
            for part in stored_bytes(self._table.path, column, rows.start, rows.stop, CHUNK):
                yield start, part
                start += len(part)
            return
        for start in range(0, len(rows), CHUNK):
            stop = min(start + CHUNK, len(rows))
            yield start, self._table.sources(rows.start + start, rows.start + stop)


def _is_light(encoder: Encoder) -> bool:
    """Whether a second thread would cost more than it gives.

    On the CPU, threads of a small model spin at every barrier while decoding wants their cores;
    measured, they made the tiny model's forward pass five times slower. The choice depends on
    the model alone, never on timings: the number of threads can change the last bit.
    """
    model = getattr(encoder, "model", None)
    tower = getattr(model, "visual", None)
    if not isinstance(tower, torch.nn.Module):
        return False
    return sum(parameter.numel() for parameter in tower.parameters()) < _LIGHT


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check(
    shard_size: int,
    batch_size: int | None,
    workers: int | None,
    resize: str,
    dtype: str,
    rank: int,
    world_size: int,
    max_pixels: int,
) -> None:
    for name, value, least in (
        ("shard_size", shard_size, 1),
        ("batch_size", batch_size, 1),
        ("workers", workers, 0),
        ("world_size", world_size, 1),
        ("max_pixels", max_pixels, 1),
    ):
        if value is not None and value < least:
            raise InputError(f"{name} is at least {least}, got {value}")
    if not 0 <= rank < world_size:
        raise InputError(f"rank is in 0..{world_size - 1}, got {rank}")
    if resize not in RESIZE:
        raise InputError(f"resize is one of {RESIZE}, got {resize!r}")
    if dtype not in DTYPES:
        raise InputError(f"dtype is one of {tuple(DTYPES)}, got {dtype!r}")

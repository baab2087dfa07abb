"""All items through frozen encoders, shard by shard, killed and resumed at any moment.

What comes in goes out as tasks to the pool; what comes back goes into the shard it belongs to.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from mmrec.data.microlens import MICROLENS
from mmrec.embed.captions import Captions
from mmrec.embed.encoder import Encoder, PictureEncoder, ValueEncoder
from mmrec.embed.forward import Forward, torch_threads
from mmrec.embed.items import Catalogue, read_items
from mmrec.embed.output import (
    BESIDE,
    CONTACT,
    Restart,
    column_names,
    open_output,
    pending,
    read_ends,
    shard_name,
    shard_rows,
)
from mmrec.embed.pool import TASK_PICTURES, DecodePool, Reading, Task
from mmrec.embed.preprocess import ReadOptions
from mmrec.embed.report import EmbedReport, Seconds, gather
from mmrec.embed.shard import Shard, refuse_picture
from mmrec.errors import InputError, modality_names, positive, require
from mmrec.io.pictures import MAX_PIXELS, PLAIN_NAMES
from mmrec.io.progress import Progress
from mmrec.schema import Items

DTYPES = {"float16": torch.float16, "float32": torch.float32}
RESIZE = ("auto", "worker", "device")
SEVERAL = ("mean", "first")

T = TypeVar("T")


def embed_items(
    encoders: Mapping[str, Encoder],
    *,
    items: str | os.PathLike[str],
    images: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    captions: Captions | None = None,
    schema: Items = MICROLENS.items,
    image_column: str | None = None,
    image_names: str = PLAIN_NAMES,
    several: str = "mean",
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
    """Embed every item's pictures, caption and other values into parquet shards under `out`.

    Shards that are there are kept; what is missing is done, also where items were added at the end
    of the table. Columns: the schema's id, a column of vectors for each modality, a mask
    `has_<modality>` for each, status, note. An item whose picture is missing or unreadable falls
    back to its other modalities: the mask is False, `status` says why.

    Args:
        encoders: name of each modality -> what encodes it, see `Encoder`;
            `OpenClipEncoder(...).towers` for any open_clip model.
        items: parquet of ids, titles and tags.
        images: folder of pictures, or None.
        captions: how title and tags become a caption.
        schema: names of the columns: id, title and tags of `items`, and those of the modalities
            that are written (a modality that it does not name is called as itself).
        image_column: column of `items` with the pictures' bytes, or with file names; or with lists
            of them.
        image_names: template of the names in `images`: "{id}", or "{id}_{n}" of several an item.
        several: of an item with several pictures, the "mean" of their vectors, or the "first".
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
    _one_of(SEVERAL, several=several)
    encoders = _checked(encoders, schema)
    begin = time.perf_counter()
    captions = captions or Captions()
    table = read_items(
        items,
        images=images,
        captions=captions,
        schema=schema,
        image_column=image_column,
        image_names=image_names,
        columns=_columns(encoders),
    )
    on_cuda = any(encoder.device.type == "cuda" for encoder in encoders.values())
    options: dict[str, Any] = {"max_pixels": max_pixels, "exif": exif, "draft": draft}
    options["resize_here"] = resize == "worker" or (resize == "auto" and not on_cuda)
    identity = {
        "format": 2,
        "encoders": {name: encoder.fingerprint() for name, encoder in encoders.items()},
        "captions": captions.fingerprint(),
        "items": table.fingerprint(),
        "columns": column_names(schema, encoders),
        "several": several,
        "shard_size": shard_size,
        "dtype": dtype,
        "exif": exif,
        "draft": draft,
        "max_pixels": max_pixels,
    }
    run = _Run(
        encoders,
        table,
        folder=Path(out),
        batch_size=batch_size or (256 if on_cuda else 64),
        dtype=DTYPES[dtype],
        strict=strict,
        several=several == "mean",
    )
    with open_output(run.folder, identity, table.fingerprint, restart=restart, first=rank == 0):
        barrier()  # rank 0 has prepared the folder
        run.rows = shard_rows(read_ends(run.folder), shard_size)
        missing = pending(run.folder, run.shards)
        barrier()  # every rank has seen the same folder; now it may change
        if mine := missing[rank::world_size]:
            pool = DecodePool(
                _reading(encoders, options),
                workers=_share_of_cores() if workers is None else workers,
            )
            with pool, torch_threads(_threads(encoders)):
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

    encoders: Mapping[str, Encoder]
    table: Catalogue
    folder: Path
    batch_size: int
    dtype: torch.dtype
    strict: bool
    several: bool
    rows: list[range] = field(default_factory=list)
    seconds: Seconds = field(default_factory=Seconds)
    items: int = 0
    encoded: Counter[str] = field(default_factory=Counter)

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
            shown = 0  # items of this shard that the bar counts
            for task, done in self._waiting(pool.run(tasks)):
                shard = shard or self._begin(task.shard)
                if done.prepared is not None:
                    self.seconds.tokenize += done.seconds
                    shard.add_values(task.modality, task.values, done.prepared)
                elif task.sources:
                    self.seconds.decode += done.seconds
                    shard.add_pictures(task.modality, task.rows, done.pictures)
                    if task.modality == self.last_pictures:
                        bar.update(task.rows[-1] + 1 - shown)
                        shown = task.rows[-1] + 1
                if task.last:
                    bar.update(len(shard.rows) - shown)
                    shown = 0
                    write = self._finish(shard)
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
            encoders={name: encoder.name for name, encoder in self.encoders.items()},
            dims={name: encoder.out_dim for name, encoder in self.encoders.items()},
            shards=self.shards,
            shards_before=shards_before,
            items_now=self.items,
            encoded={name: self.encoded[name] for name in self.encoders},
            seconds=self.seconds,
        )

    def _begin(self, index: int) -> Shard:
        rows = self.rows[index]
        return Shard(
            self.table,
            rows,
            path=self.folder / shard_name(index, self.shards),
            forwards={
                name: Forward(
                    encoder,
                    rows=len(rows),
                    batch_size=self.batch_size,
                    dtype=self.dtype,
                    seconds=self.seconds,
                )
                for name, encoder in self.encoders.items()
            },
            strict=self.strict,
            seconds=self.seconds,
        )

    def _finish(self, shard: Shard) -> Callable[[], None]:
        for name in self.value_encoders:
            shard.add_rows(name, self._values(name, shard.rows))
        write = shard.finish()
        self.items += len(shard.rows)
        self.encoded.update(shard.encoded)
        return write

    @property
    def value_encoders(self) -> dict[str, ValueEncoder]:
        """Those that do not read pictures."""
        return {n: e for n, e in self.encoders.items() if not isinstance(e, PictureEncoder)}  # type: ignore[misc]

    @property
    def last_pictures(self) -> str | None:
        """The modality whose pictures are read last."""
        found = [name for name in self.encoders if name not in self.value_encoders]
        return found[-1] if found else None

    def _values(self, modality: str, rows: range) -> list[Any]:
        """Of each row, None where it has none."""
        column = self.value_encoders[modality].column
        if column is None:
            return [caption or None for caption in self.table.captions[rows.start : rows.stop]]
        return self.table.values[column][rows.start : rows.stop]

    def _tasks(self, index: int) -> Iterator[Task]:
        """Each distinct value once, then all pictures in order; the last one says so."""
        waiting = Task(shard=index)
        for task in self._all_tasks(index):
            if waiting.values or waiting.sources:
                yield waiting
            waiting = task
        yield replace(waiting, last=True)

    def _all_tasks(self, index: int) -> Iterator[Task]:
        rows = self.rows[index]
        for name in self.value_encoders:
            distinct = set(self._values(name, rows)) - {None}
            # Short captions together: a batch of text is as wide as its longest caption.
            ordered = sorted(distinct, key=lambda value: (len(str(value)), str(value)))
            for start in range(0, len(ordered), self.batch_size):
                values = ordered[start : start + self.batch_size]
                yield Task(modality=name, values=values, shard=index)
        for name in self.encoders:
            if name in self.value_encoders:
                continue
            found = self.table.sources(rows.start, rows.stop, TASK_PICTURES, several=self.several)
            for part in found:
                places, sources = [row for row, _ in part], [source for _, source in part]
                yield Task(modality=name, sources=sources, rows=places, shard=index)

    def _waiting(self, results: Iterator[T]) -> Iterator[T]:
        while True:
            with self.seconds.timed("wait"):
                result = next(results, None)
            if result is None:
                return
            yield result


def _checked(encoders: Mapping[str, Encoder], schema: Items) -> dict[str, Encoder]:
    """In the order of the modalities' names."""
    require(encoders, "embedding needs an encoder of a modality or more, got none")
    modality_names(encoders)
    for name, encoder in encoders.items():
        require(
            isinstance(encoder, PictureEncoder | ValueEncoder),
            "an encoder has the members of mmrec.embed.PictureEncoder or ValueEncoder, and "
            f"{type(encoder).__name__} of {name} lacks some (towers of an OpenClipEncoder are its "
            "`towers`)",
        )
        positive(**{f"out_dim of the encoder of {name}": encoder.out_dim})
        require(
            isinstance(encoder.device, torch.device),
            f"device of the encoder of {name} must be a torch.device, got {encoder.device!r}",
        )
    written = [*column_names(schema, encoders), *(f"has_{name}" for name in encoders)]
    for name, count in Counter([*written, *BESIDE]).items():
        require(
            count == 1,
            f"the columns of an output have names of their own, got {name} {count} times: call "
            "the modality otherwise, or give it another column in the schema's modalities",
        )
    return dict(sorted(encoders.items()))


def _columns(encoders: Mapping[str, Encoder]) -> list[str]:
    """What encoders read beside captions and pictures, each once."""
    columns = [getattr(encoder, "column", None) for encoder in encoders.values()]
    return list(dict.fromkeys(column for column in columns if column is not None))


def _reading(encoders: Mapping[str, Encoder], options: Mapping[str, Any]) -> Reading:
    pictures, values = {}, {}
    for name, encoder in encoders.items():
        if isinstance(encoder, PictureEncoder):
            pictures[name] = ReadOptions(preprocessing=encoder.preprocessing, **options)
        elif isinstance(encoder, ValueEncoder):
            values[name] = encoder.prepare
    return Reading(pictures, values)


def _threads(encoders: Mapping[str, Encoder]) -> int | None:
    """The fewest that one of them asks for."""
    wanted = [encoder.threads for encoder in encoders.values() if encoder.threads is not None]
    return min(wanted, default=None)


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

"""`ParquetStream`: parquet as ready batches, in an order that depends on (seed, epoch) alone."""

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar, cast

import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from mmrec.errors import InputError, require, whole
from mmrec.io.identity import require_same
from mmrec.io.paths import Paths
from mmrec.io.sources import open_sources
from mmrec.stream.batches import Arrays, Reader, read_batches
from mmrec.stream.decode import plan_columns
from mmrec.stream.manifest import check_against_manifest
from mmrec.stream.partition import Plan, Spec, choose_lanes, lane_window
from mmrec.stream.ring import BatchTensors, Ring, Writer, Written, shared
from mmrec.stream.rows import RowGroups

T = TypeVar("T")


class CoarseShuffle(UserWarning):
    """Row groups are too large to be shuffled well."""


FORMAT = 1  # of the order; a change of it makes older positions unusable
WINDOW = 1 << 18


class ParquetStream(IterableDataset[T], Generic[T]):
    """Batches of the rows of parquet files, streamed in bounded memory.

    Which rows the k-th global batch of an epoch holds is a function of the files, `batch_size`,
    `window`, `lanes`, `seed` and the epoch; ranks, workers and prefetch never change it. Each
    rank yields its part of every global batch, so all ranks yield `len(stream)` batches.

    Every batch is a dict of tensors, or what `collate` makes of it: each column as int64, float32
    or bool, of shape (B,) or, for lists, (B, width) with the last entries kept and padding 0 on
    the left; and `"row"`, (B,) int64, the row's number counted over the files in order.

    Iterate it as it is, through `mmrec.stream.loader.make_loader`, or through
    `DataLoader(stream, batch_size=None, num_workers=…)`. Each iteration is the next epoch, unless
    `set_epoch` or `seek` say another; with workers of a plain DataLoader they must.

    Args:
        paths: a file, a directory, a glob or a list of them; local or fsspec URLs.
        batch_size: rows of a global batch, over all ranks.
        columns: which to read; by default all.
        list_widths: width of list columns. A list column that is not named here must have the
            same length in every row.
        pads: what stands on the left of shorter lists; by default 0.
        missing: columns of numbers in which null stands for a missing one; they come as float32
            with NaN in its place.
        collate: called with the dict of each batch; must be picklable for worker processes.
        shuffle: shuffle row groups, and rows within windows; False keeps file order.
        seed: of the shuffle.
        window: rows that are held decoded, over all ranks and workers together. More of them
            shuffle better and take more memory.
        lanes: (T, P): with P a multiple of the world size and T of the number of workers, no row
            group is read twice. By default (4, 4) when shuffling; (1, 1), which is file order,
            when not. Few or uneven row groups lower it.
        drop_last: leave out the last batch when it is short.
        rank, world_size: this process among those that train together.
        row_filter: a pyarrow expression (`pyarrow.compute.field("label") == 1`) or the tuples that
            pyarrow takes as `filters`; evaluated once, when the stream is made. Rows keep their
            numbers.
        checksums: verify page checksums where files have them.
        verify: also compare each file with the SHA-256 in the manifest beside it (reads it all).
        threads: that decode ahead, 0 to 2; worker processes have none.

    Raises:
        InputError: naming file, and where it applies row group, row and column.

    The last batch may be short: B mod batch_size rows, of which a rank may get none when there
    are fewer than ranks; then it yields a batch of 0 rows, so that all ranks stay in step.
    """

    def __init__(
        self,
        paths: Paths,
        *,
        batch_size: int,
        columns: Sequence[str] | None = None,
        list_widths: Mapping[str, int] | None = None,
        pads: Mapping[str, int] | None = None,
        missing: Collection[str] = (),
        collate: Callable[[dict[str, Tensor]], T] | None = None,
        shuffle: bool = False,
        seed: int = 0,
        window: int = WINDOW,
        lanes: tuple[int, int] | None = None,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
        row_filter: Any = None,
        checksums: bool = True,
        verify: bool = False,
        threads: int = 2,
    ) -> None:
        super().__init__()
        spec = Spec(
            batch_size=whole("batch_size", batch_size),
            window=whole("window", window),
            lanes=_two_lanes(lanes or ((4, 4) if shuffle else (1, 1))),
            seed=whole("seed", seed),
            shuffle=bool(shuffle),
            drop_last=bool(drop_last),
        )
        rank, world_size = whole("rank", rank), whole("world_size", world_size)
        _check(spec, rank, world_size)
        require(threads in (0, 1, 2), f"threads must be 0, 1 or 2, got {threads!r}")
        row_filter = _expression(row_filter)
        sources = open_sources(paths)
        check_against_manifest(paths, sources, verify=verify)
        planned = plan_columns(sources, columns, list_widths or {}, pads or {}, missing)
        self._groups = RowGroups.of(sources, planned, row_filter, checksums)
        self._tensors = BatchTensors.of(planned)
        self._spec, self._lanes = spec, choose_lanes(self._groups.sizes, spec)
        self._collate, self._filter, self._threads = collate, row_filter, threads
        self.rank, self.world_size = rank, world_size
        self._spare: list[Arrays] = []  # of an earlier epoch, to be used again
        # (epoch, batch to begin with), in shared memory: persistent workers of a plain DataLoader
        # see changes.
        self._position = shared(torch.zeros(2, dtype=torch.int64))
        self._frozen: tuple[int, int] | None = (0, 0)  # what a worker process was started with
        self._begun = False  # the position has been used by an iteration
        self._next: tuple[int, int] | None = None  # where the iteration of this process stands
        self._num_batches = self._plan(0).num_batches
        if self.is_coarse:
            self._warn_of_big_groups()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_spare": []}  # other processes have their own

    @property
    def num_rows(self) -> int:
        """Rows of the files that pass the filter."""
        return self._groups.num_rows

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration yields; once one has begun, that one's."""
        return int(self._position[0])

    @property
    def start(self) -> int:
        """The batch that the next (or the running) iteration starts at."""
        return int(self._position[1])

    def __len__(self) -> int:
        """Batches of a whole epoch, the same on every rank."""
        return self._num_batches

    def __iter__(self) -> Iterator[T]:
        info = get_worker_info()
        if info is None:
            epoch, start = self.begin()
            reader = Reader(self.rank, self.world_size, start, 1, self._threads)
        else:
            epoch, start = self._frozen or (self.epoch, self.start)
            self._frozen = None  # persistent workers look again
            reader = self._worker(info, start)
        return self._iterate(epoch, reader)

    def _iterate(self, epoch: int, reader: Reader) -> Iterator[T]:
        for batch, tensors in self._read(epoch, reader, self._tensors.empty):
            yield self.finish(tensors, epoch=epoch, batch=batch)

    def _worker(self, info: Any, start: int) -> Reader:
        # The worker processes are what runs at the same time: they have no threads.
        return Reader(self.rank, self.world_size, start + info.id, info.num_workers, 0)

    def _read(
        self, epoch: int, reader: Reader, empty: Callable[[int], dict[str, Tensor]]
    ) -> Iterator[tuple[int, dict[str, Tensor]]]:
        return read_batches(self._groups, self._plan(epoch), reader, self._spare, empty)

    def finish(self, tensors: dict[str, Tensor], *, epoch: int, batch: int) -> T:
        """What the stream yields for a batch: collated, when that was asked for.

        The stream stands behind it then: `state_dict` counts it.
        """
        self._next = (epoch, batch + 1)
        return self._collate(tensors) if self._collate else cast(T, tensors)

    # For a loader whose workers write into shared memory: see `mmrec.stream.loader`.

    def ring(self, *, workers: int, live: int) -> Ring:
        """Shared memory for the batches of that many workers; `live` as `Ring` has it."""
        return Ring(self._tensors, rows=self._most_rows, workers=workers, live=live)

    @property
    def batch_bytes(self) -> int:
        """Size of this rank's part of a batch."""
        return self._tensors.bytes_for(self._most_rows)

    @property
    def _most_rows(self) -> int:
        return -(-self._spec.batch_size // self.world_size)

    def into(self, ring: Ring, *, epoch: int, start: int, together: int) -> Iterator[list[Written]]:
        """In a worker process: its batches, written into the ring, named `together` at a time."""
        info = get_worker_info()
        assert info is not None, "only worker processes write into a ring"
        writer = Writer(ring, info.id)
        written: list[Written] = []
        whole = 0

        def next_slot(rows: int) -> dict[str, Tensor]:
            written.append(writer.next(rows))
            return ring.tensors(written[-1])

        try:
            for _ in self._read(epoch, self._worker(info, start), next_slot):
                whole = len(written)
                if whole == together:
                    yield written
                    written, whole = [], 0
        except Exception:
            if whole:
                yield written[:whole]  # they come before the error, as in one process
            raise
        if written:
            yield written

    # Position

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration yield that epoch; a `seek` into the same epoch stays in force."""
        epoch = whole("epoch", epoch)
        if epoch < 0:
            raise InputError(f"an epoch must be at least 0, got {epoch}")
        if epoch != self.epoch or self._begun:
            self.seek(epoch=epoch, batch=0)

    def seek(self, *, epoch: int, batch: int) -> None:
        """Make the next iteration start at that batch of that epoch; the one after it is the next
        epoch's, from its start.

        An iteration that has begun stays where it is. Reads nothing of what is skipped but the
        beginning of the windows it lands in.
        """
        epoch, batch = whole("epoch", epoch), whole("batch", batch)
        if epoch < 0 or not 0 <= batch <= len(self):
            raise InputError(
                f"a position must lie in epoch >= 0 and batches 0..{len(self)}, "
                f"got epoch {epoch}, batch {batch}"
            )
        self._stand(epoch, batch)
        self._begun = False
        self._next = None

    def begin(self) -> tuple[int, int]:
        """Say that an iteration begins; returns its epoch and first batch.

        A position that an iteration has used gives the next epoch, from its start. Called by
        `__iter__` and by `make_loader`'s loader, in the main process.
        """
        if self._begun:
            self._stand(self.epoch + 1, 0)
        self._begun = True
        self._next = (self.epoch, self.start)
        return self._next

    def _stand(self, epoch: int, batch: int) -> None:
        # Through numpy: torch refuses to write outside of inference mode to what was made inside.
        self._position.numpy()[:] = epoch, batch
        self._frozen = epoch, batch

    def state_dict(self) -> dict[str, Any]:
        """Position after the last batch that was yielded in this process, and the fingerprint.

        Worker processes of a plain `DataLoader` have streams of their own: with them ask
        `state_after`.

        Raises:
            InputError: in one of several workers, which knows its own part of the batches alone.
        """
        info = get_worker_info()
        if info is not None and info.num_workers > 1:
            raise InputError(
                "the position of a stream is that of all its batches, and one of "
                f"{info.num_workers} workers knows only its own: use mmrec.stream.make_loader, or "
                "one worker"
            )
        epoch, batch = self._next or (self.epoch, self.start)
        return self.state_after(epoch=epoch, batch=batch)

    def state_after(self, *, epoch: int, batch: int) -> dict[str, Any]:
        """The state of having consumed `batch` batches of `epoch`, counted from its beginning."""
        return {"epoch": epoch, "batch": batch, "fingerprint": self.fingerprint()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume where `state` was taken, also on another number of ranks or workers.

        Raises:
            InputError: when the order would not be the same, naming what differs.
        """
        require(
            isinstance(state, Mapping) and {"epoch", "batch", "fingerprint"} <= set(state),
            f"a state holds epoch, batch and fingerprint, got {state!r:.80}",
        )
        require_same(
            state["fingerprint"],
            self.fingerprint(),
            where="the state",
            remedy="make the stream as before to resume exactly",
        )
        self.seek(epoch=state["epoch"], batch=state["batch"])

    def fingerprint(self) -> dict[str, Any]:
        """What the order depends on, JSON-able: equal fingerprints mean equal batches.

        Files count by name, size and footer, so a directory may be moved.
        """
        return {
            "format": FORMAT,
            "files": [[s.place, s.size, s.footer[:16]] for s in self._groups.sources],
            "rows": self.num_rows,
            "row_filter": None if self._filter is None else str(self._filter),
            "batch_size": self._spec.batch_size,
            "shuffle": self._spec.shuffle,
            "seed": self._spec.seed,
            "window": self._spec.window,
            "drop_last": self._spec.drop_last,
            "lanes": list(self._lanes),
        }

    def _plan(self, epoch: int) -> Plan:
        return Plan(self._groups.sizes, self._spec, epoch=epoch, lanes=self._lanes)

    @property
    def is_coarse(self) -> bool:
        """Whether row groups are so large that the shuffle is coarse: `repack` them."""
        asked = self._spec.lanes
        if not self._spec.shuffle or self.num_rows <= self._spec.window or self._lanes == asked:
            return False
        return int(self._groups.physical.max()) > 2 * lane_window(self._spec, asked)

    def _warn_of_big_groups(self) -> None:
        asked, groups = self._spec.lanes, self._groups
        largest = int(groups.physical.argmax())
        warnings.warn(
            f"{groups.sources[groups.file_of[largest]].path} has row groups of up to "
            f"{groups.physical[largest]} rows: too few row groups for {asked[0]} x {asked[1]} "
            "lanes, so the shuffle is coarser and several ranks or workers read the same row "
            "groups; `python -m mmrec.stream.repack` writes smaller ones",
            CoarseShuffle,
            stacklevel=3,
        )


def _two_lanes(lanes: Any) -> tuple[int, int]:
    if not isinstance(lanes, (tuple, list)) or len(lanes) != 2:
        raise InputError(f"lanes must be two numbers of at least 1, got {lanes!r}")
    return whole("lanes", lanes[0]), whole("lanes", lanes[1])


def _expression(row_filter: Any) -> Any:
    """A pyarrow expression, from one or from tuples; None of no tuples."""
    if row_filter is None or isinstance(row_filter, pc.Expression):
        return row_filter
    try:
        return pq.filters_to_expression(row_filter) if row_filter != [] else None
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"row_filter must be an expression or (column, operator, value) tuples: {error}"
        ) from None


def _check(spec: Spec, rank: int, world_size: int) -> None:
    if world_size < 1 or not 0 <= rank < world_size:
        raise InputError(f"rank must be in 0..world_size-1, got rank {rank} of {world_size}")
    if spec.batch_size < world_size:
        raise InputError(
            f"batch_size is that of the global batch and must be at least world_size, "
            f"got {spec.batch_size} for {world_size} ranks"
        )
    if spec.window < 1:
        raise InputError(f"window must be at least 1 row, got {spec.window}")
    if min(spec.lanes) < 1:
        raise InputError(f"lanes must be two numbers of at least 1, got {spec.lanes}")

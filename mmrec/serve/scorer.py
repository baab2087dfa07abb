"""One user, many candidates, in milliseconds: a ranker ready to answer requests.

    scorer = Scorer.open("out", data="DATA")
    best = scorer.top_k(history=[3, 14, 15], candidates=range(1, 900), k=10)

U users, N candidates, T tasks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmrec.data.items import ItemTable
from mmrec.errors import positive, require
from mmrec.models.ranker import Ranker
from mmrec.nn.history.shared import shares
from mmrec.schema import Schema
from mmrec.serve.load import open_run
from mmrec.serve.names import Names, shown
from mmrec.serve.network import Candidates, Shared, SharedRanker, Users
from mmrec.serve.newcomers import Newcomers
from mmrec.serve.request import Read, Reader, Request, tensors

Given = TypeVar("Given", Users, Candidates)

_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_CHUNKS = (128, 512, 2048, 8192)  # candidates; what is tried
_PATIENCE = 0.25  # seconds that one trial may take for a longer one to be tried
_MEASURED_WITH = 50  # history items


@dataclass(frozen=True)
class Top:
    """The best of a user's candidates, best first.

    Attributes:
        items: their names.
        logits: (k,).
    """

    items: list[Any]
    logits: NDArray[np.float64]

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """(k,) of a click."""
        found: NDArray[np.float64] = (1 + np.tanh(self.logits / 2)) / 2
        return found


@dataclass(frozen=True)
class ScorerOptions:
    """How a scorer works.

    Attributes:
        dtype: in which items are kept: "float32", "float16", "bfloat16"; None = that of the ranker.
        chunk: candidates at once; None = what is found to be fastest when first needed.
        skip_unknown: items of a history that are not in the catalogue are left out; else refused.
        newest: items of a history that are read at most, besides what the ranker reads; None = all.
    """

    dtype: str | None = None
    chunk: int | None = None
    skip_unknown: bool = False
    newest: int | None = None

    def __post_init__(self) -> None:
        names = [str(dtype).removeprefix("torch.") for dtype in _DTYPES]
        require(
            self.dtype is None or self.dtype in names,
            f"dtype must be one of {', '.join(names)}, got {self.dtype!r}",
        )
        for name in ("chunk", "newest"):
            if getattr(self, name) is not None:
                positive(**{name: getattr(self, name)})


class Scorer:
    """Scores of a trained ranker, as it stands, for requests instead of files.

    Every item is encoded once, and a user once a request, as far as the encoder of histories can
    share it (`shares_history`).

    Args:
        ranker: on the device where it serves. Where its catalogue has keys, items are named by
            them in requests; else by their ids.
        schema: what the columns of requests are called; None = requests have none.
    """

    def __init__(
        self,
        ranker: Ranker,
        *,
        schema: Schema | None = None,
        options: ScorerOptions | None = None,
    ) -> None:
        self.options = options or ScorerOptions()
        kept = None if self.options.dtype is None else getattr(torch, self.options.dtype)
        self.network = SharedRanker(ranker, dtype=kept)
        self.device = ranker.items.tags.device
        catalogue: Any = ranker.catalogue
        keys = None if catalogue is None else catalogue.keys
        self.names = Names(ranker.items.num_items, None if keys is None else keys.to_pylist())
        limits = [n for n in (ranker.newest, self.options.newest) if n is not None]
        self.schema = schema
        self._reader = Reader(
            self.names,
            None if schema is None else schema.clicks,
            self.network,
            newest=min(limits, default=None),
            skip_unknown=self.options.skip_unknown,
        )
        self._newcomers = Newcomers(ranker.items)
        self._chunk = self.options.chunk

    @classmethod
    def open(
        cls,
        run: str | Path,
        *,
        data: str | Path | None = None,
        items: ItemTable | None = None,
        options: ScorerOptions | None = None,
        device: str | torch.device = "cpu",
    ) -> Scorer:
        """From what a training left behind.

        Args:
            run: see `mmrec.predict.load_ranker`.
            data: the data set's folder, for its items; None = that of the training.
            items: the item table itself.

        Raises:
            InputError: no such run, or no items.
        """
        ranker, schema = open_run(Path(run), None if data is None else Path(data), items)
        return cls(ranker.to(device), schema=schema, options=options)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the T labels."""
        return self.network.tasks

    @property
    def shares_history(self) -> bool:
        """Whether a history is encoded once a request; else once a candidate."""
        return shares(self.network.sequence)

    @property
    def chunk(self) -> int:
        """Candidates at once."""
        if self._chunk is None:
            self._chunk = self._measured_chunk()
        return self._chunk

    def score(
        self,
        history: Any,
        candidates: Any = None,
        *,
        user: int | None = None,
        columns: Mapping[str, Any] | None = None,
        each: Mapping[str, Any] | None = None,
    ) -> NDArray[Any]:
        """Logits of a user's candidates: (N,), or (N, T) of several tasks; see `Request`."""
        return self.score_request(Request(history, candidates, user, columns or {}, each or {}))

    def score_request(self, request: Request) -> NDArray[Any]:
        """See `score`."""
        return self._scored(self._reader.read(request))

    def score_many(self, requests: Sequence[Request]) -> list[NDArray[Any]]:
        """`score` of several users at once."""
        read = [self._reader.read(request) for request in requests]
        found: list[NDArray[Any]] = []
        for group in _groups(read, self.chunk if read else 1):
            if len(group) == 1:
                found.append(self._scored(group[0]))
                continue
            count = max(len(one.candidates) for one in group)
            logits = self._logits(_users(group), _candidates(group, count))
            found += [row[: len(one.candidates)] for row, one in zip(logits, group, strict=True)]
        return found

    def top_k(
        self,
        history: Any,
        candidates: Any = None,
        *,
        k: int = 10,
        task: str | None = None,
        user: int | None = None,
        columns: Mapping[str, Any] | None = None,
        each: Mapping[str, Any] | None = None,
    ) -> Top:
        """The k best candidates, all where they are fewer; of equal ones those that came first.

        Args:
            candidates: None = the whole catalogue.
            task: by which label; None = the first.
        """
        request = Request(history, candidates, user, columns or {}, each or {})
        return self.top_of(request, k=k, task=task)

    def top_of(self, request: Request, *, k: int = 10, task: str | None = None) -> Top:
        """See `top_k`."""
        positive(k=k)
        name = self.tasks[0] if task is None else task
        require(
            name in self.tasks, f"task must be one of {', '.join(self.tasks)}, got {shown(name)}"
        )
        read = self._reader.read(request)
        logits = self._scored(read).reshape(len(read.candidates), len(self.tasks))
        logits = logits[:, self.tasks.index(name)]
        require(
            np.isfinite(logits).all(),
            "scores must be finite, and are not: a number is far from all that training has seen",
        )
        order = _best(logits, k)
        return Top(self.names.of(read.candidates[order]), logits[order].astype(np.float64))

    def add(
        self,
        vectors: Mapping[str, Any],
        *,
        tags: Sequence[Sequence[int]] | None = None,
        keys: Sequence[Any] | None = None,
    ) -> list[Any]:
        """Take in items that training has not seen, by vectors and tags; returns their names.

        Args:
            vectors: modality -> (n, width), as the features of training were; a row of NaN, or a
                modality left out, is an item without it.
            tags: of each item. Where all items of training have some, a new one without any is
                unlike all that the ranker has seen, and scores so.
            keys: their names, where items are named by keys.

        Raises:
            InputError: other vectors or tags than those of training, or names that are taken.
        """
        given = {name: torch.as_tensor(np.asarray(v)).float() for name, v in vectors.items()}
        encoder = self._newcomers.encoder(given, tags)
        names = self.names.append(encoder.num_items - 1, keys)
        self.network.append(encoder)
        return names

    def _scored(self, read: Read) -> NDArray[Any]:
        """(N,) or (N, T)."""
        candidates = _candidates([read], len(read.candidates))
        found: NDArray[Any] = self._logits(_users([read]), candidates)[0]
        return found

    @torch.inference_mode()
    def _logits(self, users: Users, candidates: Candidates) -> NDArray[Any]:
        """(U, N) or (U, N, T), a chunk of candidates at a time."""
        shared = self.network.share(self._moved(users))
        step = candidates.ids.shape[1]
        if candidates.ids.numel() > _CHUNKS[0]:
            step = max(1, self.chunk // len(candidates.ids))
        parts = [self._apart(shared, part) for part in _split(candidates, step)]
        logits = (torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]).cpu().numpy()
        return logits[..., 0] if len(self.tasks) == 1 else logits

    def _apart(self, shared: Shared, candidates: Candidates) -> Tensor:
        return self.network.apart(shared, self._moved(candidates))

    def _moved(self, given: Given) -> Given:
        """To the device; requests are read on the CPU."""
        if self.device.type == "cpu":
            return given
        return type(given)(*(part.to(self.device) for part in vars(given).values()))

    @torch.inference_mode()
    def _measured_chunk(self) -> int:
        """The size at which a candidate takes least, found in a second or two."""
        best, least = _CHUNKS[0], float("inf")
        rng = np.random.default_rng(0)
        users, columns = self._some_user(rng)
        for size in _CHUNKS:
            ids = torch.from_numpy(rng.integers(0, len(self.names), (1, size)))
            some, took = replace(columns, ids=ids), float("inf")
            for _ in range(5):
                began = self._now()
                shared = self.network.share(users)
                self._apart(shared, some).cpu()
                took = min(took, self._now() - began)
            if took / size < 1.1 * least:  # of two that are alike the larger
                best, least = size, min(least, took / size)
            if took > _PATIENCE:
                break
        return best

    def _now(self) -> float:
        """Seconds; on a CPU its own, which other programs of the machine do not change much."""
        on_cpu = self.device.type == "cpu" and torch.get_num_threads() == 1
        return time.process_time() if on_cpu else time.perf_counter()

    def _some_user(self, rng: np.random.Generator) -> tuple[Users, Candidates]:
        """As long a history as is read, for a measurement."""
        newest, net = self._reader.newest, self.network
        length = _MEASURED_WITH if newest is None else min(newest, _MEASURED_WITH)
        history = torch.from_numpy(rng.integers(1, max(2, len(self.names)), (1, length)))
        categorical, numeric = net.row_widths
        of_history = net.history_widths
        users = Users(
            history=history,
            user=torch.zeros(1, dtype=torch.int64),
            history_categorical=torch.zeros((1, length, of_history[0]), dtype=torch.int64),
            history_numeric=torch.zeros((1, length, of_history[1])),
        )
        nothing = torch.zeros((1, 0), dtype=torch.int64)
        zeros = torch.zeros((1, 1, categorical), dtype=torch.int64)
        candidates = Candidates(nothing, zeros, torch.zeros((1, 1, numeric)))
        return self._moved(users), candidates


def _groups(read: Sequence[Read], room: int) -> Iterator[list[Read]]:
    """Neighbours whose candidates, filled up to the longest, are at most `room`."""
    group: list[Read] = []
    for one in read:
        longest = max(len(each.candidates) for each in (*group, one))
        if group and longest * (len(group) + 1) > room:
            yield group
            group = []
        group.append(one)
    if group:
        yield group


def _users(group: Sequence[Read]) -> Users:
    length = max(len(one.history) for one in group)
    return Users(
        history=tensors([one.history for one in group], length, left=True),
        user=torch.tensor([one.user for one in group]),
        history_categorical=tensors([r.history_categorical for r in group], length, left=True),
        history_numeric=tensors([r.history_numeric for r in group], length, left=True),
    )


def _candidates(group: Sequence[Read], count: int) -> Candidates:
    """Columns are (U, 1, ·) where no candidate differs, else (U, N, ·)."""

    def columns(name: str) -> Tensor:
        given = [getattr(one, name) for one in group]
        if all(len(rows) == 1 for rows in given):
            return tensors(given, 1, left=False)
        sizes = [len(one.candidates) for one in group]
        wide = [np.broadcast_to(r, (n, r.shape[1])) for r, n in zip(given, sizes, strict=True)]
        return tensors(wide, count, left=False)

    ids = tensors([one.candidates for one in group], count, left=False)
    return Candidates(ids, columns("categorical"), columns("numeric"))


def _split(candidates: Candidates, step: int) -> Iterator[Candidates]:
    count = candidates.ids.shape[1]
    for at in range(0, max(count, 1), max(step, 1)):
        end = at + step
        rest = [
            part if part.shape[1] == 1 else part[:, at:end]
            for part in (candidates.categorical, candidates.numeric)
        ]
        yield Candidates(candidates.ids[:, at:end], *rest)


def _best(logits: NDArray[Any], k: int) -> NDArray[np.int64]:
    """(k,) places of the largest, best first, of equal ones the first."""
    if k >= len(logits):
        return np.argsort(-logits, kind="stable")
    least = np.partition(logits, len(logits) - k)[len(logits) - k]
    above = np.flatnonzero(logits > least)
    equal = np.flatnonzero(logits == least)[: k - len(above)]
    chosen = np.sort(np.concatenate([above, equal]))
    return chosen[np.argsort(-logits[chosen], kind="stable")]

"""How much AUC each input of a trained ranker carries.

An input is spoiled, everything else is left as it is, and the same rows are scored again: what
AUC is lost was carried by that input. This is permutation importance (Breiman 2001) with paired
intervals over users. A loss whose interval covers zero says: the model does as well without.

B rows, L history, N items, P rows of the donors' pool.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from tqdm import tqdm

from mmrec.batch import Batch
from mmrec.errors import InputError
from mmrec.metrics.intervals import Interval, interval, paired_difference
from mmrec.train.evaluate import Scores, score
from mmrec.train.loaders import BatchLoader, rewound
from mmrec.train.step.precision import resolve_device

POOL = 65_536  # rows that lend their history and context: 26 MB at L = 100
CONTENT = {"image": ("image", "has_image"), "text": ("text", "has_text")}


@dataclass(frozen=True)
class Contribution:
    """What one input carries.

    Attributes:
        name: what was done to the input.
        auc: AUC with it spoiled.
        lost: AUC of the sound model less `auc`, with its interval over users.
    """

    name: str
    auc: float
    lost: Interval

    @property
    def measurable(self) -> bool:
        """Whether the model is surely better with this input than without it."""
        return self.lost.low > 0


@dataclass(frozen=True)
class Diagnosis:
    """The AUC of a ranker, and what each input contributes to it.

    Attributes:
        rows, users: what it was measured on.
        auc: AUC with its interval over users.
        level: what share of such intervals covers the truth.
        contributions: in the order of `INPUTS`, less those the model has no seam for.
    """

    rows: int
    users: int
    auc: Interval
    level: float
    contributions: tuple[Contribution, ...]

    def __getitem__(self, name: str) -> Contribution:
        """The contribution of that name."""
        for contribution in self.contributions:
            if contribution.name == name:
                return contribution
        names = ", ".join(c.name for c in self.contributions)
        raise InputError(f"a contribution is one of {names}, got {name!r}")

    def table(self) -> str:
        """As Markdown, a row an input."""
        lines = [
            f"AUC {_text(self.auc)} on {self.rows:,} rows of {self.users:,} users, "
            f"{self.level:.0%} intervals over users.",
            "",
            "| input | AUC without | AUC lost | helps |",
            "|---|---|---|---|",
        ]
        for c in self.contributions:
            verdict = "yes" if c.measurable else "harms" if c.lost.high < 0 else "no"
            lines.append(f"| {c.name} | {c.auc:.4f} | {_text(c.lost, sign='+')} | {verdict} |")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and numbers."""
        return asdict(self)


def _text(figure: Interval, sign: str = "") -> str:
    return f"{figure.value:{sign}.4f} [{figure.low:{sign}.4f}, {figure.high:{sign}.4f}]"


def diagnose(
    model: nn.Module,
    loader: BatchLoader,
    *,
    device: str | torch.device = "auto",
    precision: str = "auto",
    num_items: int | None = None,
    inputs: tuple[str, ...] | None = None,
    level: float = 0.95,
    replicates: int = 1000,
    seed: int = 0,
    progress: bool | None = None,
) -> Diagnosis:
    """Score `loader` once as it is and once for each spoiled input.

    - history shuffled: each row gets the history of a row of another user;
    - history removed: all padding;
    - content (image, text, or both) permuted: items swap vectors and masks, history and target;
    - context permuted: each row gets the context of a row of another user;
    - ids removed: every item has the model's vector for unknown items, or, where the model has
      none, the average item's; likewise for biases of items;
    - user permuted: each row gets the id of another user.

    Content and ids need a seam: among the model's modules, one with the buffers image, text,
    has_image and has_text of N rows (`mmrec.nn.ItemEncoder` is one), and embeddings of N rows
    with "item" in their name.
    A model without them is diagnosed on the other inputs. One permutation is drawn for each; the
    intervals tell the noise of users, not that of the draw.

    Args:
        model: `Batch -> logits (B,)`; weights and buffers are left as they were found.
        loader: labelled rows, best those of the validation split.
        num_items: N; None takes the rows of the item table found in the model.
        inputs: some of `INPUTS`; None is all.
        level, replicates, seed: of the bootstrap over users (`mmrec.metrics.intervals`).
        progress: whether to show progress on stderr; None shows it on a terminal.

    Raises:
        InputError: an unknown input, rows without labels, labels all alike, or a single user.
    """
    unknown = [name for name in inputs or () if name not in INPUTS]
    if unknown:
        raise InputError(f"inputs must be among {', '.join(INPUTS)}, got {', '.join(unknown)}")
    device = resolve_device(device) if isinstance(device, str) else device
    model.to(device)
    pool = _Pool.of(loader, seed=seed)
    seams = _Seams(model, num_items, seed)
    names = [n for n in INPUTS if (inputs is None or n in inputs) and seams.has(n)]
    hidden = not (sys.stderr.isatty() if progress is None else progress)
    with tqdm(desc="diagnose", unit=" rows", unit_scale=True, disable=hidden) as bar:

        def scored(rows: int) -> None:
            bar.update(rows)

        def scores(name: str | None) -> Scores:
            pool.restart()
            spoiled = _Spoiled(model, pool.changes().get(name or "", _same))
            with seams.spoiled(name):
                return score(spoiled, loader, device=device, precision=precision, each_batch=scored)

        whole = scores(None)
        if whole.label is None:
            raise InputError("a diagnosis needs labels, the loader gives none")
        auc = interval(
            "auc", whole.user, whole.label, whole.logit,
            level=level, replicates=replicates, seed=seed,
        )  # fmt: skip
        contributions = []
        for name in names:
            other = scores(name)
            lost = paired_difference(
                "auc", whole.user, whole.label, whole.logit, other.logit,
                level=level, replicates=replicates, seed=seed,
            )  # fmt: skip
            contributions.append(Contribution(name, auc.value - lost.value, lost))
    users = len(set(whole.user.tolist()))
    return Diagnosis(len(whole.row), users, auc, level, tuple(contributions))


def _same(batch: Batch) -> Batch:
    return batch


class _Spoiled(nn.Module):
    """The model behind a change of its batches."""

    def __init__(self, model: nn.Module, change: Callable[[Batch], Batch]) -> None:
        super().__init__()
        self.model, self.change = model, change

    def forward(self, batch: Batch) -> Tensor:
        logit: Tensor = self.model(self.change(batch))
        return logit


class _Pool:
    """Rows that lend their inputs to rows of other users, sorted by user."""

    def __init__(self, user: Tensor, history: Tensor, context: Tensor, seed: int) -> None:
        order = torch.argsort(user, stable=True)
        self.user, self.history, self.context = user[order], history[order], context[order]
        if len(user) and bool(self.user[0] == self.user[-1]):
            raise InputError("a diagnosis needs rows of two users or more, got one user's")
        self.seed = seed
        self.restart()

    @classmethod
    def of(cls, loader: BatchLoader, *, seed: int) -> _Pool:
        """From the loader's first `POOL` rows; histories of different widths are flush right."""
        users, histories, contexts, rows = [], [], [], 0
        for batch in rewound(loader):
            users.append(batch.user.cpu())
            histories.append(batch.history.to("cpu", torch.int32))
            contexts.append(batch.context.cpu())
            rows += len(batch)
            if rows >= POOL:
                break
        if not rows:
            raise InputError("the loader gives no rows to score")
        width = max(history.shape[1] for history in histories)
        padded = [nn.functional.pad(h, (width - h.shape[1], 0)) for h in histories]
        return cls(torch.cat(users), torch.cat(padded), torch.cat(contexts), seed)

    def restart(self) -> None:
        """Draw the same donors again."""
        self.generator = torch.Generator().manual_seed(self.seed)

    def donors(self, user: Tensor) -> Tensor:
        """(B,) places in the pool, evenly among the rows that are not of the row's own user."""
        user = user.cpu()
        low = torch.searchsorted(self.user, user)
        own = torch.searchsorted(self.user, user, right=True) - low
        draw = torch.rand(len(user), generator=self.generator, dtype=torch.float64)
        place = (draw * (len(self.user) - own)).long()
        return torch.where(place >= low, place + own, place)

    def changes(self) -> Mapping[str, Callable[[Batch], Batch]]:
        """The spoilings that need nothing of the model."""

        def history(batch: Batch) -> Batch:
            lent = self.history[self.donors(batch.user)].long()
            width = batch.history.shape[1]
            lent = nn.functional.pad(lent, (max(0, width - lent.shape[1]), 0))
            return replace(batch, history=lent[:, lent.shape[1] - width :].to(batch.user.device))

        def nothing(batch: Batch) -> Batch:
            return replace(batch, history=torch.zeros_like(batch.history))

        def context(batch: Batch) -> Batch:
            lent = self.context[self.donors(batch.user)]
            return replace(batch, context=lent.to(batch.context.device))

        def user(batch: Batch) -> Batch:
            lent = self.user[self.donors(batch.user)]
            return replace(batch, user=lent.to(batch.user.device))

        return {
            "history shuffled": history,
            "history removed": nothing,
            "context permuted": context,
            "user permuted": user,
        }


class _Seams:
    """Where a model keeps content and ids of items."""

    def __init__(self, model: nn.Module, num_items: int | None, seed: int) -> None:
        wanted = [name for pair in CONTENT.values() for name in pair]
        self.tables = [
            module
            for module in model.modules()
            if all(isinstance(getattr(module, name, None), Tensor) for name in wanted)
        ]
        rows = len(cast(Tensor, self.tables[0].image)) if self.tables else 0
        self.num_items = num_items or rows
        self.embeddings = [
            module
            for name, module in model.named_modules()
            if isinstance(module, nn.Embedding) and module.num_embeddings == self.num_items > 0
            if "item" in name  # as many users as items there may be too
        ]
        self.generator = torch.Generator().manual_seed(seed)

    def has(self, name: str) -> bool:
        """Whether this input can be spoiled."""
        if name.startswith(("content", *CONTENT)):
            return bool(self.tables)
        return bool(self.embeddings) if name == "ids removed" else True

    def spoiled(self, name: str | None) -> AbstractContextManager[None]:
        """The model's own tensors changed for as long as the block runs."""
        if name == "ids removed":
            return self._without_ids()
        for part, buffers in CONTENT.items():
            if name == f"{part} permuted":
                return self._permuted(buffers)
        if name == "content permuted":
            return self._permuted(CONTENT["image"] + CONTENT["text"])
        return nullcontext()

    @contextmanager
    def _permuted(self, buffers: tuple[str, ...]) -> Iterator[None]:
        order = 1 + torch.randperm(self.num_items - 1, generator=self.generator)
        order = torch.cat([torch.zeros(1, dtype=torch.int64), order])  # padding stays
        before = [(t, name, getattr(t, name)) for t in self.tables for name in buffers]
        try:
            for table, name, tensor in before:
                setattr(table, name, tensor[order.to(tensor.device)])
            yield
        finally:
            for table, name, tensor in before:
                setattr(table, name, tensor)

    @contextmanager
    def _without_ids(self) -> Iterator[None]:
        weights = [(e, e.weight.detach().clone()) for e in self.embeddings]
        known = [
            (table, mask)
            for table in self.tables
            if isinstance(mask := getattr(table, "known", None), Tensor)
        ]
        try:
            with torch.no_grad():
                for embedding, weight in weights:
                    embedding.weight[1:] = weight[1:].mean(dim=0)
                for table, mask in known:
                    nobody = torch.zeros_like(mask)
                    nobody[0] = mask[0]
                    table.known = nobody
            yield
        finally:
            with torch.no_grad():
                for embedding, weight in weights:
                    embedding.weight.copy_(weight)
            for table, mask in known:
                table.known = mask


INPUTS = (
    "history shuffled",
    "history removed",
    "content permuted",
    "image permuted",
    "text permuted",
    "context permuted",
    "ids removed",
    "user permuted",
)

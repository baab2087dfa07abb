"""How much AUC each input of a trained ranker carries.

An input is spoiled, everything else is left as it is, and the same rows are scored again: what
AUC is lost was carried by that input. This is permutation importance (Breiman 2001) with paired
intervals over users. A loss whose interval holds zero is unclear: the model may do as well without.

B rows, L history, N items, P rows of the donors' pool.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from tqdm import tqdm

from mmrec.batch import Batch
from mmrec.errors import InputError, require
from mmrec.metrics.intervals import Interval, bootstrap
from mmrec.train.evaluate import Scores, score
from mmrec.train.loaders import BatchLoader, rewound
from mmrec.train.step.precision import resolve_device

POOL = 65_536  # rows that lend their history and context: 52 MB at L = 100
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
Spoiling = AbstractContextManager[None]


@runtime_checkable
class HasContent(Protocol):
    """A module with frozen content of N items: image (N, Di), text (N, Dt), their presence (N,)."""

    image: Tensor
    text: Tensor
    has_image: Tensor
    has_text: Tensor


@runtime_checkable
class HasItemTables(Protocol):
    """A module that offers its embeddings of N rows, one an item and row 0 padding."""

    def item_tables(self) -> Sequence[nn.Embedding]: ...


@runtime_checkable
class HasKnownItems(HasItemTables, Protocol):
    """One in which items outside `known` (N,) bool share a vector; None = all have their own."""

    known: Tensor | None


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
        named = {contribution.name: contribution for contribution in self.contributions}
        require(name in named, f"a contribution is one of {', '.join(named)}, got {name!r}")
        return named[name]

    def table(self) -> str:
        """As Markdown, a row an input; one whose interval holds zero is unclear."""
        lines = [
            f"AUC {_text(self.auc)} on {self.rows:,} rows of {self.users:,} users, "
            f"{self.level:.0%} intervals over users.",
            "",
            "| input | AUC without | AUC lost | helps |",
            "|---|---|---|---|",
        ]
        for c in self.contributions:
            verdict = "yes" if c.measurable else "harms" if c.lost.high < 0 else "unclear"
            lines.append(f"| {c.name} | {c.auc:.4f} | {_text(c.lost, sign='+')} | {verdict} |")
        return "\n".join(lines)


def _text(figure: Interval, sign: str = "") -> str:
    return f"{figure.value:{sign}.4f} [{figure.low:{sign}.4f}, {figure.high:{sign}.4f}]"


def diagnose(
    model: nn.Module,
    loader: BatchLoader,
    *,
    device: str | torch.device = "auto",
    precision: str = "auto",
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

    Content and ids need a seam: among the model's modules, one that `HasContent`, and one or more
    that `HasItemTables` (`mmrec.nn.ItemEncoder` is both, `mmrec.models.Wide` the latter).
    A model without them is diagnosed on the other inputs. One permutation is drawn for each; the
    intervals tell the noise of users, not that of the draw.

    Args:
        model: `Batch -> logits (B,)`; weights and buffers are left as they were found.
        loader: labelled rows, best those of the validation split.
        inputs: some of `INPUTS`; None is all.
        level, replicates, seed: of the bootstrap over users (`mmrec.metrics.intervals`).
        progress: whether to show progress on stderr; None shows it on a terminal.

    Raises:
        InputError: an unknown input, rows without labels, labels all alike, or a single user.
    """
    wanted = INPUTS if inputs is None else inputs
    unknown = ", ".join(name for name in wanted if name not in INPUTS)
    require(not unknown, f"inputs must be among {', '.join(INPUTS)}, got {unknown}")
    device = resolve_device(device)
    spoilings = _spoilings(model.to(device), loader, seed)
    hidden = not (sys.stderr.isatty() if progress is None else progress)
    with tqdm(desc="diagnose", unit=" rows", unit_scale=True, disable=hidden) as bar:

        def scores(spoiling: Spoiling) -> Scores:
            with spoiling:
                return score(
                    model, loader, device=device, precision=precision, each_batch=bar.update
                )

        whole = scores(nullcontext())
        if whole.label is None:
            raise InputError("a diagnosis needs labels, the loader gives none")
        resampled = partial(
            bootstrap, "auc", whole.user, whole.label, replicates=replicates, seed=seed
        )
        sound = resampled(whole.logit)
        contributions = []
        for name in INPUTS:
            if name in wanted and name in spoilings:
                other = resampled(scores(spoilings[name]).logit)
                lost = (sound - other).interval(level)
                contributions.append(Contribution(name, other.value, lost))
    users = len(set(whole.user.tolist()))
    auc = sound.interval(level)
    return Diagnosis(len(whole.row), users, auc, level, tuple(contributions))


def _spoilings(model: nn.Module, loader: BatchLoader, seed: int) -> dict[str, Spoiling]:
    """What can be spoiled: inside each, once, the model is without that input."""
    pool = _pool(loader)
    found: dict[str, Spoiling] = {
        "history shuffled": _with_changed(model, _lending(pool, "history", seed)),
        "history removed": _with_changed(model, _without_history),
        "context permuted": _with_changed(model, _lending(pool, "context", seed)),
        "user permuted": _with_changed(model, _lending(pool, "user", seed)),
    }
    modules = list(model.modules())
    holders = [module for module in modules if isinstance(module, HasContent)]
    generator = torch.Generator().manual_seed(seed)
    image, text = ("image", "has_image"), ("text", "has_text")
    if holders:
        found["content permuted"] = _permuted(holders, image + text, generator)
        found["image permuted"] = _permuted(holders, image, generator)
        found["text permuted"] = _permuted(holders, text, generator)
    tables = [t for m in modules if isinstance(m, HasItemTables) for t in m.item_tables()]
    if tables:
        known = [module for module in modules if isinstance(module, HasKnownItems)]
        found["ids removed"] = _without_ids(tables, known)
    return found


def _pool(loader: BatchLoader) -> dict[str, Tensor]:
    """Rows that lend their inputs to rows of other users, sorted by user: the first `POOL` or so.

    Histories of different widths are flush right.
    """
    batches, rows = [], 0
    for batch in rewound(loader):
        batches.append(batch)
        rows += len(batch)
        if rows >= POOL:
            break
    require(rows, "the loader gives no rows to score")
    width = max(batch.history.shape[1] for batch in batches)
    pool = {
        "user": torch.cat([batch.user for batch in batches]).cpu(),
        "history": torch.cat([_of_width(batch.history, width) for batch in batches]).cpu(),
        "context": torch.cat([batch.context for batch in batches]).cpu(),
    }
    order = torch.argsort(pool["user"], stable=True)
    pool = {name: column[order] for name, column in pool.items()}
    require(
        pool["user"][0] != pool["user"][-1],
        "a diagnosis needs rows of two users or more, got one user's",
    )
    return pool


def _of_width(history: Tensor, width: int) -> Tensor:
    """(B, L) -> (B, width), padded or cut at the left."""
    return nn.functional.pad(history, (width - history.shape[1], 0))


def _lending(pool: Mapping[str, Tensor], name: str, seed: int) -> Callable[[Batch], Batch]:
    """Each row gets this input of a row of the pool, drawn evenly from those of other users."""
    generator = torch.Generator().manual_seed(seed)  # the same donors for every input

    def change(batch: Batch) -> Batch:
        user = batch.user.cpu()
        low = torch.searchsorted(pool["user"], user)
        own = torch.searchsorted(pool["user"], user, right=True) - low
        draw = torch.rand(len(user), generator=generator, dtype=torch.float64)
        place = (draw * (len(pool["user"]) - own)).long()
        lent = pool[name][torch.where(place >= low, place + own, place)]
        if name == "history":
            lent = _of_width(lent, batch.history.shape[1])
        return replace(batch, **{name: lent.to(batch.user.device)})

    return change


def _without_history(batch: Batch) -> Batch:
    return replace(batch, history=torch.zeros_like(batch.history))


@contextmanager
def _with_changed(model: nn.Module, change: Callable[[Batch], Batch]) -> Iterator[None]:
    """The model reads changed batches."""
    with model.register_forward_pre_hook(lambda _, batches: (change(*batches),)):
        yield


@contextmanager
def _permuted(
    holders: Sequence[HasContent], buffers: Sequence[str], generator: torch.Generator
) -> Iterator[None]:
    """Items swap what stands in these buffers."""
    before = [(holder, name, getattr(holder, name)) for holder in holders for name in buffers]
    order = 1 + torch.randperm(len(before[0][2]) - 1, generator=generator)
    order = nn.functional.pad(order, (1, 0))  # padding stays
    try:
        for holder, name, tensor in before:
            setattr(holder, name, tensor[order.to(tensor.device)])
        yield
    finally:
        for holder, name, tensor in before:
            setattr(holder, name, tensor)


@contextmanager
def _without_ids(tables: Sequence[nn.Embedding], known: Sequence[HasKnownItems]) -> Iterator[None]:
    """No item is known, and all have the average item's vector in tables that need one."""
    weights = [table.weight.detach().clone() for table in tables]
    masks = [(module, module.known) for module in known if module.known is not None]
    try:
        with torch.no_grad():
            for table in tables:
                table.weight[1:] = table.weight[1:].mean(dim=0)
        for module, mask in masks:
            module.known = mask & (torch.arange(len(mask), device=mask.device) == 0)
        yield
    finally:
        with torch.no_grad():
            for table, weight in zip(tables, weights, strict=True):
                table.weight.copy_(weight)
        for module, mask in masks:
            module.known = mask

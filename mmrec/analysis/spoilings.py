"""What can be spoiled of a ranker's inputs, each as a context in which the model is without it.

B rows, L history, N items, P rows of the donors' pool.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from mmrec.batch import Batch
from mmrec.errors import require
from mmrec.train.loaders import BatchLoader, rewound

POOL = 65_536  # rows that lend what is known of them: 52 MB of history at L = 100
OF_HISTORY = ("history", "history_categorical", "history_numeric")
Spoiling = AbstractContextManager[None]
INPUTS = (
    "history shuffled",
    "history removed",
    "history features permuted",
    "content permuted",
    "tags permuted",
    "item categorical permuted",
    "item numeric permuted",
    "categorical permuted",
    "numeric permuted",
    "ids removed",
    "user permuted",
)


@runtime_checkable
class HasItemBuffers(Protocol):
    """What a modality is: a module that names its buffers of N rows, one an item."""

    @property
    def item_buffers(self) -> Sequence[str]: ...


@runtime_checkable
class HasModalities(Protocol):
    """A module with frozen content by name of the modality, each `HasItemBuffers`."""

    modalities: nn.ModuleDict


@runtime_checkable
class HasTagSets(Protocol):
    """A module that compares items by their tags, too."""

    tag_sets: nn.Module | None


@runtime_checkable
class HasItemFeatures(Protocol):
    """A module that knows N items: tags (N, G), categories (N, P) and numbers (N, F); None = no."""

    tags: Tensor
    categories: Tensor | None
    numbers: Tensor | None


@runtime_checkable
class HasItemTables(Protocol):
    """A module that offers its embeddings of N rows, one an item and row 0 padding."""

    def item_tables(self) -> Sequence[nn.Embedding]: ...


@runtime_checkable
class HasKnownItems(HasItemTables, Protocol):
    """One in which items outside `known` (N,) bool share a vector; None = all have their own."""

    known: Tensor | None


def spoilings_of(
    model: nn.Module, loader: BatchLoader, columns: Mapping[str, tuple[str, slice]], seed: int
) -> dict[str, Spoiling]:
    """What can be spoiled: inside each, once, the model is without that input."""
    pool = _pool(loader)
    found: dict[str, Spoiling] = {
        "history shuffled": _with_changed(model, _lending(pool, OF_HISTORY, seed)),
        "history removed": _with_changed(model, _without_history),
    }
    if not torch.equal(pool["user"], pool["row"]):  # where there are users
        found["user permuted"] = _with_changed(model, _lending(pool, ("user",), seed))
    for name in ("categorical", "numeric"):
        if pool[name].shape[1]:
            found[f"{name} permuted"] = _with_changed(model, _lending(pool, (name,), seed))
    whole = slice(None)
    if any(pool[name].shape[2] for name in OF_HISTORY[1:]):
        swap = _swapping(dict.fromkeys(OF_HISTORY[1:], whole), seed)
        found["history features permuted"] = _with_changed(model, swap)
    for column, (name, place) in columns.items():
        if name in OF_HISTORY:
            change = _swapping({name: place}, seed)
        else:
            change = _lending(pool, (name,), seed, place)
        found[f"{column} permuted"] = _with_changed(model, change)
    modules = list(model.modules())
    generator = torch.Generator().manual_seed(seed)
    knowing: list[nn.Module] = [m for m in modules if isinstance(m, HasItemFeatures)]
    for name, buffer in (
        ("tags", "tags"),
        ("item categorical", "categories"),
        ("item numeric", "numbers"),
    ):
        rows: list[tuple[nn.Module, str]] = []
        rows += [(module, buffer) for module in knowing if _varies(getattr(module, buffer))]
        if rows and name == "tags":
            rows += _item_rows(
                m.tag_sets for m in modules if isinstance(m, HasTagSets) and m.tag_sets
            )
        if rows:
            found[f"{name} permuted"] = _permuted(rows, generator)
    holders = [module.modalities for module in modules if isinstance(module, HasModalities)]
    every = [part for modalities in holders for part in modalities.values()]
    if every:
        found["content permuted"] = _permuted(_item_rows(every), generator)
        for name, label in _modalities(model).items():
            some = [modalities[name] for modalities in holders if name in modalities]
            found[label] = _permuted(_item_rows(some), generator)
    tables = [t for m in modules if isinstance(m, HasItemTables) for t in m.item_tables()]
    if tables:
        known = [module for module in modules if isinstance(module, HasKnownItems)]
        found["ids removed"] = _without_ids(tables, known)
    return found


def input_names(model: nn.Module) -> tuple[str, ...]:
    """`INPUTS`, and after the content each modality of this model."""
    place = INPUTS.index("content permuted") + 1
    return (*INPUTS[:place], *_modalities(model).values(), *INPUTS[place:])


def _modalities(model: nn.Module) -> dict[str, str]:
    """Modality of some module that `HasModalities` -> what its spoiling is called."""
    holders = [module.modalities for module in model.modules() if isinstance(module, HasModalities)]
    names = dict.fromkeys(name for modalities in holders for name in modalities)
    labels = {name: f"{name} permuted" for name in names}
    return {m: f"{m} vectors permuted" if label in INPUTS else label for m, label in labels.items()}


def _pool(loader: BatchLoader) -> dict[str, Tensor]:
    """Rows that lend their inputs to rows of other users, sorted by user: the first `POOL` or so.

    Histories of different lengths are flush right.
    """
    batches, rows = [], 0
    for batch in rewound(loader):
        batches.append(batch)
        rows += len(batch)
        if rows >= POOL:
            break
    require(rows, "the loader gives no rows to score")
    length = max(batch.history.shape[1] for batch in batches)
    pool = {
        name: torch.cat([getattr(batch, name) for batch in batches]).cpu()
        for name in ("user", "row", "categorical", "numeric")
    }
    for name in OF_HISTORY:
        columns = [_of_length(getattr(batch, name), length) for batch in batches]
        pool[name] = torch.cat(columns).cpu()
    order = torch.argsort(pool["user"], stable=True)
    pool = {name: column[order] for name, column in pool.items()}
    require(
        pool["user"][0] != pool["user"][-1],
        "a diagnosis needs rows of two users or more, got one user's",
    )
    return pool


def _of_length(column: Tensor, length: int) -> Tensor:
    """(B, L, …) -> (B, length, …), padded or cut at the left."""
    more = length - column.shape[1]
    if more <= 0:
        return column[:, -more:]
    return torch.cat([column.new_zeros(len(column), more, *column.shape[2:]), column], dim=1)


def _varies(table: Tensor | None) -> bool:
    """Whether items differ in it."""
    return table is not None and bool(table.shape[1]) and not bool((table[1:] == table[1]).all())


def _swapping(places: Mapping[str, slice], seed: int) -> Callable[[Batch], Batch]:
    """The items of a batch's histories swap what is known of the moment of each."""
    generator = torch.Generator().manual_seed(seed)

    def change(batch: Batch) -> Batch:
        real = batch.valid.nonzero(as_tuple=True)
        order = torch.randperm(len(real[0]), generator=generator).to(batch.history.device)
        changed: dict[str, Any] = {}
        for name, place in places.items():
            column, where = getattr(batch, name).clone(), (*real, place)
            column[where] = column[where][order]
            changed[name] = column
        return replace(batch, **changed)

    return change


def _lending(
    pool: Mapping[str, Tensor], names: Sequence[str], seed: int, place: slice | None = None
) -> Callable[[Batch], Batch]:
    """Each row gets these inputs of a row of the pool, drawn evenly from those of other users.

    `place` is what is lent of a single input; None = all of it.
    """
    generator = torch.Generator().manual_seed(seed)  # the same donors for every input

    def change(batch: Batch) -> Batch:
        user = batch.user.cpu()
        low = torch.searchsorted(pool["user"], user)
        own = torch.searchsorted(pool["user"], user, right=True) - low
        draw = torch.rand(len(user), generator=generator, dtype=torch.float64)
        donor = (draw * (len(pool["user"]) - own)).long()
        donor = torch.where(donor >= low, donor + own, donor)
        lent: dict[str, Any] = {}
        for name in names:
            column = pool[name][donor].to(batch.user.device)
            if name in OF_HISTORY:
                column = _of_length(column, batch.history.shape[1])
            if place is not None:
                whole = getattr(batch, name).clone()
                whole[:, place] = column[:, place]
                column = whole
            lent[name] = column
        return replace(batch, **lent)

    return change


def _without_history(batch: Batch) -> Batch:
    return replace(batch, history=torch.zeros_like(batch.history))


@contextmanager
def _with_changed(model: nn.Module, change: Callable[[Batch], Batch]) -> Iterator[None]:
    """The model reads changed batches."""
    with model.register_forward_pre_hook(lambda _, batches: (change(*batches),)):
        yield


def _item_rows(modules: Iterable[nn.Module]) -> list[tuple[nn.Module, str]]:
    return [(m, name) for m in modules if isinstance(m, HasItemBuffers) for name in m.item_buffers]


@contextmanager
def _permuted(rows: Sequence[tuple[nn.Module, str]], generator: torch.Generator) -> Iterator[None]:
    """Items swap what stands in these buffers of these modules."""
    before = [(holder, name, getattr(holder, name)) for holder, name in rows]
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

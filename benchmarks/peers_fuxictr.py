"""FuxiCTR's DCNv2, DIN and FinalMLP, of the layers of PyPI fuxictr 2.3.10 (`mmrec[peers]`).

Trained as FuxiCTR trains: BCE, Adam with a coupled L2 term on all that embeds, gradients clipped to
norm 10, two evaluations an epoch, the rate lowered at each evaluation without a better AUC. The
inputs are tensors in memory, so no loader is paid for.

    item     id embedding ; mean of tag embeddings ; linear of the content          (D = 3 x dim)
    history  the last 30 items; each with embeddings of its sign and numbers added
    row      target ; history ; user ; categories ; numbers ; which numbers are missing

B rows, L history, D width of an item.
"""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuxictr_peer import import_fuxictr
from numpy.typing import NDArray
from peers_rows import Rows, content_of, read_rows
from peers_search import Outcome
from torch import Tensor, nn

from mmrec.data.clicks import SPLITS
from mmrec.metrics.auc import auc

LENGTH, BATCH, EPOCHS, PATIENCE = 30, 512, 12, 3


@dataclass(frozen=True)
class Tables:
    """What the models look up; index 0 is padding or missing, 1 what train does not show.

    Attributes:
        of_item: (N,) index of each item's embedding. tags: (N, T). content: (N, W).
        rows: split -> (B, ...) tensors by role.
        sizes: role -> size of its vocabulary, a list for roles of several columns.
        sign: which history category is the sign.
    """

    of_item: Tensor
    tags: Tensor
    content: Tensor
    rows: dict[str, dict[str, Tensor]] = field(repr=False)
    sizes: dict[str, Any]
    numbers: int
    history_numbers: int
    sign: int | None


@functools.lru_cache(maxsize=1)
def tables_of(root: Path) -> Tables:
    """Vocabularies and numbers of train, applied to every split."""
    rows = read_rows(root)
    shown = (rows.counts.item_rows.sum(1) > 0) | rows.counts.in_history
    of_item = np.where(shown, np.cumsum(shown) + 1, 1)
    of_item[0] = 0
    clicks = rows.files.schema.clicks
    plain = [
        np.unique(rows.train.categorical[:, at]) for at in range(rows.train.categorical.shape[1])
    ]
    signs = [rows.counts.values[column.name].value for column in clicks.history_categorical]
    users = np.zeros(0, np.int64) if rows.users is None else rows.users
    return Tables(
        of_item=torch.from_numpy(of_item),
        tags=rows.items.tags,
        content=content_of(root)[0],
        rows={name: _split(rows, name, plain, signs, users) for name in SPLITS},
        sizes={
            "item": int(of_item.max()) + 1,
            "tag": rows.items.num_tags,
            "user": len(users) + 2,
            "categorical": [len(values) + 2 for values in plain],
            "history_categorical": [len(values) + 2 for values in signs],
        },
        numbers=len(clicks.numeric),
        history_numbers=len(clicks.history_numeric),
        sign=rows.sign,
    )


def _split(
    rows: Rows,
    name: str,
    plain: list[NDArray[Any]],
    signs: list[NDArray[Any]],
    users: NDArray[np.int64],
) -> dict[str, Tensor]:
    batch, train = rows.split(name), rows.train
    mean = train.numeric.nanmean(0)
    deviation = (train.numeric - mean).square().nanmean(0).sqrt().clamp(min=1e-6)
    numeric = (batch.numeric - mean) / deviation
    past, before = (
        _log(batch.history_numeric[:, -LENGTH:]),
        _log(train.history_numeric)[train.valid],
    )
    centre = before.nanmean(0)
    spread = (before - centre).square().nanmean(0).sqrt().clamp(min=1e-6)
    of_history = batch.history_categorical[:, -LENGTH:]
    found = {
        "history": batch.history[:, -LENGTH:],
        "target": batch.target,
        "user": _index(users, batch.user),
        "categorical": _indices(plain, batch.categorical),
        "numeric": torch.cat([numeric.nan_to_num(0.0), batch.numeric.isnan().float()], dim=1),
        "history_categorical": _indices(signs, of_history),
        "history_numeric": ((past - centre) / spread).nan_to_num(0.0),
    }
    if rows.sign is not None:
        found["liked"] = of_history[..., rows.sign] == 1
    if name != "test":
        found["label"] = batch.labels[:, 0]
    return found


def _log(values: Tensor) -> Tensor:
    return values.sign() * values.abs().log1p()


def _index(known: NDArray[Any], values: Tensor) -> Tensor:
    """2, 3, ... for the known values, 1 for others."""
    if not len(known):
        return torch.ones_like(values)
    sorted_ = torch.from_numpy(known.astype(np.int64))
    place = torch.searchsorted(sorted_, values.contiguous()).clamp(max=len(known) - 1)
    return torch.where(sorted_[place] == values, place + 2, 1)


def _indices(known: list[NDArray[Any]], values: Tensor) -> Tensor:
    """`_index` of each column of the last dim."""
    each = [_index(column, values[..., at]) for at, column in enumerate(known)]
    return torch.stack(each, dim=-1) if each else values.new_empty((*values.shape[:-1], 0))


class Inputs(nn.Module):
    """What all three models read: target (B, D), history (B, L, D), its mask, the rest (B, C)."""

    def __init__(self, tables: Tables, *, dim: int, content: int) -> None:
        super().__init__()

        def table(size: int, width: int) -> nn.Embedding:
            made = nn.Embedding(size, width, padding_idx=0)
            nn.init.normal_(made.weight, std=1e-4)  # FuxiCTR's default
            return made

        self.out_dim, sizes = 3 * dim, tables.sizes
        self.item, self.user = table(sizes["item"], dim), table(sizes["user"], dim)
        self.tag = nn.EmbeddingBag(sizes["tag"], dim, mode="mean", padding_idx=0)
        nn.init.normal_(self.tag.weight, std=1e-4)
        self.vectors = tables.content[:, :content].contiguous()
        self.content = nn.Linear(self.vectors.shape[1], dim, bias=False)
        self.columns = nn.ModuleList(table(size, dim) for size in sizes["categorical"])
        self.signs = nn.ModuleList(
            table(size, self.out_dim) for size in sizes["history_categorical"]
        )
        self.moment = nn.Linear(max(1, tables.history_numbers), self.out_dim, bias=False)
        self.context_dim = dim * (1 + len(self.columns)) + 2 * tables.numbers
        self.of_item, self.tags = tables.of_item, tables.tags

    def forward(self, row: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ids = torch.cat([row["target"].unsqueeze(1), row["history"]], dim=1)  # (B, 1 + L)
        some, place = torch.unique(ids, return_inverse=True)  # each item of the batch once
        parts = [self.item(self.of_item[some]), self.tag(self.tags[some])]
        items = torch.cat([*parts, self.content(self.vectors[some])], dim=-1)[place]
        history = items[:, 1:]
        for at, sign in enumerate(self.signs):
            history = history + sign(row["history_categorical"][..., at])
        if row["history_numeric"].shape[-1]:
            history = history + self.moment(row["history_numeric"])
        context = [self.user(row["user"])]
        context += [column(row["categorical"][:, at]) for at, column in enumerate(self.columns)]
        context.append(row["numeric"])
        return items[:, 0], history, row["history"] != 0, torch.cat(context, dim=-1)


class Peer(nn.Module):
    """rows -> logits (B,): `inputs`, the history as means or by attention, then `body`."""

    def __init__(self, tables: Tables, setting: dict[str, Any], name: str) -> None:
        super().__init__()
        import_fuxictr()
        self.inputs = Inputs(tables, dim=setting["dim"], content=setting["content"])
        self.signed = tables.sign is not None
        width = self.inputs.out_dim
        pooled = width if name == "din" or not self.signed else 3 * width
        wide = width + pooled + self.inputs.context_dim
        self.attention = attention(width, setting) if name == "din" else None
        self.body = BODIES[name](wide, setting)
        self.apply(_as_fuxictr)

    def forward(self, row: dict[str, Tensor]) -> Tensor:
        target, history, there, context = self.inputs(row)
        if self.attention is not None:
            pooled = self.attention(target, history, there)
        else:
            masks = [there]
            if self.signed:
                masks += [there & row["liked"], there & ~row["liked"]]
            weight = torch.stack(masks, dim=1).to(history.dtype)  # (B, 1 or 3, L)
            weight = weight / weight.sum(-1, keepdim=True).clamp(min=1.0)
            pooled = (weight @ history).flatten(1)
        logit: Tensor = self.body(torch.cat([target, pooled, context], dim=-1))
        return logit.squeeze(-1)


def _as_fuxictr(module: nn.Module) -> None:
    """Its `reset_parameters`."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def attention(width: int, setting: dict[str, Any]) -> nn.Module:
    """DIN's."""
    from fuxictr.pytorch.layers import DIN_Attention

    made: nn.Module = DIN_Attention(
        width, attention_units=list(setting["attention"]), use_softmax=setting["softmax"]
    )
    return made


def mlp(wide: int, widths: Any, setting: dict[str, Any], out: int | None = None) -> nn.Module:
    """`MLP_Block` with the setting's dropout."""
    from fuxictr.pytorch.layers import MLP_Block

    made: nn.Module = MLP_Block(
        wide, hidden_units=list(widths), output_dim=out, dropout_rates=setting["dropout"]
    )
    return made


class DCNv2(nn.Module):
    """Full crosses beside an MLP, and a linear of both."""

    def __init__(self, wide: int, setting: dict[str, Any]) -> None:
        super().__init__()
        from fuxictr.pytorch.layers import CrossNetV2

        self.cross = CrossNetV2(wide, setting["crosses"])
        self.deep = mlp(wide, setting["mlp"], setting)
        self.head = nn.Linear(wide + setting["mlp"][-1], 1)

    def forward(self, wide: Tensor) -> Tensor:
        logit: Tensor = self.head(torch.cat([self.cross(wide), self.deep(wide)], dim=-1))
        return logit


class FinalMLP(nn.Module):
    """Two MLPs, and their bilinear aggregation in heads; as FuxiCTR has it for histories."""

    def __init__(self, wide: int, setting: dict[str, Any]) -> None:
        super().__init__()
        from model_zoo.LongCTR.FinalMLP.FinalMLP import InteractionAggregation

        one, two = setting["mlp"], setting["mlp2"]
        self.one, self.two = mlp(wide, one, setting), mlp(wide, two, setting)
        self.both = InteractionAggregation(one[-1], two[-1], num_heads=setting["heads"])

    def forward(self, wide: Tensor) -> Tensor:
        logit: Tensor = self.both(self.one(wide), self.two(wide))
        return logit


BODIES: dict[str, Callable[[int, dict[str, Any]], nn.Module]] = {
    "dcnv2": DCNv2,
    "din": lambda wide, setting: mlp(wide, setting["mlp"], setting, out=1),
    "finalmlp": FinalMLP,
}


def logits_of(model: Peer, row: dict[str, Tensor]) -> NDArray[np.float32]:
    """(B,) of one split."""
    model.eval()
    with torch.inference_mode():
        parts = [
            model({name: value[at : at + 4096] for name, value in row.items()})
            for at in range(0, len(row["target"]), 4096)
        ]
    model.train()
    return torch.cat(parts).numpy()


def train(name: str, setting: dict[str, Any], seed: int, root: Path) -> Outcome:
    """Train one peer and score valid and test with its best weights."""
    tables, prepared = tables_of(root), content_of(root)[1]
    torch.manual_seed(seed)
    model = Peer(tables, setting, name)
    run = Training(model, setting, tables)
    best = run.go(torch.Generator().manual_seed(seed))
    model.load_state_dict(best)
    return Outcome(
        valid_auc=run.best_auc,
        prepare_seconds=prepared,
        best_seconds=run.best_seconds,
        seconds=run.seconds,
        rows_per_second=run.rows / run.step_seconds,
        parameters=sum(p.numel() for p in model.parameters()),
        best_at=run.best_at,
        valid=logits_of(model, tables.rows["valid"]),
        test=logits_of(model, tables.rows["test"]),
    )


class Training:
    """FuxiCTR's loop; times are CPU seconds since `go` began."""

    def __init__(self, model: Peer, setting: dict[str, Any], tables: Tables) -> None:
        self.model, self.setting, self.tables = model, setting, tables
        embeds = {id(p) for p in model.inputs.parameters()}
        groups = [
            # (l2 / 2) |w|^2 in the loss has the gradient l2 w: Adam's coupled decay.
            {"params": list(model.inputs.parameters()), "weight_decay": setting["l2"]},
            {"params": [p for p in model.parameters() if id(p) not in embeds]},
        ]
        self.optimizer = torch.optim.Adam(groups, lr=setting["learning_rate"])
        self.best_auc, self.best_seconds, self.best_at, self.waited = -1.0, 0.0, "", 0
        self.best: dict[str, Tensor] = {}
        self.rows, self.step_seconds, self.seconds = 0, 0.0, 0.0

    def go(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Train to the end; the best weights."""
        row = self.tables.rows["train"]
        began, count = time.process_time(), len(row["target"])
        steps = -(-count // BATCH)
        for epoch in range(EPOCHS):
            order, last = torch.randperm(count, generator=generator), time.process_time()
            for step in range(steps):
                some = order[step * BATCH : (step + 1) * BATCH]
                self.step({name: value[some] for name, value in row.items()})
                self.rows += len(some)
                if step + 1 in (steps // 2, steps):
                    self.step_seconds += time.process_time() - last
                    self.evaluate(f"{epoch + (step + 1) / steps:.1f} epochs", began)
                    last = time.process_time()
                    if self.waited >= PATIENCE:
                        break
            if self.waited >= PATIENCE:
                break
        self.seconds = time.process_time() - began
        return self.best

    def step(self, row: dict[str, Tensor]) -> None:
        """One step of Adam."""
        self.optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(self.model(row), row["label"])
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
        self.optimizer.step()

    def evaluate(self, at: str, began: float) -> None:
        """Keep the weights if they are the best so far, else lower the rate."""
        row = self.tables.rows["valid"]
        found = auc(row["label"].numpy(), logits_of(self.model, row))
        if found > self.best_auc + 1e-6:
            self.best_auc, self.best_at, self.waited = found, at, 0
            self.best = copy.deepcopy(self.model.state_dict())
            self.best_seconds = time.process_time() - began
            return
        self.waited += 1
        for group in self.optimizer.param_groups:
            group["lr"] = max(group["lr"] * self.setting["plateau"], 1e-6)

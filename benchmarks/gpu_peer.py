"""The step "peer" of `gpu.py`: what fuxictr's layers and loop take on the same card.

With fuxictr at hand (installed, or its folder by `--peer-path`) its own layers are timed. Without,
`TorchPeer` does the same arithmetic in torch alone; each row says which it was.

B rows, L history, D = 256 item width.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from fuxictr_peer import USER_FEATURES, Fed, PeerLoader, PeerModel, import_fuxictr, make_step
from gpu_job import Job, as_lists, draw_batch
from torch import Tensor, nn

from mmrec.data.items import ItemTable
from mmrec.data.microlens import MICROLENS

CONTENT = 128


class TorchPeer(nn.Module):
    """`PeerModel` without fuxictr: its layers' arithmetic, in its order of parameters.

    A rehearsal makes it narrower: `dim` is the width of every embedding.
    """

    def __init__(
        self, *, items: int, tags: int, length: int, content: int = 128, dim: int = 64
    ) -> None:
        super().__init__()
        width = 2 * dim + content
        self.levels = nn.ModuleList(nn.Embedding(11, dim, padding_idx=0) for _ in USER_FEATURES)
        self.ids = nn.Embedding(items, dim, padding_idx=0)
        self.tags = nn.Embedding(tags, dim, padding_idx=0)
        self.length = length
        layer = nn.TransformerEncoderLayer(
            2 * width, nhead=1, dim_feedforward=256, dropout=0.2, batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
        self.pooled = nn.Linear(2 * width, 2 * width)
        wide = 17 * 2 * width + width + 2 * dim
        self.cross = nn.ModuleList(nn.Linear(wide, wide) for _ in range(3))
        self.deep = _mlp(wide, (1024, 512, 256), dropout=0.2)
        self.head = nn.Sequential(*_mlp(wide + 256, (64, 32)), nn.Linear(32, 1), nn.Sigmoid())

    def forward(self, user: dict[str, Tensor], item: dict[str, Tensor], padding: Tensor) -> Tensor:
        levels = zip(self.levels, USER_FEATURES, strict=True)
        context = torch.cat([table(user[name].long()) for table, name in levels], dim=-1)
        tags = self.tags(item["item_tags"].long())
        # fuxictr's MaskedAveragePooling: the mean over what is not padding.
        there = (tags.sum(-1) != 0).float().sum(-1, keepdim=True)
        parts = [self.ids(item["item_id"].long()), tags.sum(-2) / (there + 1e-12)]
        vectors = torch.cat([*parts, item["item_emb_d128"]], dim=-1)
        vectors = vectors.view(len(padding), self.length + 1, -1)
        target = vectors[:, -1]
        pairs = torch.cat(
            [vectors[:, :-1], target.unsqueeze(1).expand(-1, self.length, -1)], dim=-1
        )  # (B, L, 2D)
        seen = self.encoder(pairs, src_key_padding_mask=padding)
        filled = seen.masked_fill(padding.unsqueeze(-1), -1e9)
        last, pooled = seen[:, -16:].flatten(1), self.pooled(filled.amax(dim=1))
        wide = torch.cat([last, pooled, target, context], dim=-1)
        crossed = wide
        for layer in self.cross:
            crossed = crossed + wide * layer(crossed)
        probability: Tensor = self.head(torch.cat([crossed, self.deep(wide)], dim=-1)).squeeze(-1)
        return probability


def _mlp(width: int, hidden: tuple[int, ...], *, dropout: float = 0.0) -> nn.Sequential:
    layers: list[nn.Module] = []
    for out in hidden:
        layers += [nn.Linear(width, out), nn.ReLU(), *[nn.Dropout(dropout)] * (dropout > 0)]
        width = out
    return nn.Sequential(*layers)


def peer(job: Job) -> None:
    """The step "peer": the step on batches that lie on the device, then with its loader."""
    if job.peer is not None:
        sys.path.insert(0, str(job.peer))
    theirs = find_spec("fuxictr") is not None and not job.small
    if theirs:
        import_fuxictr()
    size = job.size
    length = 16 if job.small else size.length  # it flattens the last 16 places
    content = 8 if job.small else CONTENT
    sizes = {"items": size.items, "tags": size.tags, "length": length, "content": content}
    torch.manual_seed(0)
    model = PeerModel(**sizes) if theirs else TorchPeer(**sizes, dim=4 if job.small else 64)
    model.to(job.device).train()
    layers = "fuxictr's layers" if theirs else "its arithmetic in torch"
    step = make_step(model, job.device)
    for rows in sorted({min(size.batches), 2048 if 2048 in size.batches else max(size.batches)}):
        with job.attempt(layers=layers, batch=rows, data="on the device") as row:
            fed = [feed(job, rows, length, content, seed) for seed in range(2)]
            row |= timed(job, step, (fed[turn % 2] for turn in range(10**6)), rows)
    rows = min(size.batches)
    with job.attempt(layers=layers, batch=rows, data="its loader") as row:
        row |= timed(job, step, iter(load(job, rows, length, content)), rows)


def timed(
    job: Job, step: Callable[[Fed], None], batches: Iterator[Fed], rows: int
) -> dict[str, float]:
    """Milliseconds of a step with its batch, the mean of many in a row."""
    for _ in range(2):
        step(next(batches))
    job.wait()
    began = time.perf_counter()
    for _ in range(job.size.steps):
        step(next(batches))
    job.wait()
    seconds = (time.perf_counter() - began) / job.size.steps
    return {"step_ms": 1e3 * seconds, "samples_per_second": rows / seconds}


def feed(job: Job, rows: int, length: int, content: int, seed: int) -> Fed:
    """A ready batch on the device, every place of the history computed as fuxictr does."""
    batch, size = draw_batch(job.size, rows, full=False, seed=seed), job.size
    draw = torch.Generator().manual_seed(seed)
    history = batch.history[:, -length:]
    ids = torch.cat([history, batch.target.unsqueeze(1)], dim=1).flatten()
    item = {
        "item_id": ids,
        "item_tags": torch.randint(1, size.tags, (len(ids), 5), generator=draw),
        "item_emb_d128": torch.randn(len(ids), content, generator=draw),
    }
    user = {name: batch.categorical[:, at] for at, name in enumerate(USER_FEATURES)}
    moved = [{k: v.to(job.device) for k, v in part.items()} for part in (user, item)]
    padding, label = (history == 0).to(job.device), batch.labels[:, 0].to(job.device)
    return moved[0], moved[1], padding, label


def load(job: Job, rows: int, length: int, content: int) -> PeerLoader:
    """Rows in memory and a pandas look-up a batch, over a file of the size that is timed."""
    clicks, items = MICROLENS.clicks, MICROLENS.items
    batch = draw_batch(job.size, rows * (job.size.steps + 3), full=False)
    columns: dict[str, Any] = {clicks.history: as_lists(batch.history[:, -length:].numpy())}
    columns |= {clicks.target: batch.target.numpy(), "label": batch.labels[:, 0].numpy()}
    columns |= {n: batch.categorical[:, at].numpy() for at, n in enumerate(USER_FEATURES)}
    pq.write_table(pa.table(columns), job.folder / "peer.parquet")
    table: ItemTable = job.items()
    vectors = torch.randn(job.size.items, content).numpy()
    info: dict[str, Any] = {
        items.id: range(job.size.items),
        "item_tags": as_lists(table.tags.numpy()),
    }
    info["item_emb_d128"] = as_lists(vectors)
    pq.write_table(pa.table(info), job.folder / "peer_items.parquet")
    return PeerLoader(
        job.folder / "peer.parquet", job.folder / "peer_items.parquet", batch_size=rows
    )

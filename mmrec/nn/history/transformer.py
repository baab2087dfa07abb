"""A Transformer over the history, each item beside the target.

B rows, L history, D item width, W token width (2 · D, or `width`), T tokens, H heads.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrec.errors import not_negative, positive, probability, require
from mmrec.nn.history.sequence import without_padding
from mmrec.nn.history.tokens import Tokens, compact_here
from mmrec.nn.users import EMBEDDING_STD


class TransformerLayer(nn.Module):
    """One layer of arXiv:1706.03762; the numbers of `torch.nn.TransformerEncoderLayer`.

    Post-norm: x = LN(x + MHA(x)), x = LN(x + FF(x));
    pre-norm: x = x + MHA(LN(x)), x = x + FF(LN(x)); FF(x) = W_2 relu(W_1 x + b_1) + b_2.
    Written out, so that all but the attention itself runs on a list of tokens without padding.
    """

    def __init__(
        self, *, dim: int, heads: int, ff_dim: int, dropout: float = 0.0, pre_norm: bool = False
    ) -> None:
        super().__init__()
        positive(dim=dim, heads=heads, ff_dim=ff_dim)
        probability(dropout=dropout)
        require(
            dim % heads == 0, f"the token width must be a multiple of heads, got {dim} and {heads}"
        )
        self.heads, self.pre_norm = heads, pre_norm
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.linear1, self.linear2 = nn.Linear(dim, ff_dim), nn.Linear(ff_dim, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, tokens: Tokens, attend: Tensor) -> Tensor:
        """x (T, W), attend (B, 1, 1, L) bool -> (T, W)."""
        if self.pre_norm:
            x = x + self._attention(self.norm1(x), tokens, attend)
            return x + self._feed_forward(self.norm2(x))
        x = cast(Tensor, self.norm1(x + self._attention(x, tokens, attend)))
        return cast(Tensor, self.norm2(x + self._feed_forward(x)))

    def _attention(self, x: Tensor, tokens: Tokens, attend: Tensor) -> Tensor:
        # Cut along the last dim: their gradients are joined in one copy.
        shape = tokens.batch, tokens.length, self.heads, x.shape[-1] // self.heads
        query, key, value = (
            part.view(shape).transpose(1, 2)  # (B, H, L, d)
            for part in tokens.spread(self.qkv(x)).chunk(3, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=attend,
            dropout_p=self.dropout.p if self.training else 0.0,
        )
        mixed = mixed.transpose(1, 2).reshape(tokens.batch, tokens.length, x.shape[-1])
        return cast(Tensor, self.dropout(self.out(tokens.take(mixed))))

    def _feed_forward(self, x: Tensor) -> Tensor:
        hidden = self.dropout(self.linear1(x).relu())
        return cast(Tensor, self.dropout(self.linear2(hidden)))


class TargetTransformer(nn.Module):
    """x_l = [h_l; t] through Transformer layers; out go positions and a pooled vector:

    y = [x_{L-last+1}; …; x_L; W_p max_{l valid} x_l + b_p], zero at padding.

    Each token holds the target, so that many targets of one history share nothing (`shared.py`).

    Args:
        dim: D, width of an item.
        layers, heads, ff_dim, dropout, pre_norm: of the Transformer.
        last: how many of the last positions go out, flattened; 0 = none.
        pool: whether the pooled vector goes out.
        positions: number of learned position vectors added to the history items, counted from the
            newest, older ones sharing the last; 0 = none.
        width: W. None keeps [h_l; t], else x_l = W_in [h_l; t] + b_in.
        compact: compute real items only; None = on the CPU (see `Tokens`).

    >>> encoder = TargetTransformer(dim=4, layers=1, heads=2, ff_dim=5, last=3)
    >>> encoder(torch.ones(2, 7, 4), torch.ones(2, 4), torch.ones(2, 7, dtype=torch.bool)).shape
    torch.Size([2, 32])
    """

    def __init__(
        self,
        *,
        dim: int,
        layers: int = 2,
        heads: int = 1,
        ff_dim: int = 256,
        dropout: float = 0.0,
        pre_norm: bool = False,
        last: int = 16,
        pool: bool = True,
        positions: int = 0,
        width: int | None = None,
        compact: bool | None = None,
    ) -> None:
        super().__init__()
        positive(dim=dim, layers=layers)
        not_negative(last=last, positions=positions)
        require(last or pool, "last or pool must be on, else nothing goes out; got last=0, no pool")
        token = 2 * dim if width is None else width
        self.dim, self.last, self.compact = dim, last, compact
        self.out_dim = (last + int(pool)) * token
        self.project = None if width is None else nn.Linear(2 * dim, width)
        self.position = nn.Embedding(positions, dim) if positions else None
        if self.position is not None:
            nn.init.normal_(self.position.weight, std=EMBEDDING_STD)
        self.layers = nn.ModuleList(
            TransformerLayer(
                dim=token, heads=heads, ff_dim=ff_dim, dropout=dropout, pre_norm=pre_norm
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(token) if pre_norm else None
        self.pool = nn.Linear(token, token) if pool else None

    def forward(self, history: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        if self.position is not None:
            history = history + self._positions(self.position, valid.shape[1])
        history = without_padding(history, target, valid, dim=self.dim)
        tokens = Tokens(valid, compact=compact_here(self.compact, history))
        # A row without items looks at its (zeroed) padding: a softmax over nothing would be NaN.
        attend = (valid | ~valid.any(1, keepdim=True))[:, None, None, :]
        x = self._enter(tokens, tokens.take(history), target)
        for layer in self.layers:
            x = layer(x, tokens, attend)
        if self.norm is not None:
            x = self.norm(x)
        return self._leave(tokens.spread(x), valid)

    def _enter(self, tokens: Tokens, item: Tensor, target: Tensor) -> Tensor:
        """[h; t], or W_h h + W_t t + b, where the target's share is computed once a row: (T, W)."""
        if self.project is None:
            return torch.cat([item, tokens.repeat(target)], dim=-1)
        weight = self.project.weight
        share = F.linear(target, weight[:, self.dim :], self.project.bias)  # (B, W)
        return F.linear(item, weight[:, : self.dim]) + tokens.repeat(share)

    def _positions(self, table: nn.Embedding, length: int) -> Tensor:
        """(L, D): position vectors, the newest item's being number 0."""
        age = torch.arange(length - 1, -1, -1, device=table.weight.device)
        return cast(Tensor, table(age.clamp(max=table.num_embeddings - 1)))

    def _leave(self, x: Tensor, valid: Tensor) -> Tensor:
        """(B, L, W) -> (B, out_dim)."""
        padding = ~valid.unsqueeze(-1)
        parts = []
        if self.last:
            missing = max(0, self.last - x.shape[1])
            tail = x[:, -self.last :].masked_fill(padding[:, -self.last :], 0)
            parts.append(F.pad(tail, (0, 0, missing, 0)).flatten(1))  # (B, last · W)
        if self.pool is not None:
            if not x.shape[1]:  # no position at all is no item
                x, padding = (
                    x.new_zeros(x.shape[0], 1, x.shape[2]),
                    padding.new_ones(x.shape[0], 1, 1),
                )
            lowest = x.masked_fill(padding, torch.finfo(x.dtype).min)
            largest = lowest.amax(1).masked_fill(~valid.any(1, keepdim=True), 0)
            parts.append(self.pool(largest))
        return torch.cat(parts, dim=-1)

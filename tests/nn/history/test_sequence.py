"""Sequence encoders: the mask contract on each of them, and agreement with slow code."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from reference.sequence import din, mean_pool, relu_attention
from torch import Tensor, nn

from mmrec.errors import InputError
from mmrec.nn import (
    DINAttention,
    MeanPool,
    NoHistory,
    ParallelSequences,
    ReluAttention,
    SequenceEncoder,
    SimTier,
    TargetTransformer,
)

ROWS, LENGTH, DIM = 5, 11, 7
Stir = Callable[[nn.Module], nn.Module]
Make = Callable[[], nn.Module]


def transformer(**options: object) -> nn.Module:
    defaults: dict[str, object] = {"dim": DIM, "layers": 2, "heads": 2, "ff_dim": 13, "last": 3}
    return TargetTransformer(**{**defaults, **options})  # type: ignore[arg-type]


ENCODERS: dict[str, Make] = {
    "transformer": transformer,
    "transformer all positions": lambda: transformer(compact=False),
    "transformer, pre-norm": lambda: transformer(pre_norm=True),
    "transformer, narrow": lambda: transformer(width=6),
    "transformer, positions": lambda: transformer(positions=4),
    "transformer, pooled": lambda: transformer(last=0),
    "transformer, long tail": lambda: transformer(last=LENGTH + 2, pool=False),
    "mean": lambda: MeanPool(dim=DIM),
    "din": lambda: DINAttention(dim=DIM, hidden=(13,)),
    "din all positions": lambda: DINAttention(dim=DIM, hidden=(13,), compact=False),
    "din, softmax": lambda: DINAttention(dim=DIM, hidden=(13,), softmax=True),
    "relu": lambda: ReluAttention(dim=DIM, heads=3, width=6),
    "relu all positions": lambda: ReluAttention(dim=DIM, heads=3, width=6, compact=False),
    "tiers": lambda: SimTier(tiers=5),
    "parallel": lambda: ParallelSequences(
        encoders=[MeanPool(dim=DIM), transformer(last=2), DINAttention(dim=DIM)]
    ),
}
every_encoder = pytest.mark.parametrize("make", ENCODERS.values(), ids=ENCODERS.keys())


def batch(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Left-padded rows with 0, 1, 4, 8 and 11 items."""
    history = torch.randn(ROWS, LENGTH, DIM, dtype=dtype)
    target = torch.randn(ROWS, DIM, dtype=dtype)
    length = torch.tensor([0, 1, 4, 8, LENGTH])
    valid = torch.arange(LENGTH) >= LENGTH - length[:, None]
    return history, target, valid


@every_encoder
def test_padding_is_inert_to_the_bit(make: Make, stirred: Stir) -> None:
    encoder = stirred(make())
    history, target, valid = batch()
    out = encoder(history, target, valid)
    for filler in (1e6, float("nan"), float("inf")):
        spoiled = history.masked_fill(~valid.unsqueeze(-1), filler)
        assert torch.equal(encoder(spoiled, target, valid), out)


@every_encoder
def test_every_real_item_matters(make: Make, stirred: Stir) -> None:
    encoder = stirred(make())
    history, target, valid = batch()
    out = encoder(history, target, valid)
    for position in range(LENGTH):
        differs = torch.zeros(ROWS, dtype=torch.bool)
        for replacement in (target, -target):  # relu and tiers are blind to some single changes
            changed = history.clone()
            changed[:, position] = 3 * replacement
            differs |= (encoder(changed, target, valid) != out).any(1)
        assert torch.equal(differs, valid[:, position])


@every_encoder
def test_a_row_of_padding_has_finite_output_and_gradient(make: Make, stirred: Stir) -> None:
    encoder = stirred(make()).train()
    history, target, valid = batch()
    history.requires_grad_(), target.requires_grad_()
    for mask in (valid, torch.zeros_like(valid)):
        encoder.zero_grad()
        out = encoder(history, target, mask)
        assert out.isfinite().all()
        if not out.requires_grad:
            continue  # tiers: counts have no gradient
        (out * torch.randn_like(out)).sum().backward()
        gradients = [history.grad, *(p.grad for p in encoder.parameters())]
        assert all(g.isfinite().all() for g in gradients if g is not None)
        assert history.grad is not None
        assert torch.equal(history.grad[~mask], torch.zeros_like(history.grad[~mask]))
        history.grad = None


@every_encoder
def test_longer_left_padding_gives_the_same_output(make: Make, stirred: Stir) -> None:
    encoder = stirred(make())
    history, target, valid = batch()
    more = torch.randn(ROWS, 3, DIM, dtype=history.dtype)
    longer = torch.cat([more, history], dim=1)
    mask = torch.cat([torch.zeros(ROWS, 3, dtype=torch.bool), valid], dim=1)
    torch.testing.assert_close(
        encoder(longer, target, mask), encoder(history, target, valid), rtol=1e-12, atol=1e-12
    )


@every_encoder
def test_batch_order_and_neighbours_do_not_matter(make: Make, stirred: Stir) -> None:
    encoder = stirred(make())
    history, target, valid = batch()
    out = encoder(history, target, valid)
    assert out.shape == (ROWS, encoder.out_dim)
    order = torch.tensor([3, 0, 4, 2, 1])
    torch.testing.assert_close(encoder(history[order], target[order], valid[order]), out[order])
    torch.testing.assert_close(encoder(history[2:3], target[2:3], valid[2:3]), out[2:3])


@every_encoder
def test_compact_or_not_is_the_same_with_its_gradients(make: Make, stirred: Stir) -> None:
    encoder = stirred(make())
    if not hasattr(encoder, "compact"):
        pytest.skip("has no flag")
    history, target, valid = batch()
    results = []
    for compact in (True, False):
        encoder.compact = compact
        encoder.zero_grad()
        out = encoder(history, target, valid)
        (out**2).sum().backward()
        results.append([out, *(p.grad for p in encoder.parameters())])
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-10)


@every_encoder
def test_bfloat16_autocast_is_close(make: Make) -> None:
    encoder = make().eval()
    history, target, valid = batch(torch.float32)
    exact = encoder(history, target, valid)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = encoder(history, target, valid)
    torch.testing.assert_close(rough.float(), exact, rtol=0.1, atol=0.1)


@every_encoder
def test_wrong_shapes_are_named(make: Make) -> None:
    encoder = make()
    if isinstance(encoder, SimTier):
        pytest.skip("takes vectors of any width")
    history, target, valid = batch(torch.float32)
    with pytest.raises(InputError, match=r"got \(5, 11, 7\), \(5, 6\) and \(5, 11\)"):
        encoder(history, target[:, :-1], valid)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_transformer_agrees_with_torch(pre_norm: bool, stirred: Stir) -> None:
    """On whole histories, and on padded ones with torch's own (flipped) mask."""
    encoder = transformer(last=LENGTH, pool=False, pre_norm=pre_norm)
    stirred(encoder)
    assert isinstance(encoder, TargetTransformer)
    theirs = torch_encoder(encoder, pre_norm=pre_norm)
    history, target, valid = batch()
    valid[0, -1] = True  # torch has no answer for a row without items
    tokens = torch.cat([history, target.unsqueeze(1).expand(-1, LENGTH, -1)], dim=-1)
    expected = theirs(tokens, src_key_padding_mask=~valid)
    got = encoder(history, target, valid).view(ROWS, LENGTH, 2 * DIM)
    torch.testing.assert_close(got[valid], expected[valid], rtol=1e-10, atol=1e-10)
    assert torch.equal(got[~valid], torch.zeros_like(got[~valid]))


def test_transformer_output_is_the_tail_beside_the_pooled_maximum(stirred: Stir) -> None:
    encoder = transformer(last=2)
    stirred(encoder)
    assert isinstance(encoder, TargetTransformer)
    theirs = torch_encoder(encoder, pre_norm=False)
    history, target, valid = batch()
    out = encoder(history, target, valid)
    width = 2 * DIM
    for row in range(1, ROWS):
        items = history[row][valid[row]]
        x = theirs(torch.cat([items, target[row].expand(len(items), -1)], dim=-1)[None])[0]
        tail = torch.cat([torch.zeros(2, width, dtype=x.dtype), x])[-2:].flatten()
        assert encoder.pool is not None
        expected = torch.cat([tail, encoder.pool(x.amax(0))])
        torch.testing.assert_close(out[row], expected, rtol=1e-10, atol=1e-10)
    nothing = torch.zeros(2 * width, dtype=out.dtype)
    torch.testing.assert_close(out[0], torch.cat([nothing, encoder.pool.bias]))


def torch_encoder(encoder: TargetTransformer, *, pre_norm: bool) -> nn.Module:
    """`torch.nn.TransformerEncoder` with the weights of ours, in training mode without dropout
    (its inference path is a kernel of its own)."""
    width, ff = 2 * DIM, 13
    layer = nn.TransformerEncoderLayer(
        width, 2, ff, 0.0, batch_first=True, norm_first=pre_norm, dtype=torch.float64
    )
    norm = nn.LayerNorm(width, dtype=torch.float64) if pre_norm else None
    theirs = nn.TransformerEncoder(layer, len(encoder.layers), norm, enable_nested_tensor=False)
    names = {
        "self_attn.in_proj_weight": "qkv.weight",
        "self_attn.in_proj_bias": "qkv.bias",
        "self_attn.out_proj.weight": "out.weight",
        "self_attn.out_proj.bias": "out.bias",
    }
    for mine, other in zip(encoder.layers, theirs.layers, strict=True):
        state = mine.state_dict()
        other.load_state_dict({name: state[names.get(name, name)] for name in other.state_dict()})
    if pre_norm:
        assert theirs.norm is not None
        assert encoder.norm is not None
        theirs.norm.load_state_dict(encoder.norm.state_dict())
    return theirs.train()


def test_position_vectors_count_from_the_newest(stirred: Stir) -> None:
    encoder = transformer(positions=4, last=LENGTH, pool=False, layers=1)
    stirred(encoder)
    assert isinstance(encoder, TargetTransformer)
    plain = transformer(last=LENGTH, pool=False, layers=1)
    plain.double().eval().load_state_dict(encoder.state_dict(), strict=False)
    history, target, valid = batch()
    assert encoder.position is not None
    moved = history.clone()
    for position in range(LENGTH):
        age = min(LENGTH - 1 - position, 3)
        moved[:, position] += encoder.position.weight[age]
    torch.testing.assert_close(encoder(history, target, valid), plain(moved, target, valid))


def test_mean_pool_is_the_plain_loop() -> None:
    history, target, valid = batch()
    slow = [mean_pool(h, v, DIM) for h, v in zip(history.tolist(), valid.tolist(), strict=True)]
    got = MeanPool(dim=DIM)(history, target, valid)
    torch.testing.assert_close(got, torch.tensor(slow, dtype=torch.float64))


@pytest.mark.parametrize("softmax", [False, True])
def test_din_is_the_plain_loop(softmax: bool, stirred: Stir) -> None:
    encoder = DINAttention(dim=DIM, hidden=(13,), softmax=softmax)
    stirred(encoder)
    history, target, valid = batch()

    @torch.no_grad()
    def score(features: list[float]) -> float:
        return encoder.score(torch.tensor(features, dtype=torch.float64)).item()

    rows = zip(history.tolist(), target.tolist(), valid.tolist(), strict=True)
    slow = [din(h, t, v, score, softmax) for h, t, v in rows]
    got = encoder(history, target, valid)
    torch.testing.assert_close(got, torch.tensor(slow, dtype=torch.float64))


def test_relu_attention_is_the_plain_loop(stirred: Stir) -> None:
    encoder = ReluAttention(dim=DIM, heads=3, width=6)
    stirred(encoder)
    history, target, valid = batch()
    keys, values = encoder.key_value(history).split(6, dim=-1)
    rows = zip(
        keys.tolist(),
        values.tolist(),
        encoder.query(target).tolist(),
        valid.tolist(),
        strict=True,
    )
    slow = [relu_attention(k, w, q, v, heads=3) for k, w, q, v in rows]
    got = encoder(history, target, valid)
    torch.testing.assert_close(got, torch.tensor(slow, dtype=torch.float64))


def test_tiers_count_cosines() -> None:
    history, target, valid = batch()
    got = SimTier(tiers=5)(history, target, valid)
    for row in range(ROWS):
        counts = [0] * 5
        for item in history[row][valid[row]]:
            cosine = float(item @ target[row] / item.norm() / target[row].norm())
            counts[min(4, int((cosine + 1) / 0.4))] += 1
        expected = torch.tensor(counts, dtype=torch.float64).log1p()
        torch.testing.assert_close(got[row], expected)


def test_no_history_is_empty_and_all_are_sequence_encoders() -> None:
    history, target, valid = batch()
    assert NoHistory()(history, target, valid).shape == (ROWS, 0)
    for make in [*ENCODERS.values(), NoHistory]:
        assert isinstance(make(), SequenceEncoder)


def test_impossible_sizes_are_named() -> None:
    with pytest.raises(InputError, match="multiple of heads, got 14 and 3"):
        transformer(heads=3)
    with pytest.raises(InputError, match="nothing goes out"):
        transformer(last=0, pool=False)


@pytest.mark.parametrize(
    "encoder",
    [
        MeanPool(dim=4),
        NoHistory(),
        DINAttention(dim=4),
        DINAttention(dim=4, softmax=True, compact=False),
        ReluAttention(dim=4, heads=2),
        TargetTransformer(dim=4, heads=2, last=3),
        TargetTransformer(dim=4, heads=2, last=0, positions=2, compact=False),
        ParallelSequences(encoders=[MeanPool(dim=4), TargetTransformer(dim=4, width=6)]),
    ],
    ids=lambda encoder: type(encoder).__name__,
)
def test_no_rows_and_no_positions(encoder: SequenceEncoder) -> None:
    """A batch of nobody is a batch; a history of width 0 is one of padding alone."""
    for rows, length in ((0, 5), (3, 0), (0, 0), (1, 1)):
        history, target = torch.randn(rows, length, 4), torch.randn(rows, 4)
        out = encoder(history, target, torch.zeros(rows, length, dtype=torch.bool))
        assert out.shape == (rows, encoder.out_dim)
        assert out.isfinite().all()
        padded = torch.zeros(rows, 2, dtype=torch.bool)
        same = encoder(torch.randn(rows, 2, 4), target, padded)
        torch.testing.assert_close(out, same)

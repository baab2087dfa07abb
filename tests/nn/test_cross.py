"""Cross networks: plain loops, the peer's layers, any leading dims, autocast."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.cross import cross_mix, cross_v2
from torch import nn

from mmrec.errors import InputError
from mmrec.nn import CrossNetLowRank, CrossNetMix, CrossNetV2

DIM, DEPTH, EXPERTS, RANK = 7, 3, 5, 2
Stir = Callable[[nn.Module], nn.Module]


def fuxictr_file(name: str) -> Any:
    """One file of PyPI fuxictr. It needs torch alone, where its packages import ray and h5py."""
    package = find_spec("fuxictr")
    assert package is not None, "pip install --no-deps fuxictr==2.3.10, as the Makefile does"
    (root,) = package.submodule_search_locations or ()
    spec = spec_from_file_location(f"peer_{Path(name).stem}", Path(root) / name)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def every_cross() -> list[nn.Module]:
    return [
        CrossNetV2(dim=DIM, depth=DEPTH),
        CrossNetLowRank(dim=DIM, depth=DEPTH, rank=RANK),
        CrossNetMix(dim=DIM, depth=DEPTH, num_experts=EXPERTS, rank=RANK),
    ]


@pytest.mark.parametrize("rows", [1, 5])
def test_full_rank_is_the_plain_loop(rows: int, stirred: Stir) -> None:
    net = CrossNetV2(dim=DIM, depth=DEPTH)
    stirred(net)
    x = torch.randn(rows, DIM, dtype=torch.float64)
    weights = [layer.weight.tolist() for layer in net.layers]
    biases = [layer.bias.tolist() for layer in net.layers]
    exact = [cross_v2(row, weights, biases) for row in x.tolist()]
    torch.testing.assert_close(
        net(x), torch.tensor(exact, dtype=torch.float64), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("rows", [1, 5])
def test_low_rank_is_full_rank_with_the_product(rows: int, stirred: Stir) -> None:
    net = CrossNetLowRank(dim=DIM, depth=DEPTH, rank=RANK)
    stirred(net)
    x = torch.randn(rows, DIM, dtype=torch.float64)
    weights = [
        (up.weight @ down.weight).tolist() for up, down in zip(net.up, net.down, strict=True)
    ]
    biases = [up.bias.tolist() for up in net.up]
    slow = [cross_v2(row, weights, biases) for row in x.tolist()]
    torch.testing.assert_close(
        net(x), torch.tensor(slow, dtype=torch.float64), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("rows", [1, 5])
def test_mixture_is_the_plain_loop(rows: int, stirred: Stir) -> None:
    net = CrossNetMix(dim=DIM, depth=DEPTH, num_experts=EXPERTS, rank=RANK)
    stirred(net)
    x = torch.randn(rows, DIM, dtype=torch.float64)
    slow = [
        cross_mix(
            row,
            net.gate.weight.tolist(),
            net.u.tolist(),
            net.v.tolist(),
            net.c.tolist(),
            net.bias.tolist(),
        )
        for row in x.tolist()
    ]
    torch.testing.assert_close(
        net(x), torch.tensor(slow, dtype=torch.float64), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("net", every_cross(), ids=lambda net: type(net).__name__)
def test_any_leading_dims_and_any_order_of_rows(net: nn.Module, stirred: Stir) -> None:
    stirred(net)
    x = torch.randn(3, 5, DIM, dtype=torch.float64)
    out = net(x)
    assert out.shape == x.shape
    torch.testing.assert_close(net(x[1, 2]), out[1, 2])
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(net(x[order]), out[order])


@pytest.mark.parametrize("net", every_cross(), ids=lambda net: type(net).__name__)
def test_bfloat16_autocast_is_close(net: nn.Module) -> None:
    x = torch.randn(11, DIM)
    exact = net(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = net(x)
    torch.testing.assert_close(rough.float(), exact, rtol=0.05, atol=0.05)
    rough.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("rows", [2, 5])
def test_agrees_with_fuxictr(rows: int, stirred: Stir) -> None:
    """At one row the peer's mixture drops the batch axis, so the comparison starts at two."""
    peer = fuxictr_file("pytorch/layers/interactions/cross_net.py")
    x = torch.randn(rows, DIM, dtype=torch.float64)

    ours = CrossNetV2(dim=DIM, depth=DEPTH)
    stirred(ours)
    theirs = peer.CrossNetV2(DIM, DEPTH).double()
    for mine, other in zip(ours.layers, theirs.cross_layers, strict=True):
        other.load_state_dict(mine.state_dict())
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-12, atol=1e-12)

    mixed = CrossNetMix(dim=DIM, depth=DEPTH, num_experts=EXPERTS, rank=RANK)
    stirred(mixed)
    other = peer.CrossNetMix(DIM, layer_num=DEPTH, low_rank=RANK, num_experts=EXPERTS).double()
    with torch.no_grad():
        for layer in range(DEPTH):
            other.U_list[layer].copy_(mixed.u[layer])
            other.V_list[layer].copy_(mixed.v[layer])
            other.C_list[layer].copy_(mixed.c[layer])
            other.bias[layer].copy_(mixed.bias[layer].unsqueeze(1))
        for expert in range(EXPERTS):
            other.gating[expert].weight.copy_(mixed.gate.weight[expert : expert + 1])
    torch.testing.assert_close(mixed(x), other(x), rtol=1e-12, atol=1e-12)


def test_sizes_are_checked() -> None:
    with pytest.raises(InputError, match="depth must be a whole number of at least 1, got 0"):
        CrossNetV2(dim=3, depth=0)


def test_parameter_counts_of_the_docstrings() -> None:
    counts = [sum(p.numel() for p in net.parameters()) for net in every_cross()]
    assert counts[0] == DEPTH * (DIM**2 + DIM)
    assert counts[1] == DEPTH * (2 * DIM * RANK + DIM)
    assert counts[2] == DEPTH * (EXPERTS * (2 * DIM * RANK + RANK**2) + DIM) + EXPERTS * DIM

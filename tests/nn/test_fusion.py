"""Every fusion: its formula in plain loops, and the contract that all of them keep."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from reference import fusion as slow
from sklearn.decomposition import PCA as SklearnPCA
from slow_variants import thorough
from torch import Tensor, nn

from mmrec.errors import InputError
from mmrec.nn.fusion import (
    FUSIONS,
    ConditionedFusion,
    EstimatedFusion,
    Fusion,
    ModalityDropout,
    TwoModalFusion,
    build_fusion,
)
from mmrec.nn.kmeans import kmeans, nearest

IMAGE, TEXT, OUT, CONTEXT, ITEMS = 7, 5, 3, 2, 61
OPTIONS: dict[str, dict[str, Any]] = {
    "cross_attention": {"tokens": 2, "width": 4},
    "film": {"context_dim": CONTEXT},
    "semantic_ids": {"levels": 2, "codes": 5},
    "semantic_ids_dense": {"levels": 2, "codes": 5},
    "senet": {"reduction": 4},
    "bilinear": {"core": 2},
}
NAMES = sorted(set(FUSIONS) - {"precomputed"})
every_fusion = pytest.mark.parametrize("name", [*NAMES, "precomputed"])


def content(*lead: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """Image, text and masks in which all four kinds of presence occur."""
    rows = torch.arange(max(1, int(torch.tensor(lead).prod()))).view(lead)
    image, text = torch.randn(*lead, IMAGE, dtype=dtype), torch.randn(*lead, TEXT, dtype=dtype)
    return image, text, rows % 2 == 0, rows // 2 % 2 == 0


def fusion_of(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Estimated where it needs to be, no parameter at a telling value, evaluation mode."""
    width = IMAGE if name == "precomputed" else OUT
    made = build_fusion(
        name, image_dim=IMAGE, text_dim=TEXT, out_dim=width, **OPTIONS.get(name, {})
    )
    fusion = cast(nn.Module, made).to(dtype)
    if isinstance(made, EstimatedFusion):
        made.estimate(*content(ITEMS, dtype=dtype))
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return fusion.eval()


def loops(name: str, fusion: nn.Module, parts: tuple[Tensor, ...]) -> Tensor:
    """The fusion of rows (B,) by the plain reference."""
    weights = {key: value.tolist() for key, value in fusion.state_dict().items()}
    out = []
    for image, text, has_image, has_text in zip(*(p.tolist() for p in parts), strict=True):
        x = image if has_image else weights.get("absent.image", weights.get("absent"))
        y = text if has_text else weights.get("absent.text")
        seen = (image if has_image else None, text if has_text else None)
        if name == "precomputed":
            out.append(x)
        elif name == "mean":
            out.append(slow.mean(weights, *seen))
        elif name == "semantic_ids":
            out.append(slow.semantic_ids(weights, *seen, IMAGE))
        elif name == "semantic_ids_dense":
            ids = {k.removeprefix("ids."): v for k, v in weights.items() if k.startswith("ids.")}
            x = image if has_image else weights["dense.absent.image"]
            y = text if has_text else weights["dense.absent.text"]
            dense = slow.linear(weights, "dense.linear", x + y)
            out.append(slow.semantic_ids(ids, *seen, IMAGE) + dense)
        elif name == "pca":
            out.append(slow.pca(weights, "pca", x + y))
        elif name == "pca_each":
            out.append(slow.pca(weights, "image", x) + slow.pca(weights, "text", y))
        elif name == "cross_attention":
            out.append(slow.cross_attention(weights, x, y, tokens=2, width=4))
        else:
            formula = {"sum": slow.summed}.get(name) or getattr(slow, name)
            out.append(formula(weights, x, y))
    return torch.tensor(out, dtype=torch.float64)


@every_fusion
def test_formula_is_the_plain_loop(name: str) -> None:
    fusion, parts = fusion_of(name), content(8)
    torch.testing.assert_close(fusion(*parts), loops(name, fusion, parts), rtol=1e-10, atol=1e-10)


@every_fusion
def test_gradient_reaches_every_parameter(name: str) -> None:
    fusion = fusion_of(name)
    out = fusion(*content(ITEMS))
    if isinstance(fusion, ConditionedFusion):
        out = fusion.condition(out, torch.randn(ITEMS, CONTEXT, dtype=torch.float64))
    (out * torch.randn_like(out)).sum().backward()
    for parameter_name, parameter in fusion.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.any(), parameter_name


@every_fusion
def test_absent_content_cannot_change_the_output(name: str) -> None:
    fusion, (image, text, has_image, has_text) = fusion_of(name), content(12)
    out = fusion(image, text, has_image, has_text)
    for filler in (0.0, 1e6, float("nan")):
        spoiled = (
            image.masked_fill(~has_image.unsqueeze(-1), filler),
            text.masked_fill(~has_text.unsqueeze(-1), filler),
        )
        assert torch.equal(fusion(*spoiled, has_image, has_text), out)


@every_fusion
def test_present_content_and_presence_matter(name: str) -> None:
    fusion, (image, text, has_image, has_text) = fusion_of(name), content(12)
    out = fusion(image, text, has_image, has_text)
    has_image_now = torch.where(torch.arange(12) < 6, ~has_image, has_image)
    absent = (fusion(image, text, has_image_now, has_text) != out).any(-1)
    assert absent[:6].any()
    assert not absent[6:].any()
    if name == "precomputed":
        return
    changed = (fusion(image, -9 * text, has_image, has_text) != out).any(-1)
    assert changed[has_text].any()
    assert not changed[~has_text].any()


@every_fusion
def test_leading_dims_and_order_of_the_batch(name: str) -> None:
    fusion, parts = fusion_of(name), content(4, 11)
    out = fusion(*parts)
    assert out.shape == (4, 11, fusion.out_dim)
    torch.testing.assert_close(fusion(*(p[2] for p in parts)), out[2])
    torch.testing.assert_close(fusion(*(p[2, 3] for p in parts)), out[2, 3])
    order = torch.randperm(4)
    torch.testing.assert_close(fusion(*(p[order] for p in parts)), out[order])


@every_fusion
def test_bfloat16_autocast_is_close(name: str) -> None:
    fusion, parts = fusion_of(name, torch.float32), content(40, dtype=torch.float32)
    exact = fusion(*parts)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = fusion(*parts)
    assert (rough.float() - exact).abs().max() < 0.05 * exact.abs().max()
    rough.float().sum().backward()


@pytest.mark.parametrize("backend", ["eager", thorough("inductor")])
@every_fusion
def test_compiles_whole(name: str, backend: str) -> None:
    """Traced without a break; the slow run also generates and runs the code."""
    fusion, parts = fusion_of(name), content(6)
    torch.compiler.reset()
    compiled = torch.compile(fusion, backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(*parts), fusion(*parts))


@every_fusion
def test_is_a_fusion_and_its_state_brings_it_back(name: str) -> None:
    fusion, parts = fusion_of(name), content(6)
    assert isinstance(fusion, Fusion)
    width = IMAGE if name == "precomputed" else OUT
    again = build_fusion(
        name, image_dim=IMAGE, text_dim=TEXT, out_dim=width, **OPTIONS.get(name, {})
    )
    cast(nn.Module, again).double().eval().load_state_dict(fusion.state_dict())
    assert torch.equal(again(*parts), fusion(*parts))


@every_fusion
def test_wrong_shapes_and_masks_are_named(name: str) -> None:
    fusion, (image, text, has_image, has_text) = fusion_of(name), content(6)
    with pytest.raises(InputError, match=r"must share leading dims, got \(6, 7\) and \(5, 5\)"):
        fusion(image, text[:5], has_image, has_text)
    with pytest.raises(InputError, match=r"has_text must be bool of shape \(6,\), got torch.float"):
        fusion(image, text, has_image, has_text.double())


def test_parameter_counts_of_the_docstrings() -> None:
    x, d = IMAGE + TEXT, OUT
    counts = {
        "attention": (x + 2) * d + d * d + 4 * d + x,
        "bilinear": 2 * (x + 2) + d * 3**2 + x,
        "concat": (x + 1) * d + x,
        "cross_attention": (x + 2) * 8 + 6 * 16 + 4 * 4 + (2 * 8 + 1) * d + x,
        "film": (x + 1) * d + 2 * (CONTEXT + 1) * d + x,
        "gmu": 2 * x * d + 3 * d + x,
        "lmf": 4 * d * (x + 2) + 4 + d + x,
        "mean": (x + 2) * d + 4 * d + d,
        "moe": 4 * (x + 1) * (d + 1) + x,
        "pca": x,
        "pca_each": x,
        "precomputed": IMAGE,
        "semantic_ids": 2 * 5 * d + 2 * d,
        "semantic_ids_dense": 2 * 5 * 1 + 2 * 1 + (x + 1) * 2 + x,
        "senet": 2 * x * 3 + 3 + x + (x + 1) * d + x,
        "sum": (x + 2) * d + 4 * d + x,
    }
    assert set(counts) == set(FUSIONS)
    for name, count in counts.items():
        assert sum(p.numel() for p in fusion_of(name).parameters()) == count, name


def test_film_conditions_by_the_formula() -> None:
    fusion, parts = fusion_of("film"), content(8)
    context = torch.randn(8, CONTEXT, dtype=torch.float64)
    got = cast(ConditionedFusion, fusion).condition(fusion(*parts), context)
    weights = {key: value.tolist() for key, value in fusion.state_dict().items()}
    whole = parts[2] & parts[3]
    rows = zip(*(p[whole].tolist() for p in (parts[0], parts[1], context)), strict=True)
    expected = [slow.film(weights, x, y, c) for x, y, c in rows]
    torch.testing.assert_close(got[whole], torch.tensor(expected, dtype=torch.float64))
    with pytest.raises(InputError, match="context must be 2 wide, got 3"):
        cast(ConditionedFusion, fusion).condition(fusion(*parts), torch.randn(8, 3))


def test_pca_agrees_with_sklearn() -> None:
    fusion, parts = build_fusion("pca", image_dim=IMAGE, text_dim=TEXT, out_dim=OUT), content(ITEMS)
    whole = (parts[0], parts[1], torch.ones(ITEMS).bool(), torch.ones(ITEMS).bool())
    cast(EstimatedFusion, fusion).estimate(*whole)
    got = cast(nn.Module, fusion).double()(*whole)
    theirs = SklearnPCA(OUT).fit_transform(torch.cat(whole[:2], dim=-1).numpy())
    expected = torch.from_numpy(theirs)
    expected = expected / expected[:, 0].std(unbiased=False)
    sign = (got * expected).sum(0).sign()
    torch.testing.assert_close(got, expected * sign, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["pca", "pca_each", "semantic_ids", "semantic_ids_dense"])
def test_fitting_is_required_and_repeatable(name: str) -> None:
    made = build_fusion(name, image_dim=IMAGE, text_dim=TEXT, out_dim=OUT, **OPTIONS.get(name, {}))
    parts = content(ITEMS, dtype=torch.float32)
    assert isinstance(made, EstimatedFusion)
    assert not made.estimated
    with pytest.raises(InputError, match="must be estimated before use"):
        made(*parts)
    made.estimate(*parts)
    first = made(*parts)
    made.estimate(*parts)
    assert torch.equal(made(*parts), first)


def test_kmeans_finds_separate_heaps_and_nearest_is_the_loop() -> None:
    centres = 20 * torch.eye(5)
    x = centres.repeat_interleave(30, 0) + 0.1 * torch.randn(150, 5)
    found = kmeans(x, clusters=5, seed=3)
    gap = torch.cdist(centres, found).min(1).values
    assert gap.max() < 0.2
    assert torch.equal(kmeans(x, clusters=5, seed=3), found)
    assert torch.equal(nearest(x, found), torch.cdist(x, found).argmin(-1))
    assert kmeans(x[:2], clusters=5).isfinite().all()


def test_more_levels_quantise_more_closely() -> None:
    parts = content(ITEMS, dtype=torch.float32)
    left = []
    for levels in (1, 2, 3):
        fusion: Any = build_fusion(
            "semantic_ids", image_dim=IMAGE, text_dim=TEXT, out_dim=OUT, levels=levels, codes=5
        )
        fusion.estimate(*parts)
        whole = parts[2] & parts[3]
        x = (torch.cat(parts[:2], -1) - fusion.mean) * fusion.scale
        books = fusion.quantizer.codebooks
        codes = fusion.codes(*parts)
        back = sum(books[level][codes[:, level]] for level in range(levels))
        left.append((x - back)[whole].square().sum())
    assert left[0] > left[1] > left[2]


def test_modality_dropout_wraps_any_fusion() -> None:
    fusion = fusion_of("concat")
    wrapped = ModalityDropout(fusion=cast(Fusion, fusion), chance=0.9)
    image, text, _, _ = content(1)
    image, text = image.expand(200, -1), text.expand(200, -1)
    there = torch.ones(200, dtype=torch.bool)
    assert wrapped(image, text, there, there).unique(dim=0).shape[0] == 3
    torch.testing.assert_close(
        wrapped.eval()(image, text, there, there), fusion(image, text, there, there)
    )
    assert isinstance(wrapped, Fusion)


def test_ones_own_fusion_is_one_class_and_one_line() -> None:
    class Maximum(TwoModalFusion):
        def __init__(self, *, image_dim: int, text_dim: int, out_dim: int) -> None:
            super().__init__(image_dim=image_dim, text_dim=text_dim, out_dim=out_dim)
            self.image, self.text = nn.Linear(image_dim, out_dim), nn.Linear(text_dim, out_dim)

        def fuse(self, image: Tensor, text: Tensor) -> Tensor:
            return torch.maximum(self.image(image), self.text(text))

    FUSIONS["maximum"] = Maximum
    try:
        fusion = build_fusion("maximum", image_dim=IMAGE, text_dim=TEXT, out_dim=OUT)
        assert fusion(*content(6, dtype=torch.float32)).shape == (6, OUT)
    finally:
        del FUSIONS["maximum"]


def test_names_and_options_are_checked() -> None:
    with pytest.raises(InputError, match=r"fusion must be one of attention, .*, got 'magic'"):
        build_fusion("magic", image_dim=IMAGE, text_dim=TEXT)
    with pytest.raises(InputError, match="'lmf' takes the options rank, got 'ranks'"):
        build_fusion("lmf", image_dim=IMAGE, text_dim=TEXT, ranks=3)
    with pytest.raises(InputError, match="as wide as its vectors, 7, got out_dim 3"):
        build_fusion("precomputed", image_dim=IMAGE, text_dim=TEXT, out_dim=3)
    with pytest.raises(InputError, match="no more components than dimensions, 12, got out_dim 13"):
        build_fusion("pca", image_dim=IMAGE, text_dim=TEXT, out_dim=13)

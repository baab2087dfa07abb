"""Every fusion: its formula in plain loops, and the contract that all of them keep."""

from __future__ import annotations

from collections.abc import Mapping
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
    ModalFusion,
    ModalityDropout,
    build_fusion,
)
from mmrec.nn.fusion.modality_dropout import drop_modality
from mmrec.nn.kmeans import kmeans, nearest

OUT, CONTEXT, ITEMS = 5, 2, 61
ALL = {"image": 7, "text": 5, "audio": 3, "video": 11, "size": 2}  # widths of the modalities
OPTIONS: dict[str, dict[str, Any]] = {
    "cross_attention": {"tokens": 2, "width": 4},
    "film": {"context_dim": CONTEXT},
    "semantic_ids": {"levels": 2, "codes": 5},
    "semantic_ids_dense": {"levels": 2, "codes": 5},
    "senet": {"reduction": 4},
    "bilinear": {"core": 2},
    "precomputed": {"modality": "image"},
}
NAMES = sorted(set(FUSIONS) - {"precomputed"})
every_fusion = pytest.mark.parametrize("name", [*NAMES, "precomputed"])
any_number = pytest.mark.parametrize("count", [1, 2, 3, 5])
any_number_slowly = pytest.mark.parametrize("count", [1, thorough(2), 3, thorough(5)])
Content = tuple[dict[str, Tensor], dict[str, Tensor]]


def dims_of(count: int) -> dict[str, int]:
    """The first so many modalities."""
    return dict(list(ALL.items())[:count])


def content(*lead: int, count: int = 2, dtype: torch.dtype = torch.float64) -> Content:
    """Vectors and masks in which all kinds of presence occur."""
    rows = torch.arange(max(1, int(torch.tensor(lead).prod()))).view(lead)
    dims = dims_of(count)
    vectors = {name: torch.randn(*lead, dim, dtype=dtype) for name, dim in dims.items()}
    return vectors, {name: (rows >> place) % 2 == 0 for place, name in enumerate(dims)}


def only(parts: Content, where: Any) -> Content:
    """Some rows."""
    vectors, present = parts
    return {m: x[where] for m, x in vectors.items()}, {m: x[where] for m, x in present.items()}


def fusion_of(name: str, dtype: torch.dtype = torch.float64, count: int = 2) -> nn.Module:
    """Estimated where it needs to be, no parameter at a telling value, evaluation mode."""
    made = fresh(name, count)
    fusion = cast(nn.Module, made).to(dtype)
    if isinstance(made, EstimatedFusion):
        made.estimate(*content(8 * ITEMS, count=count, dtype=dtype))
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return fusion.eval()


def fresh(name: str, count: int = 2) -> Fusion:
    width = ALL["image"] if name == "precomputed" else OUT
    return build_fusion(name, dims=dims_of(count), out_dim=width, **OPTIONS.get(name, {}))


def loops(name: str, fusion: nn.Module, parts: Content) -> Tensor:
    """The fusion of rows (B,) by the plain reference."""
    weights = {key: value.tolist() for key, value in fusion.state_dict().items()}
    vectors, present = parts
    names, out = sorted(vectors), []
    for row in range(len(present[names[0]])):
        seen = {m: vectors[m][row].tolist() if present[m][row] else None for m in names}
        out.append(one_item(name, weights, seen))
    return torch.tensor(out, dtype=torch.float64)


def one_item(name: str, weights: dict[str, Any], seen: dict[str, list[float] | None]) -> Any:
    """By the plain reference; None = absent."""

    def filled(prefix: str = "") -> dict[str, list[float]]:
        return {m: weights[f"{prefix}absent.{m}"] if x is None else x for m, x in seen.items()}

    if name == "precomputed":
        return weights["absent"] if seen["image"] is None else seen["image"]
    if name == "mean":
        return slow.mean(weights, seen)
    if name == "semantic_ids":
        return slow.semantic_ids(weights, seen, ALL)
    if name == "semantic_ids_dense":
        ids = {k.removeprefix("ids."): v for k, v in weights.items() if k.startswith("ids.")}
        dense = slow.linear(weights, "dense.linear", slow.joined(filled("dense.")))
        return slow.semantic_ids(ids, seen, ALL) + dense
    x = filled()
    if name == "pca":
        return slow.pca(weights, "pca", slow.joined(x))
    if name == "pca_each":
        return [a for m in x for a in slow.pca(weights, f"each.{m}", x[m])]
    if name == "cross_attention":
        return slow.cross_attention(weights, x, tokens=2, width=4)
    formula = {"sum": slow.summed}.get(name) or getattr(slow, name)
    return formula(weights, x)


@any_number
@every_fusion
def test_formula_is_the_plain_loop(name: str, count: int) -> None:
    fusion, parts = fusion_of(name, count=count), content(2**count, count=count)
    torch.testing.assert_close(fusion(*parts), loops(name, fusion, parts), rtol=1e-10, atol=1e-10)


@any_number
@every_fusion
def test_gradient_reaches_every_parameter(name: str, count: int) -> None:
    fusion = fusion_of(name, count=count)
    out = fusion(*content(ITEMS, count=count))
    if isinstance(fusion, ConditionedFusion):
        out = fusion.condition(out, torch.randn(ITEMS, CONTEXT, dtype=torch.float64))
    (out * torch.randn_like(out)).sum().backward()
    for parameter_name, parameter in fusion.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.any(), parameter_name


@any_number
@every_fusion
def test_absent_content_cannot_change_the_output(name: str, count: int) -> None:
    fusion, (vectors, present) = fusion_of(name, count=count), content(32, count=count)
    out = fusion(vectors, present)
    for filler in (0.0, 1e6, float("nan")):
        spoiled = {m: x.masked_fill(~present[m].unsqueeze(-1), filler) for m, x in vectors.items()}
        assert torch.equal(fusion(spoiled, present), out)


@any_number
@every_fusion
def test_present_content_and_presence_matter(name: str, count: int) -> None:
    fusion, (vectors, present) = fusion_of(name, count=count), content(64, count=count)
    out = fusion(vectors, present)
    for modality in vectors if name != "precomputed" else ["image"]:
        now = torch.where(torch.arange(64) < 32, ~present[modality], present[modality])
        absent = (fusion(vectors, {**present, modality: now}) != out).any(-1)
        assert absent[:32].any()
        assert not absent[32:].any()
        changed = (fusion({**vectors, modality: -9 * vectors[modality]}, present) != out).any(-1)
        assert changed[present[modality]].any()
        assert not changed[~present[modality]].any()


@any_number
@every_fusion
def test_leading_dims_and_order_of_the_batch(name: str, count: int) -> None:
    fusion, parts = fusion_of(name, count=count), content(4, 11, count=count)
    out = fusion(*parts)
    assert out.shape == (4, 11, fusion.out_dim)
    torch.testing.assert_close(fusion(*only(parts, 2)), out[2])
    torch.testing.assert_close(fusion(*only(parts, (2, 3))), out[2, 3])
    order = torch.randperm(4)
    torch.testing.assert_close(fusion(*only(parts, order)), out[order])


@any_number
@every_fusion
def test_order_of_the_mappings_and_modalities_of_others_do_not_matter(
    name: str, count: int
) -> None:
    fusion, (vectors, present) = fusion_of(name, count=count), content(32, count=count)
    turned = {m: vectors[m] for m in reversed(vectors)}
    more = {"smell": torch.full((1,), torch.nan)}
    assert torch.equal(fusion({**more, **turned}, present), fusion(vectors, present))
    dims = {m: ALL[m] for m in turned}
    width = ALL["image"] if name == "precomputed" else OUT
    again = cast(nn.Module, build_fusion(name, dims=dims, out_dim=width, **OPTIONS.get(name, {})))
    again.double().eval().load_state_dict(fusion.state_dict())
    assert torch.equal(again(turned, present), fusion(vectors, present))


@any_number
@every_fusion
def test_bfloat16_autocast_is_close(name: str, count: int) -> None:
    fusion = fusion_of(name, torch.float32, count)
    parts = content(40, count=count, dtype=torch.float32)
    exact = fusion(*parts)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = fusion(*parts)
    assert (rough.float() - exact).abs().max() < 0.05 * exact.abs().max()
    rough.float().sum().backward()


@pytest.mark.parametrize("backend", ["eager", thorough("inductor")])
@any_number_slowly
@every_fusion
def test_compiles_whole(name: str, count: int, backend: str) -> None:
    """Traced without a break; the slow run also generates and runs the code."""
    fusion, parts = fusion_of(name, count=count), content(6, count=count)
    torch.compiler.reset()
    compiled = torch.compile(fusion, backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(*parts), fusion(*parts))


@any_number_slowly
@every_fusion
def test_exports_with_any_number_of_rows(name: str, count: int) -> None:
    fusion, parts = fusion_of(name, count=count), content(6, count=count)
    rows = torch.export.Dim("rows", min=2)
    shapes = tuple({m: {0: rows} for m in part} for part in parts)
    program = torch.export.export(fusion, parts, dynamic_shapes=shapes)
    more = content(11, count=count)
    torch.testing.assert_close(program.module()(*more), fusion(*more))


@any_number
@every_fusion
def test_is_a_fusion_and_its_state_brings_it_back(name: str, count: int) -> None:
    fusion, parts = fusion_of(name, count=count), content(6, count=count)
    assert isinstance(fusion, Fusion)
    again = cast(nn.Module, fresh(name, count))
    again.double().eval().load_state_dict(fusion.state_dict())
    assert torch.equal(again(*parts), fusion(*parts))


@every_fusion
def test_wrong_shapes_and_masks_are_named(name: str) -> None:
    fusion, (vectors, present) = fusion_of(name), content(6)
    with pytest.raises(InputError, match=r"of image must be bool of shape \(6,\), got torch.float"):
        fusion(vectors, {**present, "image": present["image"].double()})
    with pytest.raises(InputError, match=r"image must be 7 wide, .* built, got shape \(6, 4\)"):
        fusion({**vectors, "image": vectors["image"][:, :4]}, present)
    with pytest.raises(InputError, match=r"built for image(, text)?, got vectors of text and"):
        fusion({"text": vectors["text"]}, present)
    with pytest.raises(
        InputError, match=r"built for image(, text)?, got vectors of image, text and"
    ):
        fusion(vectors, {**present, "image": None})
    with pytest.raises(InputError, match="by name of the modality, got Tensor and dict"):
        fusion(vectors["image"], present)
    with pytest.raises(InputError, match=r"image must be 7 wide, .* built, got shape \(\)"):
        fusion({**vectors, "image": torch.tensor(1.0)}, present)
    if name != "precomputed":
        with pytest.raises(InputError, match=r"leading dims, got image \(6, 7\), text \(5, 5\)"):
            fusion({**vectors, "text": vectors["text"][:5]}, present)


@any_number
def test_parameter_counts_of_the_docstrings(count: int) -> None:
    m, x, d = count, sum(dims_of(count).values()), OUT
    pairs, squeezed = max(1, m * (m - 1) // 2), max(1, x // 4)
    counts = {
        "attention": (x + m) * d + d * d + 4 * d + x if m > 1 else (x + 3) * d + x,
        "bilinear": 2 * (x + m) + pairs * d * 3**2 + x,
        "concat": (x + 1) * d + x,
        "cross_attention": (x + m) * 8 + m * (3 * 16 + 2 * 4) + (m * 8 + 1) * d + x,
        "film": (x + 1) * d + 2 * (CONTEXT + 1) * d + x,
        "gmu": (x + m) * d + (m - 1) * (x + 1) * d + x,
        "lmf": 4 * d * (x + m) + 4 + d + x,
        "mean": (x + 3 * m) * d + d,
        "moe": 4 * (x + 1) * (d + 1) + x,
        "pca": x,
        "pca_each": x,
        "precomputed": ALL["image"],
        "semantic_ids": 2 * 5 * d + m * d,
        "semantic_ids_dense": 2 * 5 * 2 + m * 2 + (x + 1) * 3 + x,
        "senet": 2 * x * squeezed + squeezed + x + (x + 1) * d + x,
        "sum": (x + 3 * m) * d + x,
    }
    assert set(counts) == set(FUSIONS)
    for name, wanted in counts.items():
        found = sum(p.numel() for p in fusion_of(name, count=count).parameters())
        assert found == wanted, name


def test_film_conditions_by_the_formula() -> None:
    fusion, parts = fusion_of("film"), content(8)
    context = torch.randn(8, CONTEXT, dtype=torch.float64)
    got = cast(ConditionedFusion, fusion).condition(fusion(*parts), context)
    weights = {key: value.tolist() for key, value in fusion.state_dict().items()}
    whole = parts[1]["image"] & parts[1]["text"]
    rows = zip(*(x[whole].tolist() for x in (*parts[0].values(), context)), strict=True)
    expected = [slow.film(weights, {"image": x, "text": y}, c) for x, y, c in rows]
    torch.testing.assert_close(got[whole], torch.tensor(expected, dtype=torch.float64))
    with pytest.raises(InputError, match="context must be 2 wide, got 3"):
        cast(ConditionedFusion, fusion).condition(fusion(*parts), torch.randn(8, 3))


def test_pca_agrees_with_sklearn() -> None:
    fusion, (vectors, _) = fresh("pca", 3), content(ITEMS, count=3)
    there = dict.fromkeys(vectors, torch.ones(ITEMS).bool())
    cast(EstimatedFusion, fusion).estimate(vectors, there)
    got = cast(nn.Module, fusion).double()(vectors, there)
    joined = torch.cat([vectors[m] for m in sorted(vectors)], dim=-1)
    theirs = SklearnPCA(OUT).fit_transform(joined.numpy())
    expected = torch.from_numpy(theirs)
    expected = expected / expected[:, 0].std(unbiased=False)
    sign = (got * expected).sum(0).sign()
    torch.testing.assert_close(got, expected * sign, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("dims", "out_dim", "shares"),
    [
        ({"text": 5, "image": 7}, 3, {"image": 2, "text": 1}),
        ({"text": 50, "image": 3}, 20, {"image": 3, "text": 17}),
        ({"a": 9, "b": 1, "c": 9}, 8, {"a": 4, "b": 1, "c": 3}),
    ],
)
def test_components_are_dealt_out_evenly(
    dims: dict[str, int], out_dim: int, shares: dict[str, int]
) -> None:
    fusion: Any = build_fusion("pca_each", dims=dims, out_dim=out_dim)
    assert {name: pca.out_dim for name, pca in fusion.each.items()} == shares


@any_number
@pytest.mark.parametrize("name", ["pca", "pca_each", "semantic_ids", "semantic_ids_dense"])
def test_fitting_is_required_and_repeatable(name: str, count: int) -> None:
    made = fresh(name, count)
    parts = content(ITEMS, count=count, dtype=torch.float32)
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
    vectors, present = content(ITEMS, dtype=torch.float32)
    left = []
    for levels in (1, 2, 3):
        fusion: Any = build_fusion(
            "semantic_ids", dims=dims_of(2), out_dim=OUT, levels=levels, codes=5
        )
        fusion.estimate(vectors, present)
        whole = present["image"] & present["text"]
        x = (torch.cat([vectors["image"], vectors["text"]], -1) - fusion.mean) * fusion.scale
        books = fusion.quantizer.codebooks
        codes = fusion.codes(vectors, present)
        back = sum(books[level][codes[:, level]] for level in range(levels))
        left.append((x - back)[whole].square().sum())
    assert left[0] > left[1] > left[2]


def test_modality_dropout_wraps_any_fusion() -> None:
    fusion = fusion_of("concat", count=3)
    wrapped = ModalityDropout(fusion=cast(Fusion, fusion), chance=0.9)
    vectors, _ = content(1, count=3)
    vectors = {m: x.expand(200, -1) for m, x in vectors.items()}
    there = dict.fromkeys(vectors, torch.ones(200, dtype=torch.bool))
    assert wrapped(vectors, there).round(decimals=9).unique(dim=0).shape[0] == 4
    torch.testing.assert_close(wrapped.eval()(vectors, there), fusion(vectors, there))
    assert isinstance(wrapped, Fusion)


@any_number
def test_modality_dropout_takes_each_as_often_and_never_the_last(count: int) -> None:
    present = {m: torch.rand(40_000) < 0.7 for m in dims_of(count)}
    left = drop_modality(present, 0.4)
    before, after = (torch.stack([masks[m] for m in present]) for masks in (present, left))
    many = before.sum(0)
    lost = before & ~after
    assert not (after & ~before).any()
    assert not lost[:, many < 2].any()
    assert set(lost.sum(0).unique().tolist()) <= {0, 1}
    for several in range(2, count + 1):
        rows = many == several
        rate = lost[:, rows].sum(1) / before[:, rows].sum(1).clamp(min=1)
        noise = 5 * 0.5 / before[:, rows].sum(1).sqrt()
        assert ((rate - 0.4 / several).abs() < noise).all()


def test_ones_own_fusion_is_one_class_and_one_line() -> None:
    class Maximum(ModalFusion):
        def __init__(self, *, dims: Mapping[str, int], out_dim: int) -> None:
            super().__init__(dims=dims, out_dim=out_dim)
            self.project = nn.ModuleDict(
                {name: nn.Linear(dim, out_dim) for name, dim in self.dims.items()}
            )

        def fuse(self, x: dict[str, Tensor]) -> Tensor:
            return torch.stack([self.project[m](x[m]) for m in self.dims]).max(0).values

    FUSIONS["maximum"] = Maximum
    try:
        for count in (1, 2, 3, 5):
            fusion = build_fusion("maximum", dims=dims_of(count), out_dim=OUT)
            assert fusion(*content(6, count=count, dtype=torch.float32)).shape == (6, OUT)
    finally:
        del FUSIONS["maximum"]


def test_names_and_options_are_checked() -> None:
    dims = dims_of(2)
    with pytest.raises(InputError, match=r"fusion must be one of attention, .*, got 'magic'"):
        build_fusion("magic", dims=dims)
    with pytest.raises(InputError, match="'lmf' takes the options rank, got 'ranks'"):
        build_fusion("lmf", dims=dims, ranks=3)
    with pytest.raises(InputError, match="as wide as its vectors, 7, got out_dim 3"):
        build_fusion("precomputed", dims={"image": 7}, out_dim=3)
    with pytest.raises(InputError, match=r"of one modality, named .*, got None of image, text"):
        build_fusion("precomputed", dims=dims, out_dim=7)
    with pytest.raises(InputError, match=r"of one modality, named .*, got sound of image, text"):
        build_fusion("precomputed", dims=dims, out_dim=7, modality="sound")
    with pytest.raises(InputError, match="no more components than dimensions, 12, got out_dim 13"):
        build_fusion("pca", dims=dims, out_dim=13)
    with pytest.raises(InputError, match="at most all they have, 2 … 12, got 13"):
        build_fusion("pca_each", dims=dims, out_dim=13)


@pytest.mark.parametrize("bad", ["", "my vectors", 3, "a.b", "type", "keys", "training"])
@every_fusion
def test_a_modality_has_a_name_that_modules_can_have(name: str, bad: Any) -> None:
    options = OPTIONS.get(name, {})
    with pytest.raises(InputError, match=f"a modality is called by letters.*, got {bad!r}"):
        build_fusion(name, dims={"image": 7, bad: 3}, out_dim=7, **options)
    with pytest.raises(InputError, match="a fusion needs the width of a modality or more"):
        build_fusion(name, dims={}, out_dim=7, **options)
    with pytest.raises(InputError, match="dims maps names of modalities to widths, got None"):
        build_fusion(name, dims=None, out_dim=7, **options)  # type: ignore[arg-type]

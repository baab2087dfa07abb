"""Item vectors: parts, unknown items, dropout of ids and modalities, scales."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmrec.errors import InputError
from mmrec.nn import ItemEncoder
from mmrec.nn.fusion import AttentionFusion, ConcatFusion
from mmrec.nn.fusion.modality_dropout import drop_modality

ITEMS, TAGS, IMAGE, TEXT = 19, 7, 5, 3
ID_DIM, TAG_DIM, CONTENT = 4, 2, 11
DIMS = {"image": IMAGE, "text": TEXT}


def tables(**changes: Any) -> dict[str, Any]:
    tags = torch.randint(0, TAGS, (ITEMS, 5))
    tags[3] = 0
    values = {
        "tags": tags,
        "vectors": {
            "image": 3 + 2 * torch.randn(ITEMS, IMAGE),
            "text": torch.randn(ITEMS, TEXT),
        },
        "present": {
            "image": torch.arange(ITEMS) % 3 != 0,
            "text": torch.arange(ITEMS) % 4 != 0,
        },
    }
    return values | changes


def encoder(values: dict[str, Tensor] | None = None, **options: Any) -> ItemEncoder:
    fusion = ConcatFusion(dims=DIMS, out_dim=CONTENT)
    defaults: dict[str, Any] = {"id_dim": ID_DIM, "tag_dim": TAG_DIM, "fusion": fusion}
    return ItemEncoder(**(values or tables()), **{**defaults, "num_tags": TAGS, **options})


def test_parts_stand_in_order() -> None:
    values = tables()
    items = encoder(values).eval()
    ids = torch.tensor([[3, 1], [0, 18]])
    out = items(ids)
    assert out.shape == (2, 2, ID_DIM + TAG_DIM + CONTENT) == (2, 2, items.out_dim)
    assert torch.equal(out[..., :ID_DIM], items.ids.weight[ids])
    assert torch.equal(out[..., -CONTENT:], items.content(ids))
    for row, column in ((0, 0), (0, 1), (1, 1)):
        own = [int(tag) for tag in values["tags"][ids[row, column]] if tag != 0]
        mean = items.tag.weight[own].mean(0) if own else torch.zeros(TAG_DIM)
        torch.testing.assert_close(out[row, column, ID_DIM:-CONTENT], mean)


def test_absent_content_cannot_change_the_output() -> None:
    values = tables()
    torch.manual_seed(1)
    out = encoder(values, standardize=True)(torch.arange(ITEMS))
    spoiled = tables(**{**values, "vectors": dict(values["vectors"])})
    for name, filler in (("image", 6e4), ("text", float("nan"))):
        absent = ~values["present"][name][:, None]
        spoiled["vectors"][name] = values["vectors"][name].masked_fill(absent, filler)
    torch.manual_seed(1)
    assert torch.equal(encoder(spoiled, standardize=True)(torch.arange(ITEMS)), out)


def test_items_never_seen_share_one_vector_and_train_no_id() -> None:
    known = torch.arange(ITEMS) < 10
    items = encoder(unknown=True, known=known)
    out = items(torch.arange(ITEMS))[:, :ID_DIM]
    assert torch.equal(out[known], items.ids.weight[known])
    assert torch.equal(out[~known], items.unknown.expand(9, -1))
    out.sum().backward()
    assert not items.ids.weight.grad[~known].any()
    assert items.unknown.grad.any()


def test_id_dropout_acts_in_training_alone_at_its_rate() -> None:
    items = encoder(unknown=True, id_dropout=0.3)
    ids = torch.randint(1, ITEMS, (4000,))
    dropped = (items(ids)[:, :ID_DIM] == items.unknown).all(1).float().mean()
    assert abs(dropped - 0.3) < 0.03
    assert torch.equal(items.eval()(ids)[:, :ID_DIM], items.ids.weight[ids])


def test_modality_dropout_takes_one_of_two_never_the_last() -> None:
    has_image, has_text = torch.rand(9000) < 0.5, torch.rand(9000) < 0.5
    left = drop_modality({"text": has_text, "image": has_image}, 0.4)
    image, text = left["image"], left["text"]
    both, one = has_image & has_text, has_image ^ has_text
    assert torch.equal(image[one], has_image[one])
    assert torch.equal(text[one], has_text[one])
    assert not (image & ~has_image).any()
    assert not (text & ~has_text).any()
    assert (image | text)[both].all()
    assert abs((~image)[both].float().mean() - 0.2) < 0.03
    assert abs((~text)[both].float().mean() - 0.2) < 0.03
    items = encoder(modality_dropout=0.9)
    ids = torch.full((50,), 1)
    assert items.content(ids).unique(dim=0).shape[0] == 3
    assert items.eval().content(ids).unique(dim=0).shape[0] == 1


def test_standardize_centres_and_scales_present_rows() -> None:
    values = tables()
    values["vectors"]["image"][:, 2] = 5.0  # a dimension that never varies
    items = encoder(values, standardize=True)
    vectors, present = items.features(torch.arange(ITEMS))
    rows = vectors["image"][present["image"]]
    torch.testing.assert_close(rows.mean(0), torch.zeros(IMAGE), atol=1e-2, rtol=0)
    spread = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0])
    torch.testing.assert_close(rows.std(0, unbiased=False), spread, atol=1e-2, rtol=0)


def test_checkpoint_holds_scales_and_no_features() -> None:
    state = encoder(unknown=True, standardize=True).state_dict()
    assert {"modalities.image.moments", "modalities.text.moments", "known"} <= set(state)
    assert not {key for key in state if key.endswith(("vectors", "present", "unit", "tags"))}


def test_features_stay_float16_and_cast_on_use() -> None:
    items = encoder()
    assert items.modalities["image"].vectors.dtype == torch.float16
    assert items(torch.tensor([1])).dtype == torch.float32
    assert items.double()(torch.tensor([1])).dtype == torch.float64


def test_content_table_is_what_evaluation_computes() -> None:
    fusion = AttentionFusion(dims=DIMS, out_dim=CONTENT, dropout=0.5)
    items = encoder(fusion=fusion, modality_dropout=0.5).train()
    table = items.content_table(rows=5)
    assert items.training
    torch.testing.assert_close(table, items.eval().content(torch.arange(ITEMS)))


def test_tables_that_do_not_match_are_named() -> None:
    with pytest.raises(
        InputError, match=r"presence of text must have 1 dims .* 19 items, got shape \(4,\)"
    ):
        encoder(tables(present={**tables()["present"], "text": torch.ones(4, dtype=torch.bool)}))
    with pytest.raises(InputError, match="same modalities, got image, text and text"):
        encoder(tables(present={"text": torch.ones(ITEMS, dtype=torch.bool)}))
    good = tables()
    for name, value, sentence in (
        ("present", torch.ones(ITEMS), r"presence of text must be bool, got torch\.float32"),
        ("vectors", torch.full((ITEMS, TEXT), torch.nan), "hold finite numbers.*in row 1"),
        ("vectors", torch.full((ITEMS, TEXT), 1e6), r"65504 \(float16\), got NaN or more in row 1"),
    ):
        with pytest.raises(InputError, match=sentence):
            encoder(tables(**{name: {**good[name], "text": value}}))
    with pytest.raises(InputError, match="need unknown=True"):
        encoder(id_dropout=0.1)
    with pytest.raises(InputError, match="got none of them"):
        encoder(id_dim=0, tag_dim=0, fusion=None)(torch.tensor([1]))


@pytest.mark.parametrize("bad", [-1, ITEMS, 2**40])
@pytest.mark.parametrize("id_dim", [0, ID_DIM])
def test_an_id_of_no_item_is_never_another_items_vector(bad: int, id_dim: int) -> None:
    items = encoder(id_dim=id_dim)
    ids = torch.tensor([[1, bad], [3, 4]])
    for call in (items, items.content):
        with pytest.raises(InputError, match=rf"item ids lie in 0 … {ITEMS - 1}, got {bad}$"):
            call(ids)

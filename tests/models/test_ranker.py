"""The ranker: equal to its equations row by row, whichever fast path it takes."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from ranker_inputs import INPUTS, KNOWN_USERS
from reference.ranker import slow_logits
from slow_variants import thorough
from torch import Tensor

from mmrec import Batch, InputError
from mmrec.models import (
    ContextRecipe,
    HistoryRecipe,
    InteractionRecipe,
    ItemsRecipe,
    Ranker,
    Recipe,
    build_ranker,
    small,
)
from mmrec.nn import MLP, CrossAndDeep, ItemEncoder, MeanPool, Part, SequenceEncoder

OF_HISTORY = ("history", "history_categorical", "history_numeric")
TINY = Recipe(
    items=ItemsRecipe(
        id_dim=4,
        tag_dim=2,
        categorical_dim=3,
        numeric=Part("linear", {"dim": 2}),
        content_dim=6,
        id_dropout=0.0,
    ),
    history=HistoryRecipe(
        Part("transformer", {"layers": 2, "heads": 2, "ff_dim": 7, "dropout": 0.2, "last": 3})
    ),
    interaction=InteractionRecipe(bottleneck=13, mlp=(11, 5), head=(7,)),
    context=ContextRecipe(dim=2, numeric=Part("linear", {"dim": 3}), user_dim=3),
)
VARIANTS = {
    "all of it": TINY,
    "affinity": TINY.changed(
        {
            "items.components": 3,
            "items.content_width": 4,
            "history.content": False,
            "history.affinity": 2,
            "history.recency": 3,
        }
    ),
    "narrow tokens": TINY.changed({"history.encoder.width": 10, "history.encoder.last": 0}),
    "no bottleneck, no users": TINY.changed(
        {"interaction.bottleneck": None, "context.user_dim": 0, "items.unknown_id": False}
    ),
}


def padded(column: Tensor) -> Tensor:
    """Four more columns of padding at the left."""
    return torch.cat([column.new_zeros(len(column), 4, *column.shape[2:]), column], dim=1)


def make(recipe: Recipe, table: Any) -> Ranker:
    """In float64, evaluation mode, with no parameter left at a telling value such as zero."""
    known = torch.arange(len(table.tags)) % 3 != 0
    inputs = replace(INPUTS, known_items=known)
    ranker = build_ranker(recipe, table, inputs)
    with torch.no_grad():
        for parameter in ranker.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return ranker.double().eval()


def gradients(ranker: Ranker, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
    ranker.zero_grad()
    labels = batch.labels.double().reshape(logits.shape)
    torch.nn.functional.binary_cross_entropy_with_logits(logits, labels).backward()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in ranker.named_parameters()
    }


@pytest.mark.parametrize("recipe", VARIANTS.values(), ids=VARIANTS.keys())
@pytest.mark.parametrize("fast", [True, False])
def test_logits_and_gradients_are_the_equations(
    recipe: Recipe, fast: bool, table: Any, batch: Batch
) -> None:
    ranker = make(
        recipe.changed({"training.speed.deduplicate": fast, "training.speed.compact": fast}), table
    )
    logits, slow = ranker(batch), slow_logits(ranker, batch)
    torch.testing.assert_close(logits, slow, rtol=1e-10, atol=1e-10)
    got, expected = gradients(ranker, logits, batch), gradients(ranker, slow, batch)
    assert [name for name, gradient in expected.items() if not gradient.any()] == []
    padding = {"items.ids.weight", "items.tag.weight"}
    for name, gradient in got.items():
        if name in padding:  # row 0 is never trained
            expected[name][0] = 0
        torch.testing.assert_close(gradient, expected[name], rtol=1e-10, atol=1e-10, msg=name)


def test_whole_table_path_is_the_same(table: Any, batch: Batch) -> None:
    """Without de-duplication, a batch of more ids than items encodes the table once."""
    ranker = make(TINY.changed({"training.speed.deduplicate": False}), table)
    assert batch.history.numel() + len(batch) >= ranker.items.num_items
    few = batch.map(lambda tensor: tensor[1:2])
    assert few.history.numel() + len(few) < ranker.items.num_items
    torch.testing.assert_close(ranker(few), ranker(batch)[1:2], rtol=1e-12, atol=1e-12)


def test_bfloat16_stays_within_its_rounding(table: Any, batch: Batch) -> None:
    ranker = make(TINY, table).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = ranker(batch)
    assert logits.dtype == torch.float32
    slow = slow_logits(ranker.double(), batch)
    spread = slow.std()
    assert (logits - slow).abs().max() < 0.1 * spread


def test_batch_order_neighbours_and_padding_do_not_matter(table: Any, batch: Batch) -> None:
    ranker = make(TINY.changed({"history.tiers": 4}), table)
    logits = ranker(batch)
    order = torch.randperm(len(batch))
    shuffled = batch.map(lambda tensor: tensor[order])
    torch.testing.assert_close(ranker(shuffled), logits[order], rtol=1e-10, atol=1e-10)
    alone = [ranker(batch.map(lambda tensor, i=i: tensor[i : i + 1])) for i in range(7)]
    torch.testing.assert_close(torch.cat(alone), logits, rtol=1e-10, atol=1e-10)
    longer = replace(batch, **{name: padded(getattr(batch, name)) for name in OF_HISTORY})
    torch.testing.assert_close(ranker(longer), logits, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sequence", ["transformer", "din", "relu", "mean"])
def test_history_matters_and_none_ignores_it(sequence: str, table: Any, batch: Batch) -> None:
    moved = {name: getattr(batch, name).roll(1, 0) for name in OF_HISTORY}
    other = replace(batch, **moved)
    with_history = make(TINY.changed({"history.encoder": sequence}), table)
    without = make(TINY.changed({"history.encoder": "none"}), table)
    assert not torch.allclose(with_history(batch), with_history(other))
    assert torch.equal(without(batch), without(other))


def test_all_padding_batch_trains(table: Any, batch: Batch) -> None:
    ranker = make(TINY, table).train()
    empty = replace(batch, history=torch.zeros_like(batch.history))
    logits = ranker(empty)
    assert logits.isfinite().all()
    assert all(g.isfinite().all() for g in gradients(ranker, logits, batch).values())


def test_user_matters_only_where_known(table: Any, batch: Batch) -> None:
    ranker = make(TINY, table)
    strangers = replace(batch, user=batch.user + 1_000_000)
    others = replace(batch, user=batch.user + 2_000_000)
    assert torch.equal(ranker(strangers), ranker(others))
    assert torch.equal((ranker(batch) != ranker(strangers)), torch.isin(batch.user, KNOWN_USERS))


def test_alignment_gives_an_auxiliary_loss_in_training_alone(table: Any, batch: Batch) -> None:
    ranker = make(TINY.changed({"items.alignment": 0.5}), table)
    ranker(batch)
    assert ranker.auxiliary is None
    ranker.train()(batch)
    assert ranker.auxiliary is not None
    ranker.auxiliary.backward()
    assert ranker.items.fusion is not None
    for parameter in (ranker.items.ids.weight, *ranker.items.fusion.parameters()):
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    assert ranker.items.ids.weight.grad.any()


def test_film_changes_the_target_by_its_context(table: Any, batch: Batch) -> None:
    ranker = make(
        TINY.changed({"items.fusion": "film", "context.wide": False, "history.encoder": "none"}),
        table,
    )
    logits = ranker(batch)
    before = ranker.items.content(batch.target)
    seen = []
    ranker.interaction.register_forward_hook(lambda _, args, __: seen.append(args[0]))
    assert torch.equal(ranker(batch), logits)
    assert ranker.categorical is not None
    context = ranker.categorical(batch.categorical)
    expected = ranker.items.fusion.condition(before, context)
    # The item stands last here, and its content at its end.
    torch.testing.assert_close(seen[0][:, -ranker.items.content_dim :], expected)
    assert not torch.allclose(expected, before)


def test_a_conditioned_fusion_takes_no_map_behind_it(table: Any) -> None:
    """Neither the ranker nor what serves it could tell which of the two vectors is changed."""
    film = TINY.changed({"items.fusion": "film", "items.content_width": 3})
    with pytest.raises(
        InputError, match=r"FiLMFusion changes .* content_width must be None, got 3"
    ):
        make(film, table)


@pytest.mark.parametrize("backend", ["eager", thorough("inductor")])
def test_compiles_to_the_same_logits(table: Any, batch: Batch, backend: str) -> None:
    """Traced without a break; the slow run also generates and runs the code."""
    ranker = make(
        TINY.changed({"history.encoder.layers": 1, "history.encoder.last": 1}),
        table,
    )
    compiled = torch.compile(ranker, backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(batch), ranker(batch), rtol=1e-10, atol=1e-10)


def test_parts_that_do_not_fit_are_named(table: Any) -> None:
    items = ItemEncoder(
        tags=table.tags,
        vectors=table.vectors,
        present=table.present,
        id_dim=4,
        tag_dim=2,
    )
    interaction = CrossAndDeep(in_dim=9, cross=None, deep=MLP(in_dim=9, hidden=[3]))
    with pytest.raises(InputError, match="12 wide, got 9"):
        Ranker(items=items, sequence=MeanPool(dim=6), interaction=lambda _: interaction)


def test_default_recipe_learns_a_toy_rule(table: Any, batch: Batch) -> None:
    """Clicks follow the target's own parity: a few steps must separate them."""
    ranker = build_ranker(small(), table)
    for module in ranker.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    optimizer = torch.optim.Adam(ranker.parameters(), lr=1e-2)
    label = (batch.target % 2).float()
    first = last = torch.tensor(0.0)
    for step in range(30):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(ranker(batch), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first, last = (loss if step == 0 else first), loss
    assert last < 0.2 * first


def test_newest_reads_only_the_newest_items(table: Any, batch: Batch) -> None:
    """Counted in positions: what lies further back cannot matter, and cut histories are equal."""
    ranker = make(TINY.changed({"history.newest": 4, "history.tiers": 3}), table)
    logits = ranker(batch)
    cut = replace(batch, **{name: getattr(batch, name)[:, -4:] for name in OF_HISTORY})
    torch.testing.assert_close(ranker(cut), logits, rtol=1e-12, atol=1e-12)
    everything = make(TINY.changed({"history.tiers": 3}), table)
    everything.load_state_dict(ranker.state_dict())
    torch.testing.assert_close(everything(cut), logits, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(everything(batch), logits)


def test_known_padding_is_left_out_and_changes_nothing(table: Any, batch: Batch) -> None:
    """As on a card, where the loader counts what is padding in every row."""
    ranker = make(TINY.changed({"training.speed.deduplicate": False, "history.tiers": 3}), table)
    longer = replace(batch, **{name: padded(getattr(batch, name)) for name in OF_HISTORY})
    known = replace(longer, padding=longer.history.shape[1] - batch.history.shape[1])
    assert known.padding > 0
    torch.testing.assert_close(ranker(known), ranker(longer), rtol=1e-12, atol=1e-12)
    read: list[int] = []
    ranker.sequence.register_forward_pre_hook(lambda _, given: read.append(given[0].shape[1]))
    ranker(known), ranker(longer)
    assert read == [batch.history.shape[1], longer.history.shape[1]]


def test_nobody_and_no_history_are_batches(table: Any, batch: Batch) -> None:
    ranker = make(TINY.changed({"history.tiers": 3}), table)
    assert ranker(batch.map(lambda tensor: tensor[:0])).shape == (0,)
    none = replace(batch, **{name: getattr(batch, name)[:, :0] for name in OF_HISTORY})
    empty = replace(batch, history=torch.zeros_like(batch.history))
    torch.testing.assert_close(ranker(none), ranker(empty), rtol=1e-10, atol=1e-10)


def test_padding_other_than_zero_is_refused(table: Any, batch: Batch) -> None:
    wrong = replace(batch, history=batch.history.masked_fill(batch.history == 0, -1))
    for recipe in (TINY, TINY.changed({"items.id_dim": 0, "items.unknown_id": False})):
        with pytest.raises(InputError, match=r"item ids lie in 0 … \d+, got -1"):
            make(recipe, table)(wrong)


def test_copies_after_a_step_are_copies(table: Any, batch: Batch) -> None:
    """The loss of the latest step, with its graph, is no part of the model."""
    ranker = make(TINY.changed({"items.alignment": 0.5}), table).train()
    (ranker(batch).sum() + ranker.auxiliary).backward()
    again = copy.deepcopy(ranker).eval()
    assert again.auxiliary is None
    assert torch.equal(again(batch), ranker.eval()(batch))
    torch.optim.swa_utils.AveragedModel(ranker.train())


class Traced(torch.nn.Module):
    def __init__(self, ranker: Ranker) -> None:
        super().__init__()
        self.ranker = ranker

    def forward(self, history: Tensor, target: Tensor) -> Tensor:
        return cast(Tensor, self.ranker(Batch.of(history=history, target=target)))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.*")
@pytest.mark.parametrize("fast", [None, True])
def test_a_trace_on_short_histories_is_right_on_full_ones(
    table: Any, batch: Batch, fast: bool | None
) -> None:
    speed = {"training.speed.deduplicate": fast, "training.speed.compact": fast}
    ranker = build_ranker(TINY.changed(speed), table).double().eval()
    full = torch.randint(1, len(table.tags), batch.history.shape)
    short = full.clone()
    short[:, :6] = 0
    traced = torch.jit.trace(Traced(ranker), (short, batch.target), check_trace=False)
    expected = ranker(Batch.of(history=full, target=batch.target))
    torch.testing.assert_close(traced(full, batch.target), expected, rtol=1e-10, atol=1e-10)


class Inherits(SequenceEncoder):
    """A natural reading of the exported name."""

    def __init__(self) -> None:
        super().__init__()
        self.out_dim, self.gru = 3, torch.nn.GRU(4, 3, batch_first=True)

    def __call__(self, history: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        return cast(Tensor, self.gru(history)[0][:, -1])


def test_an_encoder_that_is_no_module_is_told_so(table: Any) -> None:
    items = build_ranker(TINY, table).items
    with pytest.raises(InputError, match=r"must be an nn\.Module \(class Inherits\(nn\.Module\)\)"):
        Ranker(
            items=items, sequence=Inherits(), interaction=lambda width: MLP(in_dim=width, hidden=())
        )

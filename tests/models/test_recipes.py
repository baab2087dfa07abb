"""Recipes: JSON and back, the reference's size layer by layer, weights from a checkpoint alone."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ranker_inputs import INPUTS
from torch import Tensor, nn

from mmrec import Batch, InputError
from mmrec.io.plain import from_plain, parse_settings, to_plain
from mmrec.models import (
    CROSSES,
    RECIPES,
    SEQUENCES,
    Inputs,
    Ranker,
    Recipe,
    build_ranker,
    describe,
    get_recipe,
    light,
    rebuild,
    reference,
)
from mmrec.nn import Part
from mmrec.nn.categorical import Vocabulary

LEVELS = Inputs(categorical=(Vocabulary(torch.arange(1, 11)),) * 2)
PLACES = ("items.fusion", "history.encoder", "interaction.cross")


@dataclass(frozen=True)
class Challenge:
    """Shapes of the challenge's items: 91,718 of them, 11,740 tags, 128-d content."""

    tags: Tensor
    vectors: dict[str, Tensor]
    present: dict[str, Tensor]
    num_tags: int = 11_740
    categorical: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.int64))
    numeric: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    widths: tuple[int, ...] = ()


def test_reference_has_the_published_parameter_count() -> None:
    items, rows = 91_718, torch.ones(91_718, dtype=torch.bool)
    tags, ready = torch.zeros(items, 1).long(), torch.zeros(items, 128).half()
    table = Challenge(tags, {"ready": ready}, {"ready": rows})
    # Random numbers for 268 M weights would take seconds; their number is all that counts here.
    with _no_init():
        ranker = build_ranker(reference().with_ready_vectors(), table, LEVELS)
    token, wide = 2 * 256, 17 * 2 * 256 + 256 + 2 * 64
    attention = (3 * token * token + 3 * token) + (token * token + token)
    feed_forward = (token * 256 + 256) + (256 * token + token)
    expected = {
        "items": items * 64 + 11_740 * 64,
        "categorical": 2 * (1 + 10) * 64,  # ten levels and the unknown
        "sequence": 2 * (attention + feed_forward + 2 * 2 * token) + (token * token + token),
        "interaction": 3 * (wide * wide + wide)
        + (wide * 1024 + 1024)
        + (1024 * 512 + 512)
        + (512 * 256 + 256),
        "heads": ((wide + 256) * 64 + 64) + (64 * 32 + 32) + (32 * 1 + 1),
    }
    assert wide == 9_088
    for name, count in expected.items():
        assert sum(p.numel() for p in getattr(ranker, name).parameters()) == count, name
    total = sum(p.numel() for p in ranker.parameters())
    assert total == sum(expected.values()) == 267_882_497


def test_light_is_a_twentieth_of_the_reference() -> None:
    items, rows = 91_718, torch.ones(91_718, dtype=torch.bool)
    tags, features = torch.zeros(items, 1).long(), torch.zeros(items, 512).half()
    both = ("image", "text")
    table = Challenge(tags, dict.fromkeys(both, features), dict.fromkeys(both, rows))
    with _no_init():
        ranker = build_ranker(light(), table)
    total = sum(p.numel() for p in ranker.parameters())
    assert total < 267_882_497 / 20
    assert sum(p.numel() for p in ranker.interaction.parameters()) < 2_000_000


class _no_init:
    """Parameters of `nn.Linear`, `nn.Embedding` and `nn.init` stay as the memory was."""

    def __enter__(self) -> None:
        self.patch = pytest.MonkeyPatch()
        for name in ("normal_", "xavier_uniform_", "kaiming_uniform_", "uniform_"):
            self.patch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)

    def __exit__(self, *_: object) -> None:
        self.patch.undo()


@pytest.mark.parametrize("name", RECIPES)
def test_json_and_back(name: str) -> None:
    recipe = get_recipe(name)
    assert from_plain(Recipe, json.loads(json.dumps(to_plain(recipe)))) == recipe


def test_unknown_names_are_named(table: Any) -> None:
    with pytest.raises(InputError, match="got 'widht'"):
        from_plain(Recipe, {"widht": 3})
    with pytest.raises(InputError, match=r"items holds .*id_dim.*; got 'id_dmi'"):
        Recipe().changed({"items.id_dmi": 3})
    with pytest.raises(InputError, match="one of light, reference, reference-fused, small"):
        get_recipe("huge")
    for place in PLACES:
        with pytest.raises(InputError, match=f"^{place} must be one of .* got 'no'"):
            build_ranker(Recipe().changed({place: "no"}), table)
    with pytest.raises(InputError, match="takes the options dropout, got 'drop'"):
        build_ranker(Recipe().changed({"items.fusion.drop": 0.1}), table)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("items.content_dim", 0, "items.content_dim must be at least 1 where there is"),
        ("items.id_dim", "wide", "items.id_dim must be int, got 'wide'"),
        ("items.id_dim", True, "items.id_dim must be int, got True"),
        ("interaction.mlp", (3, 2.5), "interaction.mlp must be int, got 2.5"),
        ("training.learning_rate", "fast", "training.learning_rate must be float, got 'fast'"),
        ("training.task_weights", "1,0.5", r"task_weights must be a table such as \{name=0.5\}"),
        ("training.groups", 3, r"training.groups must be a table such as \{name=\{name=0.5\}\}"),
        ("items.id_dim.deep", 1, "items.id_dim holds no settings"),
        ("items", 3, "items must be a table of settings, got 3"),
        ("history.encoder", {"layers": 2}, "history.encoder must be a name or a table with a name"),
    ],
)
def test_values_of_another_type_are_refused(place: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe().changed({place: value})


def test_settings_as_a_command_line_writes_them(tmp_path: Path) -> None:
    texts = ["items.fusion=gmu", "history.newest=none", "interaction.mlp=[9, 7]", "batch_size=64"]
    texts += ["training.learning_rate=1", "items.fusion.a=1", "training.monitor=logloss"]
    changed = Recipe().changed(parse_settings(texts[:5]))
    assert changed.items.fusion == Part("gmu")
    assert changed.history.newest is None
    assert changed.interaction.mlp == (9, 7)
    assert changed.batch_size == 64
    assert changed.training.learning_rate == 1.0
    assert Recipe().changed(parse_settings(texts[5:])).items.fusion == Part("attention", {"a": 1})
    with pytest.raises(InputError, match="NAME=VALUE, got 'batch_size'"):
        parse_settings(["batch_size"])
    path = tmp_path / "mine.toml"
    path.write_text("base = 'light'\nbatch_size = 7\n[items]\nfusion = 'sum'\nid_dim = 3\n")
    assert get_recipe(str(path)) == light().changed(
        {"items.fusion": "sum", "items.id_dim": 3, "batch_size": 7}
    )
    path.write_text("base = ")
    with pytest.raises(InputError, match="is no TOML"):
        get_recipe(str(path))
    with pytest.raises(InputError, match="No such file"):
        get_recipe(str(tmp_path / "nowhere.toml"))


def test_speed_and_training_do_not_bind() -> None:
    faster = Recipe().changed({"training.speed.compact": False, "training.epochs": 99})
    assert faster.binding() == Recipe().binding()
    assert Recipe().changed({"items.id_dim": 3}).binding() != Recipe().binding()


@pytest.mark.parametrize("sequence", [*SEQUENCES])
@pytest.mark.parametrize("cross", [*CROSSES, "none"])
def test_every_name_builds_and_ranks(sequence: str, cross: str, table: Any, batch: Batch) -> None:
    encoder = Part(sequence, {"encoders": ["mean", "din"]} if sequence == "parallel" else {})
    recipe = Recipe().changed(
        {"history.encoder": encoder, "interaction.cross": cross, "history.tiers": 3}
    )
    logits = build_ranker(recipe, table)(batch)
    assert logits.shape == (len(batch),)
    logits.sum().backward()


@pytest.mark.parametrize(
    "change",
    [
        {"items.id_dim": 0},
        {"items.tag_dim": 0},
        {"items.fusion": None},
        {"items.categorical_dim": 0},
        {"items.numeric": None},
        {"context.dim": 0},
        {"context.numeric": None},
        {"history.features": False},
        {"interaction.mlp": ()},
    ],
    ids=lambda change: next(iter(change)),
)
def test_parts_can_be_left_out(change: dict[str, Any], table: Any, batch: Batch) -> None:
    whole = build_ranker(Recipe(), table, INPUTS)
    ranker = build_ranker(Recipe().changed(change), table, INPUTS)
    assert ranker(batch).isfinite().all()
    assert sum(p.numel() for p in ranker.parameters()) < sum(p.numel() for p in whole.parameters())


def test_without_known_users_no_weight_is_a_users(table: Any, batch: Batch) -> None:
    ranker = build_ranker(Recipe().changed({"context.user_dim": 3}), table).eval()
    assert ranker.users is None
    assert not any("user" in name for name in ranker.state_dict())
    strangers = replace(batch, user=batch.user + 1)
    assert torch.equal(ranker(batch), ranker(strangers))


def test_weights_alone_bring_the_model_back(table: Any, batch: Batch) -> None:
    """Known users, items and values, moments and scales travel with the weights; features not."""
    recipe = Recipe().changed({"context.user_dim": 3})
    known = torch.rand(len(table.tags)) < 0.5
    inputs = replace(INPUTS, known_users=batch.user[:4], known_items=known, tasks=("a", "b"))
    first = build_ranker(recipe, table, inputs).eval()
    state = first.state_dict()
    assert not any(name.endswith((".vectors", ".present", "items.tags")) for name in state)
    pointers = [value.data_ptr() for value in state.values()]
    assert len(set(pointers)) == len(pointers)  # safetensors refuses shared tensors
    users = state[Ranker.KNOWN_USERS]
    described = json.loads(json.dumps(describe(recipe, inputs)))
    again = rebuild(described, table, known_users=users).eval()
    again.load_state_dict(state)
    assert torch.equal(first(batch), again(batch))

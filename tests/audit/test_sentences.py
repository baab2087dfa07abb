"""Every kind of finding is said in words, whatever its figures are."""

from __future__ import annotations

from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from mmrec.audit import Finding, explain
from mmrec.audit.checks.categories import Disagreement
from mmrec.audit.checks.future import KnownInTrain, LaterItems
from mmrec.audit.checks.groups import Groups
from mmrec.audit.checks.leaks import Score, TargetInHistory
from mmrec.audit.checks.probe import Probe
from mmrec.audit.checks.shape import Drawn
from mmrec.audit.checks.shift import Labels, NewItems, Separation
from mmrec.audit.findings import SEVERITIES, Name
from mmrec.audit.report.sentences import TEXTS, VARIANTS
from mmrec.audit.scan.columns import Columns
from mmrec.audit.scan.images import Images
from mmrec.audit.scan.items import Damage, ItemIds, Titles
from mmrec.audit.scan.split import Counts, Keys, LabelCounts, Overlap
from mmrec.audit.scan.vectors import VectorFacts

# What the checks find, by the evidence that they give.
NAMES: dict[type, str] = {
    type(None): "no_item_info no_valid",
    ItemIds: "item_info_ids",
    Damage: "damaged_table",
    Columns: "missing_column column_type missing_values values_outside infinite_numbers "
    "uneven_history constant_column",
    Counts: "empty_split right_padded_history holes_in_history no_history unknown_items "
    "padding_as_target duplicate_rows",
    LabelCounts: "label_values one_label",
    Keys: "repeated_keys",
    Drawn: "drawn_negatives",
    Score: "single_column row_order neighbouring_labels",
    TargetInHistory: "target_in_history target_ends_history",
    Disagreement: "category_disagrees",
    LaterItems: "future_items",
    KnownInTrain: "future_in_train",
    Overlap: "users_shared rows_in_train",
    NewItems: "unseen_items",
    Separation: "popularity_shift shift",
    Labels: "item_means_shift label_rate_shift",
    Groups: "groups_of_one_label",
    VectorFacts: "no_vectors broken_vectors constant_vectors duplicate_vectors zero_vectors "
    "constant_dimensions",
    Images: "missing_images broken_images duplicate_images images_not_decoded",
    Titles: "empty_titles duplicate_titles",
    Probe: "content_probe",
}


def made_up(kind: Any, pick: int) -> Any:
    """A value of this type; `pick` chooses among what a union or a literal allows."""
    if kind in (int, float, str, bool, type(None)):
        return {int: 7, float: 0.4, str: "some", bool: pick == 0}.get(kind)
    if get_origin(kind) in (UnionType, Literal):
        allowed = get_args(kind)
        value = allowed[pick % len(allowed)]
        return value if get_origin(kind) is Literal else made_up(value, pick)
    if get_origin(kind) is list:
        return [made_up(get_args(kind)[0], pick)]
    if get_origin(kind) is tuple:
        return tuple(made_up(part, pick) for part in get_args(kind))
    if get_origin(kind) is dict:
        return {made_up(get_args(kind)[0], pick): made_up(get_args(kind)[1], pick)}
    return kind(**{name: made_up(part, pick) for name, part in get_type_hints(kind).items()})


def test_every_kind_of_finding_has_a_sentence() -> None:
    assert sorted(" ".join(NAMES.values()).split()) == sorted(TEXTS) == sorted(get_args(Name))
    assert {name for name, _ in VARIANTS} <= {*TEXTS}


@pytest.mark.parametrize("pick", range(5))
@pytest.mark.parametrize("kind", NAMES, ids=lambda kind: kind.__name__)
def test_sentences_are_sentences(kind: Any, pick: int) -> None:
    evidence = made_up(kind, pick)
    names: Any = NAMES[kind].split()
    for name in names:
        for severity in SEVERITIES:
            sentence, advice = explain(Finding(severity, name, evidence))
            assert not {*"{}"} & {*sentence, *advice}
            assert "None" not in sentence or name == "right_padded_history"
            assert sentence.endswith(".")
            assert advice.endswith(".") or advice.startswith("pip install")

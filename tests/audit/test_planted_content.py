"""Each defect of content or values, planted in sound data, is found and named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from findings import only_serious

from mmrec.audit import Report


def test_broken_images(audited: Callable[..., Report], picture: Callable[..., bytes]) -> None:
    def plant(data: Any) -> None:
        for item in data.images:
            if data.rng.random() < 0.3:
                data.images[item] = data.images[item][:120]  # cut off
        data.images = {i: v for i, v in data.images.items() if i % 10}

    report = audited(plant, picture=picture)
    finding = only_serious(report, "broken_images")
    assert finding.evidence.broken / finding.evidence.checked == pytest.approx(0.3, abs=0.1)
    assert report.named("missing_images")[0].evidence.missing == 24


def test_duplicate_images(audited: Callable[..., Report], picture: Callable[..., bytes]) -> None:
    def plant(data: Any) -> None:
        for item in range(1, 81):
            data.images[item] = data.images[1]

    report = audited(plant, picture=picture)
    assert report.named("duplicate_images")[0].evidence.repeated == 80


def test_duplicate_vectors_and_titles(audited: Callable[..., Report]) -> None:
    def plant(data: Any) -> None:
        data.vectors[20:100] = data.vectors[20]
        data.titles[20:100] = ["No  Title"] * 80
        data.titles[0] = " "

    report = audited(plant)
    assert report.named("duplicate_vectors")[0].evidence.repeated == 80
    assert report.named("duplicate_titles")[0].evidence.commonest == "no title"
    assert report.named("empty_titles")[0].evidence.empty == 1


def test_one_vector_for_nearly_all(audited: Callable[..., Report]) -> None:
    def plant(data: Any) -> None:
        data.vectors[1:200] = 1.0

    only_serious(audited(plant), "constant_vectors")


def test_constant_column(audited: Callable[..., Report]) -> None:
    def plant(data: Any) -> None:
        for clicks in data.clicks.values():
            clicks["likes_level"] = np.full_like(clicks["likes_level"], 7)

    finding = audited(plant).named("constant_column")[0]
    assert finding.evidence.constant == {"likes_level": 7.0}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_in_vectors(audited: Callable[..., Report], bad: float) -> None:
    def plant(data: Any) -> None:
        data.vectors[5, 3] = bad

    assert only_serious(audited(plant), "broken_vectors").evidence.broken == 1


def test_nan_in_the_click_log(audited: Callable[..., Report]) -> None:
    def plant(data: Any) -> None:
        clicks = data.clicks["train"]
        clicks["label"] = np.where(np.arange(len(clicks["label"])) < 5, np.nan, clicks["label"])
        clicks["price"] = np.where(
            np.arange(len(clicks["label"])) < 7, np.nan, 1.0 * clicks["item_id"]
        )

    finding = only_serious(audited(plant), "missing_values")
    assert finding.evidence.missing == {"label": 5, "price": 7}

"""What a run of `microlens_1m.py` says at its end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mmrec.data.counts import ClickCounts, read_pairs
from mmrec.data.microlens import MicroLens
from mmrec.metrics.auc import auc
from mmrec.models.ranker import Ranker
from mmrec.train.evaluate import Scores


class Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - begin, 2)


def measure(
    data: MicroLens,
    counts: ClickCounts,
    ranker: Ranker,
    scores: Scores,
    plain: Scores | None,
) -> dict[str, Any]:
    """All figures of the run; AUC of unseen items is None where valid has none of them."""
    pairs = read_pairs(data.valid)
    unseen = ~counts.known_items.numpy()[pairs.item]
    label = pairs.label.astype(np.float64)

    def of_unseen(some: Scores) -> float | None:
        both = len(np.unique(label[unseen])) == 2
        return auc(label[unseen], some.logit[unseen]) if both else None

    result: dict[str, Any] = {
        "rows": data.rows,
        "parameters": sum(p.numel() for p in ranker.parameters()),
        "valid": scores.metrics(),
        "baselines": {
            "item_mean": {"auc": auc(label, counts.item_logit(pairs.item))},
            "user_item_mean": {"auc": auc(label, counts.user_item_logit(pairs.user, pairs.item))},
        },
        "no_content": None,
        "auc_unseen_items": of_unseen(scores),
        "unseen_rows": int(unseen.sum()),
        "oracle": oracle(data.root),
    }
    if plain is not None:
        bare = plain.metrics()
        result["no_content"] = {"auc": bare["auc"], "auc_unseen_items": of_unseen(plain)}
    return result


def oracle(root: Path) -> dict[str, float] | None:
    """AUC and logloss of the true click probabilities of valid, for synthetic data."""
    path = root / "synthetic.json"
    if not path.exists():
        return None
    valid: dict[str, float] = json.loads(path.read_text())["oracle"]["valid"]
    return valid


def show(result: dict[str, Any], *, synthetic: bool) -> None:
    """One table."""
    lines: list[tuple[str, str]] = [
        ("rows", ", ".join(f"{k} {v:,}" for k, v in result["rows"].items()))
    ]
    lines.append(("parameters", f"{result['parameters']:,}"))
    valid, bases = result["valid"], result["baselines"]
    lines.append(("valid, item mean", f"AUC {bases['item_mean']['auc']:.4f}"))
    lines.append(("valid, user mean + item mean", f"AUC {bases['user_item_mean']['auc']:.4f}"))
    if result["no_content"]:
        lines.append(("valid, ranker without content", _aucs(result["no_content"])))
    with_unseen = valid | {"auc_unseen_items": result["auc_unseen_items"]}
    lines.append(("valid, ranker", f"{_aucs(with_unseen)}, logloss {valid['logloss']:.4f}"))
    if result["oracle"]:
        truth = result["oracle"]
        best = max(base["auc"] for base in bases.values())
        closed = (valid["auc"] - best) / (truth["auc"] - best)
        lines.append(("valid, oracle", f"AUC {truth['auc']:.4f}, logloss {truth['logloss']:.4f}"))
        lines.append(("gap of best baseline to oracle", f"{closed:.0%} closed by the ranker"))
    lines += [(f"seconds, {stage}", f"{value:.1f}") for stage, value in result["seconds"].items()]
    lines += [(name, path) for name, path in result["files"].items()]
    width = max(len(name) for name, _ in lines)
    print("\nsynthetic data, tiny encoder" if synthetic else "")
    for name, value in lines:
        print(f"{name:<{width}}  {value}")


def _aucs(values: dict[str, Any]) -> str:
    unseen = values["auc_unseen_items"]
    return f"AUC {values['auc']:.4f}" + ("" if unseen is None else f" (unseen items {unseen:.4f})")

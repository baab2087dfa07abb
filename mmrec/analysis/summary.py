"""What a run ends with: the figures of its ranker beside trivial baselines, and their table."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from mmrec.data.counts import ClickCounts, read_pairs
from mmrec.data.microlens import MicroLens
from mmrec.metrics import auc
from mmrec.train.evaluate import Scores


def summarise(
    data: MicroLens,
    counts: ClickCounts,
    model: nn.Module,
    scores: Scores,
    plain: Scores | None = None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """All figures of a run on the valid rows, and the lines of a table that shows them.

    Args:
        counts: of the training rows, for the baselines.
        scores: the model's, of the valid rows.
        plain: those of the same model without content, where it was trained.

    AUC of unseen items is over rows whose target train never shows; None where valid has none.
    """
    pairs = read_pairs(data.valid)
    label = pairs.label.astype(np.float64)
    unseen = ~counts.known_items.numpy()[pairs.item]

    def aucs(some: Scores) -> dict[str, float | None]:
        both = len(np.unique(label[unseen])) == 2
        of_unseen = auc(label[unseen], some.logit[unseen]) if both else None
        return {"auc": some.metrics()["auc"], "auc_unseen_items": of_unseen}

    ranker = aucs(scores)
    bases = {
        "item_mean": counts.item_logit(pairs.item),
        "user_item_mean": counts.user_item_logit(pairs.user, pairs.item),
    }
    figures: dict[str, Any] = {
        "rows": data.rows,
        "parameters": sum(p.numel() for p in model.parameters()),
        "valid": scores.metrics(),
        "auc_unseen_items": ranker["auc_unseen_items"],
        "unseen_rows": int(unseen.sum()),
        "baselines": {name: {"auc": auc(label, logit)} for name, logit in bases.items()},
        "no_content": None if plain is None else aucs(plain),
        "oracle": _oracle(data.root),
    }
    return figures, _lines(figures, ranker)


def _oracle(root: Path) -> dict[str, float] | None:
    """AUC and logloss of the true click probabilities of valid, for synthetic data."""
    path = root / "synthetic.json"
    if not path.exists():
        return None
    return dict(json.loads(path.read_text())["oracle"]["valid"])


def _lines(figures: dict[str, Any], ranker: dict[str, float | None]) -> dict[str, str]:
    bases = {name: value["auc"] for name, value in figures["baselines"].items()}
    valid, truth = figures["valid"], figures["oracle"]
    lines = {
        "rows": ", ".join(f"{name} {count:,}" for name, count in figures["rows"].items()),
        "parameters": f"{figures['parameters']:,}",
        "valid, item mean": f"AUC {bases['item_mean']:.4f}",
        "valid, user mean + item mean": f"AUC {bases['user_item_mean']:.4f}",
    }
    if figures["no_content"] is not None:
        lines["valid, ranker without content"] = _text(figures["no_content"])
    lines["valid, ranker"] = f"{_text(ranker)}, logloss {valid['logloss']:.4f}"
    if truth is not None:
        best = max(bases.values())
        closed = (valid["auc"] - best) / (truth["auc"] - best)
        lines["valid, oracle"] = f"AUC {truth['auc']:.4f}, logloss {truth['logloss']:.4f}"
        lines["gap of best baseline to oracle"] = f"{closed:.0%} closed by the ranker"
    return lines


def _text(values: dict[str, float | None]) -> str:
    unseen = values["auc_unseen_items"]
    return f"AUC {values['auc']:.4f}" + ("" if unseen is None else f" (unseen items {unseen:.4f})")

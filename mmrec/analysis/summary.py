"""What a run ends with: the figures of its ranker beside trivial baselines, and their table."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mmrec.data.clicks import ClickData
from mmrec.data.counts import ClickCounts, read_pairs
from mmrec.metrics import auc, ranking_at_k
from mmrec.train.evaluate import Scores

K = 10  # rows of a group that a person sees


def summarise(
    data: ClickData,
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
    Where the schema names a group, its rows are ranked against each other: NDCG, recall, reciprocal
    rank and hit rate of the first 10, None where no group has a click.
    """
    pairs = read_pairs(data.valid, data.schema.clicks)
    unseen = ~counts.known_items.numpy()[pairs.item]
    logits = {"ranker": scores.logit, "no_content": None if plain is None else plain.logit}
    columns: dict[str, Any] = {
        name: None if logit is None else logit.reshape(len(unseen), -1)
        for name, logit in logits.items()
    } | {"item_mean": counts.item_logit(pairs.item)}
    if counts.share_known(pairs.user):  # else users' means are the same figure once more
        columns["user_item_mean"] = counts.user_item_logit(pairs.user, pairs.item)
    tasks = {
        task: {
            name: None if logit is None else _aucs(pairs.labels[:, at], logit[:, at], unseen)
            for name, logit in columns.items()
        }
        for at, task in enumerate(scores.tasks)
    }
    figures: dict[str, Any] = {
        "rows": data.rows,
        "parameters": sum(p.numel() for p in model.parameters()),
        "valid": scores.metrics(),
        "unseen_rows": int(unseen.sum()),
        "tasks": tasks,
        "ranking": {
            task: _ranking(pairs.group, pairs.labels[:, at], columns["ranker"][:, at])
            for at, task in enumerate(scores.tasks)
        },
        "oracle": _oracle(data.root),
    }
    return figures, _lines(figures)


def _aucs(
    label: NDArray[np.float64], logit: NDArray[Any], unseen: NDArray[np.bool_]
) -> dict[str, float | None]:
    """AUC of the rows that have the label, and of those among them with unseen items."""
    there = ~np.isnan(label)
    new = there & unseen
    both = len(np.unique(label[new])) == 2
    return {
        "auc": auc(label[there], logit[there]),
        "auc_unseen_items": auc(label[new], logit[new]) if both else None,
    }


def _ranking(
    group: NDArray[np.int64] | None, label: NDArray[np.float64], logit: NDArray[Any]
) -> dict[str, float] | None:
    """Of the groups' rows that have the label; see `RankingAtK`."""
    if group is None or not (label == 1).any():
        return None
    there = ~np.isnan(label)
    return {"k": K, **vars(ranking_at_k(group[there], label[there], logit[there], k=K))}


def _oracle(root: Path) -> dict[str, float] | None:
    """AUC and logloss of the true click probabilities of valid, for synthetic data."""
    path = root / "synthetic.json"
    if not path.exists():
        return None
    return dict(json.loads(path.read_text())["oracle"]["valid"])


def _lines(figures: dict[str, Any]) -> dict[str, str]:
    valid, truth, tasks = figures["valid"], figures["oracle"], figures["tasks"]
    lines = {
        "rows": ", ".join(f"{name} {count:,}" for name, count in figures["rows"].items()),
        "parameters": f"{figures['parameters']:,}",
    }
    for task, of in tasks.items():
        which, own = (f"valid, {task}", f"{task}/") if len(tasks) > 1 else ("valid", "")
        lines[f"{which}, item mean"] = f"AUC {of['item_mean']['auc']:.4f}"
        if "user_item_mean" in of:
            lines[f"{which}, user mean + item mean"] = f"AUC {of['user_item_mean']['auc']:.4f}"
        if of["no_content"] is not None:
            lines[f"{which}, ranker without content"] = _text(of["no_content"])
        lines[f"{which}, ranker"] = f"{_text(of['ranker'])}, logloss {valid[f'{own}logloss']:.4f}"
        ranked = figures["ranking"][task]
        if ranked is not None:
            lines[f"{which}, first {K} of a group"] = (
                f"NDCG {ranked['ndcg']:.4f}, recall {ranked['recall']:.4f}, "
                f"MRR {ranked['mrr']:.4f}, hit rate {ranked['hit_rate']:.4f}"
            )
    if truth is not None:
        (of,) = tasks.values()
        best = max(of[name]["auc"] for name in ("item_mean", "user_item_mean") if name in of)
        closed = (valid["auc"] - best) / (truth["auc"] - best)
        lines["valid, oracle"] = f"AUC {truth['auc']:.4f}, logloss {truth['logloss']:.4f}"
        lines["gap of best baseline to oracle"] = f"{closed:.0%} closed by the ranker"
    return lines


def _text(values: dict[str, float | None]) -> str:
    unseen = values["auc_unseen_items"]
    return f"AUC {values['auc']:.4f}" + ("" if unseen is None else f" (unseen items {unseen:.4f})")

"""What the cells of `fusion.py` say: means over seeds, intervals over users and seeds, slices."""

from __future__ import annotations

import functools
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import DROPPED, Data, Result
from numpy.typing import NDArray
from scipy.special import expit, ndtr

from mmrec.metrics.auc import gauc
from mmrec.metrics.calibration import calibration_error, logloss_of_logits, predicted_over_observed
from mmrec.metrics.intervals import Replicates, bootstrap
from mmrec.models import Recipe
from mmrec.models.build import build_items

REPLICATES = 1000
RARE = 5  # rows of train
FEWEST = 100  # rows of a slice that is worth a figure


def slices_of(data: Data) -> dict[str, NDArray[np.bool_]]:
    """Name -> (R,) bool over the test rows; slices with hardly a row are left out."""
    known = data.counts.known_items.numpy()[data.target]
    rows = data.counts.item_rows[data.target].sum(1)  # over labels: the schema may name several
    found = {
        "unseen items": ~known,
        f"items with 1-{RARE - 1} train rows": (rows > 0) & (rows < RARE),
    }
    for name, present in data.items.present.items():
        found[f"items without {name}"] = ~present.numpy()[data.target]
    return {name: rows for name, rows in found.items() if rows.sum() >= FEWEST}


def replicates_of(
    logit: dict[str, NDArray[np.float32]],
    user: NDArray[np.int64],
    label: NDArray[np.float64],
    slices: dict[str, NDArray[np.bool_]],
) -> dict[str, Replicates]:
    """Slice -> AUC of one cell, and of resampled users: the same resamples for every cell."""

    def of(score: NDArray[np.float32], rows: Any) -> Replicates:
        return bootstrap("auc", user[rows], label[rows], score[rows], replicates=REPLICATES)

    found = {"all": of(logit["all"], slice(None))}
    found |= {name: of(logit["all"], rows) for name, rows in slices.items()}
    dropped = [name for name in logit if name.endswith(DROPPED)]
    return found | {name: of(logit[name], slice(None)) for name in dropped}


def over_seeds(each: list[Replicates]) -> Replicates:
    """The mean over seeds; in each resampling of users the seeds are resampled too."""
    drawn = np.stack([one.drawn for one in each])  # (S, R)
    seeds, count = drawn.shape
    chosen = np.random.default_rng(1).integers(0, seeds, (seeds, count))
    mean = np.take_along_axis(drawn, chosen, axis=0).mean(0)
    return Replicates(statistics.mean(one.value for one in each), mean)


def summarise(
    results: dict[str, list[Result]], data: Data, *, baseline: str, jobs: int
) -> dict[str, Any]:
    """All figures of all rows, JSON-able."""
    slices = slices_of(data)
    names = [name for name, found in results.items() for _ in found]
    work = functools.partial(replicates_of, user=data.user, label=data.label, slices=slices)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context) as pool:
        parts = list(pool.map(work, [r.logit for found in results.values() for r in found]))
    drawn: dict[str, list[dict[str, Replicates]]] = {name: [] for name in results}
    for name, part in zip(names, parts, strict=True):
        drawn[name].append(part)
    rows = [
        _row(name, found, drawn[name], drawn[baseline], data) for name, found in results.items()
    ]
    adjust([row for row in rows if row["name"] != baseline])
    return {
        "baseline": baseline,
        "test_rows": len(data.label),
        "test_users": len(np.unique(data.user)),
        "slices": {name: int(mask.sum()) for name, mask in slices.items()},
        "rows": rows,
    }


def _row(
    name: str,
    found: list[Result],
    drawn: list[dict[str, Replicates]],
    base: list[dict[str, Replicates]],
    data: Data,
) -> dict[str, Any]:
    cell, figures = found[0].cell, found[0].figures
    logits = [result.logit["all"].astype(np.float64) for result in found]

    def mean(of: Callable[[NDArray[np.float64]], float]) -> float:
        return statistics.mean(of(logit) for logit in logits)

    each = {key: [part[key] for part in drawn] for key in drawn[0]}
    against = {key: [part[key] for part in base] for key in base[0]}
    difference = {
        key: over_seeds([a - b for a, b in zip(values, against[key], strict=True)])
        for key, values in each.items()
    }
    dropped = [name for name in drawn[0] if name.endswith(DROPPED)]
    lost = {
        name.removesuffix(DROPPED): over_seeds([p["all"] - p[name] for p in drawn])
        for name in dropped
    }
    gap = difference["all"]
    spread = float(np.nanstd(gap.drawn))
    fusion = cell.recipe.items.fusion
    return {
        "name": name,
        "fusion": None if fusion is None else fusion.name,
        "learning_rate": cell.recipe.training.learning_rate,
        "seeds": len(found),
        "parameters": figures["parameters"],
        "fusion_parameters": figures["fusion_parameters"],
        "seconds": statistics.median(result.figures["seconds"] for result in found),
        "valid_auc": statistics.mean(result.valid_auc for result in found),
        "auc": {key: _figures(over_seeds(values)) for key, values in each.items()},
        "auc_sd": statistics.stdev(part["all"].value for part in drawn),
        "difference": {key: _figures(value) for key, value in difference.items()},
        "lost": {modality: _figures(value) for modality, value in lost.items()},
        "p": float(2 * ndtr(-abs(gap.value) / spread)) if spread else 1.0,
        "gauc": mean(lambda logit: gauc(data.user, data.label, logit).auc),
        "gauc_users": gauc(data.user, data.label, logits[0]).user_coverage,
        "logloss": mean(lambda logit: logloss_of_logits(data.label, logit)),
        "calibration_error": mean(lambda logit: calibration_error(data.label, expit(logit))),
        "predicted_over_observed": mean(
            lambda logit: predicted_over_observed(data.label, expit(logit))
        ),
    }


def _figures(drawn: Replicates) -> dict[str, float]:
    found = drawn.interval()
    return {"value": found.value, "low": found.low, "high": found.high}


def adjust(rows: list[dict[str, Any]]) -> None:
    """Holm's adjustment of the p values, in place: many rows are compared at once."""
    so_far = 0.0
    for place, row in enumerate(sorted(rows, key=lambda row: row["p"])):
        so_far = max(so_far, min(1.0, row["p"] * (len(rows) - place)))
        row["p_adjusted"] = so_far


def cost_of(recipes: dict[str, Recipe], data: Data, *, rounds: int = 7) -> dict[str, float | None]:
    """Name -> microseconds an item of the fusion alone, one thread: medians, all in turn."""
    ids = torch.arange(min(2048, data.items.num_items))
    timed: dict[str, Any] = {}
    for name, recipe in recipes.items():
        encoder = build_items(recipe, data.items).eval()
        if encoder.fusion is not None:
            timed[name] = (encoder.fusion, encoder.features(ids))
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    with torch.inference_mode():
        for _ in range(rounds):
            for name, (fusion, features) in timed.items():
                began = time.perf_counter()
                fusion(*features)
                seconds[name].append(time.perf_counter() - began)
    return {
        name: 1e6 * statistics.median(seconds[name]) / len(ids) if name in seconds else None
        for name in recipes
    }


def verdict(row: dict[str, Any]) -> str:
    """Better, worse or neither than the baseline, after Holm's adjustment at 5 %."""
    if row.get("p_adjusted", 1.0) >= 0.05:
        return ""
    return "better" if row["difference"]["all"]["value"] > 0 else "worse"


def origin(summary: dict[str, Any], path: Path) -> str:
    """The line below every table."""
    return (
        f"{summary['cells']} trainings, {summary['cell_seconds'] / 60:.0f} core minutes; "
        f"`{path.name}` says by what command, where and when."
    )


def to_markdown(summary: dict[str, Any], path: Path) -> str:
    """Two tables: all test rows, and slices."""
    base = summary["baseline"]
    rows = sorted(summary["rows"], key=lambda row: -row["auc"]["all"]["value"])
    lines = [
        f"{summary['test_rows']:,} test rows of {summary['test_users']:,} users; AUC is the mean "
        f"over {rows[0]['seeds']} seeds; intervals (95 %) resample users and seeds.",
        "",
        f"| | AUC | sd of seeds | AUC less {base}'s | | logloss | gAUC | ECE | pred/obs "
        "| rate | fusion parameters | µs/item |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        gap, cost = row["difference"]["all"], row["us_per_item"]
        against = f"{gap['value']:+.4f} [{gap['low']:+.4f}, {gap['high']:+.4f}]"
        lines.append(
            f"| {row['name']} | {row['auc']['all']['value']:.4f} | {row['auc_sd']:.4f} "
            f"| {'' if row['name'] == base else against} | {verdict(row)} "
            f"| {row['logloss']:.4f} | {row['gauc']:.4f} | {row['calibration_error']:.4f} "
            f"| {row['predicted_over_observed']:.3f} | {row['learning_rate']:g} "
            f"| {row['fusion_parameters']:,} | {'' if cost is None else f'{cost:.2f}'} |"
        )
    keys = [key for key in rows[0]["auc"] if key != "all"]
    sizes = {key: f" ({n:,} rows)" for key, n in summary["slices"].items()}
    lines += ["", "AUC, mean over seeds, of slices of the test rows:", ""]
    heads = [f"{key}{sizes.get(key, '')}" for key in keys]
    heads += [f"lost without {modality}" for modality in rows[0]["lost"]]
    lines += ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for row in rows:
        values = [f"{row['auc'][key]['value']:.4f}" for key in keys]
        values += [f"{row['lost'][modality]['value']:.4f}" for modality in rows[0]["lost"]]
        lines.append(f"| {row['name']} | " + " | ".join(values) + " |")
    lines += ["", origin(summary, path)]
    return "\n".join(lines) + "\n"

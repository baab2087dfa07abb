"""Which goals the figures of `gpu.py` meet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Rows = list[dict[str, Any]]


def judge(steps: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each goal on one H100: what was wanted, what was found, whether that meets it.

    `met` is None where its step was left out or brought no figure.

    >>> rows = [{"recipe": "small", "rows": 9, "seconds": 12.0}]
    >>> goal = judge([{"name": "predict", "rows": rows}])[-1]
    >>> goal["goal"], goal["found"], goal["met"]
    ('379,142 predictions, default, s', 12.0, False)
    """
    of = {step["name"]: step.get("rows", []) for step in steps}
    steps_, epochs = of.get("steps", []), of.get("epoch-reference", [])
    defaults, predicted = of.get("epoch-default", []), of.get("predict", [])
    reference, embedded = {"recipe": "reference-fused"}, of.get("embed", [])
    full = reference | {"batch": 2048, "full": True}
    return [
        _goal("samples/s to the peer's, batch 128", at_least=8, found=_to_peer(of)),
        _goal("epoch, reference, s", at_most=60, found=_one(epochs, "epoch_seconds")),
        _goal("data wait, reference, share", at_most=0.05, found=_one(epochs, "data_wait")),
        _goal(
            "utilisation, full histories", at_least=0.35, found=_one(steps_, "utilisation", full)
        ),
        _goal("epoch, default, s", at_most=15, found=_one(defaults, "epoch_seconds")),
        _goal(
            "91,718 items embedded, s",
            at_most=60,
            found=_one(embedded, "seconds", {"part": "end to end"}),
        ),
        _goal(
            "379,142 predictions, reference, s",
            at_most=10,
            found=_one(predicted, "seconds", reference),
        ),
        _goal(
            "379,142 predictions, default, s",
            at_most=10,
            found=_one(predicted, "seconds", {"recipe": "small"}),
        ),
    ]


def _goal(
    goal: str, *, found: float | None, at_least: float | None = None, at_most: float | None = None
) -> dict[str, Any]:
    wanted = f"at least {at_least}" if at_most is None else f"at most {at_most}"
    met = None
    if found is not None:
        low = found >= at_least if at_least is not None else True
        met = low and (found <= at_most if at_most is not None else True)
    return {"goal": goal, "wanted": wanted, "found": found, "met": met}


def _one(rows: Rows, figure: str, of: dict[str, Any] | None = None) -> float | None:
    """The figure of the first row that has it and these values."""
    wanted = (of or {}).items()
    chosen = (row for row in rows if all(row.get(k) == v for k, v in wanted))
    return next((row[figure] for row in chosen if row.get(figure) is not None), None)


def _to_peer(of: dict[str, Rows]) -> float | None:
    """Reference's step on typical histories against the peer's, both on ready batches."""
    where = {"recipe": "reference-fused", "batch": 128, "full": False}
    ours = _one(of.get("steps", []), "samples_per_second", where)
    theirs = {"batch": 128, "data": "on the device"}
    peer = _one(of.get("peer", []), "samples_per_second", theirs)
    return None if ours is None or peer is None else ours / peer

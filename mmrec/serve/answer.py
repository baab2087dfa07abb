"""A request as plain data to an answer as plain data: what a command line and a web page share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmrec.errors import require
from mmrec.serve.names import shown
from mmrec.serve.request import Request
from mmrec.serve.scorer import Scorer

OF_ANSWER = ("id", "k", "task")  # what a request may hold besides the attributes of `Request`
MOST = 1_000_000  # candidates that a request may name


def answer(scorer: Scorer, values: Any, *, k: int = 10, most: int = MOST) -> dict[str, Any]:
    """{"items": best first, "probabilities": of a click}, and the request's `id` if it has one.

    Args:
        values: an object of `Request`'s attributes, and where wished `id`, `k` and `task`.
        k: items of an answer, where the request does not say.
        most: candidates that a request may name.

    Raises:
        InputError: anything in the request that is not so, in one sentence.
    """
    require(isinstance(values, Mapping), f"a request is a JSON object, got {shown(values)}")
    own = {name: values[name] for name in OF_ANSWER if name in values}
    require(
        "id" not in own or named(values),
        f"id must be a whole number or a string of Unicode text, got {shown(own.get('id'))}",
    )
    request = Request.from_plain(
        {n: v for n, v in values.items() if n not in OF_ANSWER}, besides=OF_ANSWER
    )
    asked = request.candidates
    count = len(asked) if isinstance(asked, list) else 0
    require(count <= most, f"a request names at most {most:,} candidates, got {count:,}")
    task = own.get("task")
    require(task is None or isinstance(task, str), f"task must be a name, got {shown(task)}")
    best = own.get("k", k)
    whole = isinstance(best, int) and not isinstance(best, bool) and best > 0
    require(whole, f"k must be a whole number of at least 1, got {shown(best)}")
    top = scorer.top_of(request, k=best, task=task)
    probabilities = np.round(top.probabilities, 9).tolist()
    return {**named(values), "items": top.items, "probabilities": probabilities}


def named(values: Any) -> dict[str, Any]:
    """{"id": …} of a request that has a good one, one that can be written as JSON; else {}."""
    given = values.get("id") if isinstance(values, Mapping) else None
    if isinstance(given, str):
        good = not any("\ud800" <= letter <= "\udfff" for letter in given)
    else:
        good = isinstance(given, int) and not isinstance(given, bool)
    return {"id": given} if good else {}

"""`python -m mmrec.serve`: a file of requests, one JSON object a line, to a file of answers."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from mmrec.cli import import_modules, offer_modules, program
from mmrec.cli import run as run_command
from mmrec.devices import resolve_device
from mmrec.errors import InputError, positive, require
from mmrec.io.files import replacing, require_file
from mmrec.serve.answer import answer, named
from mmrec.serve.scorer import Scorer, ScorerOptions


def main(arguments: list[str] | None = None) -> None:
    """Answer every line, a bad one by {"error": …}."""
    given = _parse(arguments)
    import_modules(given.modules)
    options = ScorerOptions(dtype=given.dtype, skip_unknown=given.skip_unknown)
    device = resolve_device(given.device)
    with given.requests.open("rb") as requests:
        scorer = Scorer.open(given.run, data=given.data, options=options, device=device)
        if given.out is not None:
            given.out.parent.mkdir(parents=True, exist_ok=True)
        with nullcontext() if given.out is None else replacing(given.out) as temporary:
            if temporary is None:
                bad = _write(scorer, requests, sys.stdout, given.k)
            else:
                with temporary.open("w", encoding="utf-8") as out:
                    bad = _write(scorer, requests, out, given.k)
    if bad:
        print(f"{bad} requests could not be answered; see their error", file=sys.stderr)


def _write(scorer: Scorer, requests: BinaryIO, out: TextIO, k: int) -> int:
    """Returns how many had an error."""
    bad = 0
    for found in answers(scorer, requests, k=k):
        bad += "error" in found
        out.write(json.dumps(found, ensure_ascii=False) + "\n")
    return bad


def answers(scorer: Scorer, lines: Iterable[bytes], *, k: int) -> Iterator[dict[str, Any]]:
    """An answer for each line that is not empty, in their order."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        values: Any = None
        try:
            values = parsed(line)
            yield answer(scorer, values, k=k)
        except InputError as error:
            yield {**named(values), "line": number, "error": " ".join(str(error).split())}


def parsed(text: str | bytes) -> Any:
    """JSON, or an `InputError`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"a request is JSON, got something else: {error}") from None


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=program("mmrec.serve"),
        description="Rank each request's candidates with a trained ranker.",
    )
    offer_modules(parser)
    add = parser.add_argument
    add("run", type=Path, help="`out` of the training or of the example, or one checkpoint's JSON")
    add("--requests", type=Path, required=True, help="a JSON object a line: docs/guides/serving.md")
    add("--data", type=Path, help="the data set's folder, for its items (that of the training)")
    add("--out", help="file where answers go, one JSON object a line (stdout)")
    add("-k", type=int, default=10, help="items of an answer where a request does not say (10)")
    add("--dtype", help="in which items are kept: float32, float16 or bfloat16 (the ranker's)")
    add("--skip-unknown", action="store_true", help="leave unknown items out of histories")
    add("--device", default="cpu", help="cpu, cuda or cuda:N (cpu)")
    given = parser.parse_args(arguments)
    positive(k=given.k)
    given.out = None if given.out is None else require_file(given.out)
    same = given.out is not None and given.out.resolve() == given.requests.resolve()
    require(not same, f"answers must not take the place of the requests, got --out {given.out}")
    return given


if __name__ == "__main__":
    run_command(main)

"""A trained ranker behind HTTP: python examples/serve.py OUT --data DATA

    pip install 'mmrec[serve]'
    curl localhost:8000/rank -d '{"history": [3, 14, 15], "candidates": [9, 26, 5], "k": 2}'

gives {"items": [26, 9], "probabilities": [0.41, 0.17]}; a bad request gets one sentence and code
422. What a request may hold is in docs/guides/serving.md.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from mmrec.cli import run
from mmrec.errors import InputError
from mmrec.serve import Scorer, ScorerOptions
from mmrec.serve.__main__ import parsed
from mmrec.serve.answer import answer

MOST_BYTES, MOST_CANDIDATES = 8 << 20, 100_000


def make_app(scorer: Scorer) -> Any:
    """POST /rank with a request as JSON; GET /health."""
    try:
        from fastapi import FastAPI, Request
        from fastapi.concurrency import run_in_threadpool
        from fastapi.responses import JSONResponse
    except ImportError:
        raise InputError("the service needs its packages: pip install 'mmrec[serve]'") from None
    app = FastAPI(title="mmrec", docs_url=None, redoc_url=None)

    async def rank(request: Request) -> JSONResponse:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MOST_BYTES:
                sentence = f"a request holds at most {MOST_BYTES >> 20} MiB"
                return JSONResponse({"error": sentence}, status_code=422)
        try:
            # Scoring holds a core; requests wait for one another outside the event loop.
            found = await run_in_threadpool(rank_now, body)
        except InputError as error:
            return JSONResponse({"error": " ".join(str(error).split())}, status_code=422)
        return JSONResponse(found)

    def rank_now(body: bytes) -> dict[str, Any]:
        return answer(scorer, parsed(body), most=MOST_CANDIDATES)

    def health() -> dict[str, Any]:
        return {"items": len(scorer.names) - 1, "tasks": list(scorer.tasks)}

    app.add_api_route("/rank", rank, methods=["POST"])
    app.add_api_route("/health", health, methods=["GET"])
    return app


def main() -> None:
    """Load, then serve until stopped."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="`out` of a training")
    parser.add_argument("--data", type=Path, help="the data set's folder (that of the training)")
    parser.add_argument("--host", default="127.0.0.1", help="(127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="(8000)")
    parser.add_argument("--threads", type=int, default=1, help="of one request (1)")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    scorer = Scorer.open(given.run, data=given.data, options=ScorerOptions(skip_unknown=True))
    app, chunk = make_app(scorer), scorer.chunk
    import uvicorn

    print(f"{len(scorer.names) - 1:,} items, {chunk:,} candidates at once")
    uvicorn.run(app, host=given.host, port=given.port, log_level="warning")


if __name__ == "__main__":
    run(main)

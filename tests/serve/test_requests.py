"""Requests of every kind end in an answer or in one sentence, from a file and over HTTP."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import json
import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from slow_variants import SLOW

from mmrec import InputError, build_ranker, describe, fit, get_recipe
from mmrec.cli import run
from mmrec.predict import write_sources
from mmrec.serve import Request, Scorer, ScorerOptions
from mmrec.serve.__main__ import main
from mmrec.serve.answer import answer

JUNK: list[Any] = [
    *(None, True, -1, 0, 41, 10**30, 2.5, float("nan"), float("inf"), "", "7", "sofa", b"x"),
    *([], {}, [[]], [None], [1.0], ["7"], [float("nan")], {"a": 1}, [1, "2"], [True], [2**63]),
    *(-(2**63), 2**63 - 1, [3, 3, 3], [0], [-5], "x" * 5000, [1] * 300),
]


@pytest.fixture(scope="module")
def scorer(shop: Any) -> Scorer:
    options = ScorerOptions(chunk=512)
    return Scorer(shop.ranker().float(), schema=shop.data.schema, options=options)


def some_request(rng: random.Random, shop: Any) -> Any:
    """A good request in which up to three things are as bad as they come."""
    length, count = rng.choice([0, 1, 5, 120]), rng.choice([0, 1, 2, 40, 200])
    good = shop.request(
        rng.choice(shop.rows),
        history=[rng.randint(1, 40) for _ in range(length)],
        candidates=[rng.randint(1, 40) for _ in range(count)],
        k=rng.choice([1, 3, 10_000]),
    )
    good["columns"] |= {"liked": [1] * length, "days_ago": [rng.random()] * length}
    if rng.random() < 0.3:
        good["each"] = {"price": [rng.random() for _ in range(count)]}
    for _ in range(rng.choice([0, 0, 1, 2, 3])):
        place = rng.choice([good, good["columns"]] if isinstance(good["columns"], dict) else [good])
        name = rng.choice([*place, "task", "each", "id", "nonsense"])
        if rng.random() < 0.2:
            place.pop(name, None)
        else:
            place[name] = rng.choice(JUNK)
        if "columns" not in good:
            break
    return good if rng.random() > 0.02 else rng.choice(JUNK)


def test_two_thousand_random_requests_end_in_scores_or_a_sentence(shop: Any, scorer: Any) -> None:
    rng, answered, refused = random.Random(0), 0, list[str]()
    for _ in range(2000):
        request = some_request(rng, shop)
        try:
            found = answer(scorer, request)
        except InputError as error:
            refused.append(str(error))
        else:
            answered += 1
            assert np.isfinite(found["probabilities"]).all()
            assert len(found["items"]) == len(found["probabilities"])
    assert answered > 500
    assert len(refused) > 500
    assert [s for s in refused if not 10 < len(s) < 400 or "\n" in s] == []


def test_a_million_candidates_are_scored_and_more_are_refused(shop: Any, scorer: Any) -> None:
    ids = np.random.default_rng(0).integers(1, 41, 1_000_000).tolist()
    recipe = {
        "history.affinity": 0,
        "history.recency": 0,
        "history.encoder": "none",
        "history.features": False,
    }
    quick = Scorer(shop.ranker(**recipe).float(), schema=shop.data.schema)
    request = shop.request(shop.rows[0], candidates=ids, k=3)
    found = answer(quick, request)
    want = answer(quick, {**request, "candidates": [*range(1, 41)], "k": 1})
    assert found["items"] == want["items"] * 3  # each stands there many times
    np.testing.assert_allclose(found["probabilities"], want["probabilities"] * 3, atol=1e-6)
    with pytest.raises(InputError, match="at most 1,000,000 candidates, got 1,000,001"):
        answer(quick, {**request, "candidates": [*ids, 1]})


@pytest.mark.parametrize(
    "requests", [700, pytest.param(100_000, marks=SLOW)], ids=["short", "long"]
)
def test_memory_stays_flat(requests: int, shop: Any, scorer: Any) -> None:
    rng, process = random.Random(1), psutil.Process()

    def asked(count: int) -> int:
        for _ in range(count):
            candidates = [rng.randint(1, 40) for _ in range(rng.randint(1, 60))]
            answer(scorer, shop.request(rng.choice(shop.rows), candidates=candidates))
        gc.collect()
        return int(process.memory_info().rss)

    before = asked(300)
    assert asked(requests) - before < 16 << 20


@pytest.fixture(scope="module")
def trained(shop: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a training of one epoch left behind."""
    out = tmp_path_factory.mktemp("serve") / "out"
    recipe = get_recipe("small").changed(
        {
            "items.content_dim": 8,
            "items.content_width": 5,
            "training.epochs": 1,
            "training.progress": False,
            "training.device": "cpu",
        }
    )
    torch.manual_seed(0)
    ranker = build_ranker(recipe, shop.items, shop.inputs)
    write_sources(out / "ranker", data=shop.root, features=shop.data.features)
    train = shop.data.loader("train", batch_size=128, shuffle=True)
    valid = shop.data.loader("valid")
    described = describe(recipe, shop.inputs)
    fit(ranker, train, valid, config=recipe.training, out=out / "ranker", recipe=described)
    return out


def test_a_file_of_requests_becomes_a_file_of_answers(
    shop: Any, trained: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    good = shop.request(shop.rows[5], candidates=[4, 5, 6], id="first", k=2)
    lines = [json.dumps(good), "", "{", json.dumps({"id": 7, "history": [99]}), json.dumps(good)]
    (tmp_path / "requests.jsonl").write_text("\n".join(lines))
    words = ["serve", str(trained), "--requests", str(tmp_path / "requests.jsonl")]
    monkeypatch.setattr(sys, "argv", [*words, "--out", str(tmp_path / "answers.jsonl")])
    run(main)
    found = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert "2 requests could not be answered" in capsys.readouterr().err
    scorer = Scorer.open(trained)  # finds data and features by itself
    want = answer(scorer, good)
    assert found[0] == found[3] == want
    assert want["id"] == "first"
    assert len(want["items"]) == 2
    assert found[1]["line"] == 3
    assert "is JSON" in found[1]["error"]
    assert found[2]["id"] == 7
    assert "99 is none of them" in found[2]["error"]
    with torch.no_grad():
        logits = scorer.score_request(Request.from_plain(shop.request(shop.rows[5])))
    assert logits.shape == (1, 2)


def test_bytes_that_are_no_text_are_an_error_of_their_line(
    shop: Any, scorer: Any, trained: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    good = json.dumps(shop.request(shop.rows[5], candidates=[4, 5, 6])).encode()
    path, out = tmp_path / "requests.jsonl", tmp_path / "new_folder" / "answers.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + good + b"\n\xff\xfe\x00{}\n\x80\n" + good)
    words = ["serve", str(trained), "--requests", str(path)]
    monkeypatch.setattr(sys, "argv", [*words, "--out", str(out)])
    run(main)
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert ["error" in one for one in found] == [False, True, True, False]
    for more, sentence in (
        (["--out", str(path)], "answers must not take the place of the requests"),
        (["--out", str(tmp_path)], "a file is needed to write to"),
        (["--out", f"{tmp_path}/new/"], "new/ is a folder"),
        (["--out", str(path / "a.jsonl")], "requests.jsonl is a file"),
        (["--device", "gpu"], "device must be auto, cpu"),
    ):
        monkeypatch.setattr(sys, "argv", [*words, *more])
        with pytest.raises(SystemExit):
            run(main)
        assert sentence in capsys.readouterr().err
    assert path.read_bytes().endswith(good)


@pytest.mark.parametrize("bad", [float("nan"), "\ud800", [1], {"a": 1}, True, None, 1.5])
def test_an_id_can_be_written_into_the_answer(bad: Any, shop: Any, scorer: Any) -> None:
    request = shop.request(shop.rows[5], candidates=[4, 5, 6])
    for good in (7, -(10**30), "é", ""):
        assert answer(scorer, {**request, "id": good})["id"] == good
    with pytest.raises(InputError, match="id must be a whole number or a string"):
        answer(scorer, {**request, "id": bad})


def test_an_unknown_name_is_told_all_that_there_are(shop: Any, scorer: Any) -> None:
    names = "history, candidates, user, columns, each, id, k, task"
    with pytest.raises(InputError, match=rf"a request has {names}, got \['top'\]"):
        answer(scorer, {**shop.request(shop.rows[5]), "top": 3})


def test_what_differs_by_candidate_is_a_column_of_rows(shop: Any, scorer: Any) -> None:
    request = shop.request(shop.rows[5], candidates=[4, 5, 6], each={"liked": [1, 0, 1]})
    with pytest.raises(
        InputError, match=r"differs by candidate is a row's column, got \['liked'\]"
    ):
        answer(scorer, request)


@contextmanager
def served(app: Any) -> Iterator[str]:
    """An app on a free port of the loopback."""
    import uvicorn

    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


def test_two_hundred_requests_at_once_over_http(shop: Any, scorer: Any) -> None:
    import httpx

    place = Path(__file__).parents[2] / "examples" / "serve.py"
    spec = importlib.util.spec_from_file_location("serve_example", place)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    rows = [shop.rows[number % len(shop.rows)] for number in range(200)]
    bodies: list[Any] = [shop.request(r, candidates=[*range(1, 41)], k=5) for r in rows]
    bodies[17] |= {"history": ["sofa"]}
    bodies[90] |= {"candidates": [1] * 100_001}

    async def ask(url: str) -> list[Any]:
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(timeout=60, limits=limits, trust_env=False) as client:
            assert (await client.get(f"{url}/health")).json() == {
                "items": 40,
                "tasks": ["click", "buy"],
            }
            assert (await client.post(f"{url}/rank", content=b"{")).status_code == 422
            sent = [json.dumps(body) for body in bodies]  # NaN, too, is read
            return await asyncio.gather(*(client.post(f"{url}/rank", content=b) for b in sent))

    with served(example.make_app(scorer)) as url:
        replies = asyncio.run(ask(url))
    for number, (body, reply) in enumerate(zip(bodies, replies, strict=True)):
        if number in (17, 90):
            assert reply.status_code == 422
            assert list(reply.json()) == ["error"]
        else:
            assert reply.status_code == 200
            assert reply.json() == answer(scorer, body)

"""Every code block of the README and of docs runs as it stands, in the order of its page.

`python` and `sh` blocks run, in this process, in a folder that holds `shop_folder`'s files; `json`
and `toml` are read; of `console` blocks (several cards, hours, a network) every script and every
option must exist. `text` is no code. Nothing else may stand behind three backticks.
"""

from __future__ import annotations

import importlib
import json
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from raw_shop import make_raw_shop
from slow_variants import thorough

from mmrec.embed.tiny import TINY_CONFIG, make_model, save_model
from mmrec.models import get_recipe
from mmrec.nn import FUSIONS
from mmrec.schema import Schema

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# A page whose blocks are run, with checks of what they leave, by a test of its own.
YOUR_DATA = "docs/start/your_data.md"
ELSEWHERE = {
    YOUR_DATA: "tests/data/prepare/test_your_data_page.py",
    "docs/guides/encoders.md": "tests/embed/test_encoders_page.py",
    "docs/guides/tracking.md": "tests/train/test_docs_tracking.py",
}
SLOW = {"docs/guides/export.md"}  # torch.export takes a quarter of a minute
PAGES = [
    str(page.relative_to(ROOT))
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
    if "```" in page.read_text()
]
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", flags=re.DOTALL | re.MULTILINE)
INCLUDE = re.compile(r'^--8<-- "([^"]+)"$', flags=re.MULTILINE)


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, code) of a page's blocks; a file that a block includes stands in its place."""
    found = []
    for _, language, code in FENCE.findall((ROOT / page).read_text()):
        code = INCLUDE.sub(lambda line: (ROOT / line[1]).read_text().rstrip("\n"), code)
        found.append((language, code))
    return found


def commands(code: str) -> Iterator[list[str]]:
    """Words of each command of a shell block: comments gone, continued lines joined."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words


@pytest.fixture(scope="session")
def shop_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages speak of: a shop's raw files, DATA made of them, RUN trained on DATA.

    `events.csv`, `items.csv`, `pictures/` and new ones beside them, as in "Your own data";
    `ViT-B-32.safetensors` holds a very small CLIP.
    """
    root = make_raw_shop(
        tmp_path_factory.mktemp("pages") / "shop", items=300, users=200, events=1500, pictures=12
    )
    with pytest.MonkeyPatch.context() as here:
        here.chdir(root)
        for words in commands(next(code for kind, code in blocks(YOUR_DATA) if kind == "sh")):
            run(words, here)
        vectors = torch.randn(301, 8, generator=torch.Generator().manual_seed(0)).numpy()
        content = {"sku": range(301), "image": list(vectors), "text": list(vectors[:, :5])}
        pq.write_table(pa.table(content), root / "DATA" / "features.parquet")
        train = "python examples/microlens_1m.py --data DATA --out RUN --quiet --no-audit"
        run(shlex.split(f"{train} --no-diagnosis --no-ablation --set training.epochs=1"), here)
    weights = save_model(make_model(TINY_CONFIG), TINY_CONFIG, root / "clip")
    shutil.move(weights.weights, root / "ViT-B-32.safetensors")
    return root


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A command of a page in this process."""
    assert words[0] == "python", words
    module = words[1] == "-m"
    monkeypatch.setattr(sys, "argv", words[2:] if module else words[1:])
    if not module:
        monkeypatch.syspath_prepend(ROOT / Path(words[1]).parent)
        runpy.run_path(str(ROOT / words[1]))["main"]()
        return
    package = hasattr(importlib.import_module(words[2]), "__path__")
    importlib.import_module(f"{words[2]}.__main__" if package else words[2]).main()


@pytest.fixture
def page_folder(
    shop_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """The working folder of a page: the shop's files, and a small CLIP called as a large one."""
    open_clip = pytest.importorskip("open_clip")
    for path in shop_folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    configs = {**open_clip.factory._MODEL_CONFIGS, "ViT-B-32-quickgelu": TINY_CONFIG}
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", configs)
    monkeypatch.chdir(tmp_path)
    before = dict(FUSIONS)
    yield tmp_path
    FUSIONS.clear()
    FUSIONS.update(before)


@pytest.mark.parametrize(
    "page",
    [thorough(p) if p in SLOW else p for p in PAGES if p not in ELSEWHERE],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning:runpy")
def test_every_block_of_the_page_runs(
    page: str, page_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scope: dict[str, Any] = {"__name__": "page"}
    own = [path.read_text().rstrip("\n") for path in (ROOT / "examples").glob("*.py")]
    for language, code in blocks(page):
        if language == "python" and code.rstrip("\n") not in own:  # those have tests of their own
            exec(compile(code, page, "exec"), scope)
        elif language == "sh":
            for words in commands(code):
                run(words, monkeypatch)
        elif language == "json":
            Schema.from_dict(json.loads(code))
        elif language == "toml":
            (page_folder / "mine.toml").write_text(code)
            get_recipe(str(page_folder / "mine.toml"))


def test_pages_run_elsewhere_are_read_there() -> None:
    for page, test in ELSEWHERE.items():
        assert f'"{Path(page).name}"' in (ROOT / test).read_text()


@pytest.mark.parametrize("page", PAGES)
def test_blocks_are_of_known_languages(page: str) -> None:
    known = {"python", "sh", "console", "json", "toml", "text"}
    assert {language for language, _ in blocks(page)} <= known


def shown() -> list[str]:
    """Each command of a `console` block, once."""
    found = [" ".join(words) for page in PAGES for language, code in blocks(page)
             if language == "console" for words in commands(code)]  # fmt: skip
    return sorted(set(found))


@pytest.mark.parametrize("line", shown())
def test_what_is_shown_but_not_run_exists(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = line.split()
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        return
    if words[0] in ("pip", "git", "apt", "cd") or "pytest" in words:
        tests = [word for word in words if word.startswith("tests/")]
        assert [name for name in tests if not (ROOT / name).exists()] == []
        return
    if words[0] == "torchrun":
        first = next(n for n, word in enumerate(words) if word == "-m" or word.endswith(".py"))
        words = ["python", *words[first:]]
    if not words[1].startswith(("-m", "examples/", "benchmarks/")):
        return  # a script that the page itself holds
    start = 3 if words[1] == "-m" else 2
    with pytest.raises(SystemExit):
        run([*words[:start], "--help"], monkeypatch)
    told = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    assert {word.split("=")[0] for word in words[start:] if word.startswith("--")} <= told


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore::RuntimeWarning:runpy")
def test_the_readmes_commands_lead_from_raw_logs_to_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the fewest options: no titles, no pictures, no columns but the needed ones."""
    monkeypatch.chdir(make_raw_shop(tmp_path / "shop", items=300, users=200, events=4000))
    (code,) = [code for _, code in blocks("README.md") if "mmrec.data.prepare" in code]
    for words in commands(code):
        run(words, monkeypatch)
    assert Path("SCORED/prediction.csv").read_text().startswith("row_id,click\n")

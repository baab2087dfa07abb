"""docs/start/your_data.md from its first command to its last, on the shop that it speaks of."""

from __future__ import annotations

import importlib
import re
import runpy
import shlex
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from raw_shop import make_raw_shop, sku

from mmrec import ClickData, ItemTable
from mmrec.embed.tiny import TINY_CONFIG, make_model, save_model

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "start" / "your_data.md").read_text()
QUICK = "--device cpu --workers 0"
EXAMPLE = "--quiet --no-ablation --no-diagnosis --set training.epochs=1 --set batch_size=256"


def commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines]


def run(words: list[str], clip: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A command of the page in this process, small models in the place of large ones."""
    assert words[0] == "python"
    if words[1] != "-m":
        monkeypatch.setattr(sys, "argv", [*words[1:], *clip, *shlex.split(f"{QUICK} {EXAMPLE}")])
        runpy.run_path(str(ROOT / words[1]))["main"]()
        return
    more = {"mmrec.data.prepare": [], "mmrec.embed": [*clip, *shlex.split(QUICK), "--quiet"]}
    rest = [*words[3:], *more.get(words[2], shlex.split(QUICK))]
    monkeypatch.setattr(sys, "argv", [words[2], *rest])
    importlib.import_module(f"{words[2]}.__main__").main()


@pytest.mark.filterwarnings("ignore::RuntimeWarning:runpy")
def test_every_command_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_raw_shop(tmp_path / "shop", events=4000, pictures=40)
    weights = save_model(make_model(TINY_CONFIG), TINY_CONFIG, tmp_path / "clip")
    clip = ["--model", str(weights.config), "--pretrained", str(weights.weights)]
    monkeypatch.chdir(tmp_path / "shop")
    lines = commands()
    assert len(lines) == 5
    for words in lines:
        run(words, clip, monkeypatch)
    said = capsys.readouterr().out
    for sentence in (
        "times: ISO 8601",
        "1 event has no value in column customer, left out",
        "1 event repeats another",
        "rows to score",
        "without any label: in no history and no statistic",
        "events have a price below 0",
        "pictures: 40 placed, 2,960 items without",
        "40 with image",
        "45 with image",
        "10 items in ",
    ):
        assert sentence in said, sentence
    events = pd.read_csv("events.csv")
    held_out = pd.read_csv("RUN/prediction.csv")
    assert list(held_out.columns) == ["order", "click", "buy"]
    assert held_out["order"].isin(events["order"]).all()
    assert held_out["order"].is_unique
    new, scored = pd.read_csv("new_events.csv"), pd.read_csv("SCORED/prediction.csv")
    assert sorted(scored["order"]) == sorted(new["order"])
    assert np.isfinite(scored[["click", "buy"]].to_numpy()).all()
    check_numbers_stay(Path("DATA"), Path("NEW"))
    check_ready_vectors(Path("DATA"))


def check_numbers_stay(data: Path, new: Path) -> None:
    for path in (data / "maps").glob("*.parquet"):
        old, now = (
            pq.read_table(folder / "maps" / path.name).to_pylist() for folder in (data, new)
        )
        assert now[: len(old)] == old
    items = pq.read_table(new / "item_info.parquet")
    assert items["sku_key"].to_pylist()[3000:] == sorted(sku(n) for n in range(3000, 3010))
    known = pq.read_metadata(data / "maps" / "user.parquet").num_rows
    assert pq.read_table(new / "rows.parquet")["customer"].to_numpy().max() > known


def check_ready_vectors(data: Path) -> None:
    """The page's feature file is read with its one vector, that of the item whose key it names."""
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    exec(compile(block.replace("SKU-71270-B", sku(7)), "page", "exec"), {})
    opened = ClickData.open(data).with_modalities({"sound": "sound_emb"})
    items = ItemTable.read(opened.item_info, opened.schema.items, Path("features.parquet"))
    assert items.keys is not None
    (there,) = items.present["sound"].nonzero()
    assert items.keys[int(there)].as_py() == sku(7)

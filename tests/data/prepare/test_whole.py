"""What is there is whole: the same call again, another call, and calls that are killed."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from preparing import LOG, events, run
from slow_variants import thorough

from mmrec.data.prepare import Options, Plan, pipeline, prepare, prepare_grown, prepare_like
from mmrec.errors import InputError
from mmrec.io.files import write_json
from mmrec.schema import FILE, Schema


def digest(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def test_the_same_call_again_does_nothing_and_another_replaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = run(tmp_path, events())
    before = {path: path.stat().st_mtime_ns for path in made.root.rglob("*")}
    again = run(tmp_path, events())
    assert again == made
    assert before == {path: path.stat().st_mtime_ns for path in made.root.rglob("*")}
    other = run(tmp_path, events(), history="all")
    assert other.root == made.root
    assert before != {path: path.stat().st_mtime_ns for path in made.root.rglob("*")}
    assert digest(run(tmp_path, events(), name="new").root) == digest(run(tmp_path, events()).root)
    (made.root / "mine.txt").touch()
    with pytest.raises(InputError, match=r"earlier output of this command .*holds mine\.txt$"):
        run(tmp_path, events(), history="all")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"a folder is needed to write to, .*file is a file$"):
        run(tmp_path, events(), name="file")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["events.parquet", "file", "new", "out"]


@pytest.mark.parametrize("spelling", ["out", "../{here}/out/.", "link", "another"])
def test_rows_to_score_never_replace_a_data_set(tmp_path: Path, spelling: str) -> None:
    data = run(tmp_path, events()).root
    run(tmp_path, events(), name="another", history="all")
    (tmp_path / "link").symlink_to(data)
    before = digest(tmp_path)
    dest = tmp_path / spelling.format(here=tmp_path.name)
    with pytest.raises(InputError, match=r"rows to score need a folder of their own, .*: give an"):
        prepare_like(data, tmp_path / "events.parquet", dest)
    assert digest(tmp_path) == before
    new = prepare_like(data, tmp_path / "events.parquet", tmp_path / "new").root
    whole = digest(new)
    with pytest.raises(InputError, match="rows to score need a folder of their own"):
        prepare_like(new, tmp_path / "events.parquet", new)  # rows are the past of others too
    assert digest(new) == whole


def test_modalities_added_by_hand_stay_the_next_day(tmp_path: Path) -> None:
    data, log = run(tmp_path, events()).root, tmp_path / "events.parquet"
    for again, name in ((prepare_like, "like"), (prepare_grown, "grown")):
        assert not Schema.read(again(data, log, tmp_path / name).root / FILE).items.modalities
    schema = Schema.read(data / FILE)
    mine = replace(schema, items=replace(schema.items, modalities={"sound": "sound_emb"}))
    write_json(data / FILE, mine.to_dict())
    for again, name in ((prepare_like, "like"), (prepare_grown, "grown")):
        assert Schema.read(again(data, log, tmp_path / name).root / FILE) == mine


def test_steps_that_stand_are_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = digest(run(tmp_path, events(), statistics=("item",), name="whole").root)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as changed:
        changed.setattr(pipeline, "write_rows", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, events(), statistics=("item",))
    assert not (tmp_path / "out").exists()
    with monkeypatch.context() as changed:
        changed.setattr(pipeline, "open_log", stop)
        changed.setattr(pipeline, "write_statistics", stop)
        made = run(tmp_path, events(), statistics=("item",))
    assert digest(made.root) == whole
    assert not (tmp_path / ".out.preparing").exists()


def test_a_kill_between_the_last_two_renames_loses_nothing(tmp_path: Path) -> None:
    made = run(tmp_path, events())
    whole = digest(made.root)
    made.root.rename(tmp_path / ".out.old")
    assert digest(run(tmp_path, events()).root) == whole


CODE = """
import sys
from mmrec.data.prepare import Log, Options, Plan, prepare
log = Log("user", "item", "time", ("click",))
plan = Plan(statistics=("item", "user"), windows=(1,), events_in_memory=400)
print("ready", flush=True)
prepare(sys.argv[1], None, sys.argv[2], Options(log, plan=plan))
"""


@pytest.mark.parametrize("kills", [2, thorough(40)])
def test_killed_at_any_time_it_ends_as_if_it_had_not_been(tmp_path: Path, kills: int) -> None:
    log = events(4000, user=[f"u{n % 97}" for n in range(4000)])
    log.write_csv(tmp_path / "events.csv")
    plan = Plan(statistics=("item", "user"), windows=(1,), events_in_memory=400)
    began = time.perf_counter()
    prepare(tmp_path / "events.csv", None, tmp_path / "whole", Options(LOG, plan=plan))
    took, chance = time.perf_counter() - began, random.Random(kills)
    command = [sys.executable, "-c", CODE, str(tmp_path / "events.csv"), str(tmp_path / "out")]
    killed = 0
    for kill in range(kills):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert child.stdout is not None
        child.stdout.readline()
        # The first falls into the run, the others may come late, or after its end.
        time.sleep(chance.uniform(0, (2 if kill else 0.9) * took))
        child.send_signal(signal.SIGKILL)
        killed += child.wait() == -signal.SIGKILL
        child.stdout.close()
        if (tmp_path / "out").exists():
            assert digest(tmp_path / "out") == digest(tmp_path / "whole")
    assert killed
    prepare(tmp_path / "events.csv", None, tmp_path / "out", Options(LOG, plan=plan))
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")
    assert not list(tmp_path.glob(".out*"))


def test_the_result_does_not_depend_on_how_much_fits_into_memory(tmp_path: Path) -> None:
    """But for the order of rows: by time in a bucket."""
    log = events(
        900, user=[f"u{n % 61}" for n in range(900)], price=[n % 7 / 7 for n in range(900)]
    )
    found = []
    for memory in (50, 10_000):
        made = run(
            tmp_path,
            log,
            name=f"m{memory}",
            statistics=("item", "user"),
            windows=(1, 30),
            events_in_memory=memory,
        )
        parts = [pl.read_parquet(made.root / f"{part}.parquet") for part in ("train", "valid")]
        found.append([part.sort("time") for part in parts])
    for one, other in zip(*found, strict=True):
        assert one.equals(other)

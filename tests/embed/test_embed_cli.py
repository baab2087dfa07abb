"""`python -m mmrec.embed` as a person or torchrun starts it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image
from toy_encoder import read_output, shard_bytes

from mmrec.cli import run
from mmrec.embed import Captions, OpenClipEncoder, TinyClip, embed_items
from mmrec.embed.__main__ import main
from mmrec.embed.sheet import main as sheet_main

Shop = Callable[..., tuple[Path, Path]]


def _command(items: Path, images: Path, out: Path, tiny: TinyClip, *more: str) -> list[str]:
    return [
        "--items", str(items), "--images", str(images), "--out", str(out),
        "--model", str(tiny.config), "--pretrained", str(tiny.weights), "--device", "cpu",
        "--quiet", *more,
    ]  # fmt: skip


def _fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        run(lambda: main(arguments))
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_two_ranks_of_torchrun_give_one_result(
    clip: OpenClipEncoder, tiny: TinyClip, shop: Shop, tmp_path: Path
) -> None:
    items, images = shop(60)
    embed_items(
        clip.towers, items=items, images=images, out=tmp_path / "one", shard_size=16, workers=0
    )
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "mmrec.embed",
        *_command(items, images, tmp_path / "two", tiny, "--shard-size", "16", "--workers", "1"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("60 items in ")
    assert "\n32 items in " in done.stdout  # rank 0's share: shards 0 and 2
    ones, twos = read_output(tmp_path / "one"), read_output(tmp_path / "two")
    assert twos["item_id"] == list(range(1, 61))
    assert twos["status"] == ones["status"]
    assert (tmp_path / "two" / "_report.json").exists()


def interrupted(arguments: list[str], out: Path) -> tuple[int, str]:
    """Exit code and what was said of a run that gets SIGINT when its first shard is there."""
    quick = "--shard-size", "5", "--batch-size", "1"
    process = subprocess.Popen(
        [sys.executable, "-m", "mmrec.embed", *arguments, *quick],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
        # A shell's background jobs, and all that they start, ignore SIGINT otherwise.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 100
    while not shard_bytes(out) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def test_ctrl_c_is_one_sentence(tiny: TinyClip, shop: Shop, tmp_path: Path) -> None:
    items, images = shop(400, size=(300, 400))
    # Python drops an interrupt that comes inside a destructor or a callback, which is rare.
    for attempt in range(3):
        out = tmp_path / f"out{attempt}"
        code, errors = interrupted(_command(items, images, out, tiny), out)
        if code:
            break
    assert code == 130, errors
    assert errors.strip() == "error: interrupted; the same command resumes from here"
    kept = shard_bytes(out)
    assert 0 < len(kept) < 80
    assert not list(out.glob(".*.tmp"))


def test_options_reach_the_run(
    tiny: TinyClip, shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items, images = shop(30)
    out = tmp_path / "out"
    arguments = _command(
        items, images, out, tiny, "--shard-size", "10", "--workers", "0", "--dtype", "float32",
        "--caption", "{title}",
    )  # fmt: skip
    main(arguments)
    assert "30 items" in capsys.readouterr().out
    assert len(shard_bytes(out)) == 3
    identity = json.loads((out / "_identity.json").read_text())
    assert identity["captions"]["template"] == "{title}"
    table = pq.read_table(out / "part-00000-of-00003.parquet")
    assert str(table.schema.field("image_emb").type.value_type) == "float"
    main(arguments)
    assert "3 of 3 shards were there already" in capsys.readouterr().out
    png = tmp_path / "sheet.png"
    sheet_main(
        ["--features", str(out), "--items", str(items), "--images", str(images), "--png", str(png)]
    )
    with Image.open(png) as sheet:
        assert sheet.format == "PNG"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["--items", "/nowhere.parquet"], "a parquet file is needed, there is none"),
        (["--images", "/nowhere"], "images folder cannot be listed"),
        (["--model", "ViT-B-33"], "list_models"),
        (["--pretrained", "/nowhere.safetensors"], "weights file must exist"),
        (["--caption", "{titel}"], "caption template"),
        (["--out", f"{__file__}/features"], "a folder is needed to write to"),
        (["--out", "/proc/none"], "output folder cannot be written"),
        (["--strict", "--workers", "0"], "strict"),
        (["--workers", "-3"], "workers is at least 0"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    change: list[str], sentence: str, tiny: TinyClip, shop: Shop, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    items, images = shop(14)
    arguments = _command(items, images, tmp_path / "out", tiny) + change
    error = _fails(arguments, capsys)
    assert sentence in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error


def test_importing_embed_loads_no_open_clip() -> None:
    code = (
        "import sys, mmrec.embed, mmrec.embed.extract, mmrec.embed.sheet, mmrec.embed.__main__;"
        "bad = {'open_clip', 'polars', 'torchvision', 'timm', 'PIL'} & set(sys.modules);"
        "sys.exit(repr(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_open_clip_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ValueError, match=r"pip install 'mmrec\[clip\]'"):
        OpenClipEncoder()
    assert Captions()("a", None) == "a"

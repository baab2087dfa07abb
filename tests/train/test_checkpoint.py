"""Checkpoints are whole or absent, damage is loud, nothing is unpickled."""

from __future__ import annotations

import json
import os
import pickle
import resource
from pathlib import Path

import pytest
import torch
from torch import nn
from toy_training import ToyLoader, ToyModel, assert_same_state, state_of, toy_config

from mmrec import InputError
from mmrec.cli import run
from mmrec.train import fit, load_checkpoint, load_weights, save_checkpoint
from mmrec.train.state import checkpoint


def save(directory: Path, step: int, value: float = 1.0) -> Path:
    tensors = {"model/weight": torch.full((3, 5), value), "model/count": torch.tensor(step)}
    return save_checkpoint(directory, "last", step, tensors=tensors, content={"recipe": {"a": 1}})


def test_round_trip(tmp_path: Path) -> None:
    shared = torch.arange(12.0).view(3, 4)
    tensors = {
        "model/a": shared,
        "model/tied": shared,
        "model/column": shared[:, 1],  # not contiguous, part of a bigger storage
        "optimizer/half": torch.ones(2, dtype=torch.bfloat16),
        "scaler/scale": torch.tensor(3.0),
    }
    path = save_checkpoint(
        tmp_path, "best", 7, tensors=tensors, content={"recipe": {"b": (1, 2), 3: 0.1 + 0.2}}
    )
    found = load_checkpoint(path)
    assert found.step == 7
    assert found.recipe == {"b": [1, 2], "3": 0.1 + 0.2}
    assert found.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found.tensors[name], tensor)
    assert set(found.part("model")) == {"a", "tied", "column"}


def test_the_newest_complete_one_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (5, 10, 9):
        save(tmp_path, step)
    assert load_checkpoint(tmp_path, "last").step == 10
    (tmp_path / "last-0000000011.safetensors").write_bytes(b"a save that was killed")
    (tmp_path / ".last-0000000012.safetensors.1.tmp").write_bytes(b"another")
    assert load_checkpoint(tmp_path, "last").step == 10
    assert capsys.readouterr().err == ""
    with pytest.raises(InputError, match="no best checkpoint"):
        load_checkpoint(tmp_path, "best")
    with pytest.raises(InputError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "nowhere.json")


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone"])
def test_a_damaged_one_is_passed_over_loudly(
    tmp_path: Path, suffix: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, 5)
    path = save(tmp_path, 6).with_suffix(suffix)
    size = path.stat().st_size
    if damage == "flip":
        flip(path, size - 3 if suffix == ".safetensors" else path.read_text().index("recipe") + 1)
    elif damage == "gone":
        path.unlink()
    else:
        os.truncate(path, 0 if damage == "empty" else size // 2)
    assert load_checkpoint(tmp_path, "last").step == 5
    if not (damage == "gone" and suffix == ".json"):  # without its JSON it was never committed
        assert "0006" in capsys.readouterr().err
        with pytest.raises(InputError, match="damaged"):
            load_checkpoint(path.with_suffix(".json"))


def test_every_byte_of_the_json_is_guarded(tmp_path: Path) -> None:
    path = save(tmp_path, 5)
    content = json.loads(path.read_text())
    content["recipe"]["a"] = 2
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="its own checksum does not match"):
        load_checkpoint(path)


def test_all_damaged_is_an_error_not_a_fresh_start(tmp_path: Path) -> None:
    for step in (5, 6):
        flip(save(tmp_path, step).with_suffix(".safetensors"), 40)
    with pytest.raises(InputError, match=r"every checkpoint in .* is damaged"):
        load_checkpoint(tmp_path, "last")


@pytest.mark.parametrize("written", [1, 4, 6])
def test_another_format_is_refused_in_one_sentence_that_says_what_to_do(
    tmp_path: Path,
    written: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(checkpoint, "FORMAT", written)
    run_fit(out)
    monkeypatch.undo()
    sentence = rf"was written by another version of mmrec \(format {written}, this reads 5\): train"
    for what in ("last", "best"):
        with pytest.raises(InputError, match=sentence):
            load_checkpoint(out, what)
    with pytest.raises(InputError, match=sentence) as refused:
        run_fit(out)
    assert "\n" not in str(refused.value)
    assert "damaged" not in str(refused.value) + capsys.readouterr().err
    fit(
        ToyModel(),
        ToyLoader(),
        ToyLoader(101, data_seed=2, shuffle=False),
        config=toy_config(epochs=1),
        out=out,
        recipe={},
        restart=True,
    )
    assert load_checkpoint(out, "last").step == 13


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    proof = tmp_path / "code ran"
    directory = tmp_path / "checkpoints"
    good = save(directory, 5)
    evil = pickle.dumps(Payload(proof))
    (directory / "last-0000000009.json").write_bytes(evil)
    (directory / "last-0000000009.safetensors").write_bytes(evil)
    torch.save({"model": Payload(proof)}, directory / "last-0000000010.safetensors")
    (directory / "last-0000000010.json").write_bytes(good.read_bytes())
    (directory / "last-0000000011.pt").write_bytes(evil)
    assert load_checkpoint(tmp_path, "last").step == 5
    assert not proof.exists()
    pickle.loads(evil)
    assert proof.exists()  # the payload was live


def test_weights_that_do_not_fit_are_one_sentence(tmp_path: Path) -> None:
    found = load_checkpoint(save(tmp_path, 5))
    with pytest.raises(InputError, match="does not fit this model"):
        load_weights(nn.Linear(5, 3), found)


def run_fit(out: Path, **config: object) -> None:
    fit(
        ToyModel(),
        ToyLoader(),
        ToyLoader(101, data_seed=2, shuffle=False),
        config=toy_config(save_every_steps=5, **config),
        out=out,
        recipe={"kind": "toy"},
    )


def test_a_full_disk_is_one_sentence_and_leaves_the_last_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_fit(tmp_path / "whole")
    real = os.fsync
    calls = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 12:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot write checkpoint .*: No space left"):
        run_fit(tmp_path / "full")
    monkeypatch.undo()
    assert not list((tmp_path / "full" / "checkpoints").glob(".*"))
    assert load_checkpoint(tmp_path / "full", "last").step > 0
    run_fit(tmp_path / "full")
    assert_same_state(state_of(tmp_path / "full"), state_of(tmp_path / "whole"))


def test_a_real_write_failure_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The kernel refuses files above a limit, as a full disk or quota does."""
    loaders = ToyLoader(), ToyLoader(101, data_seed=2)
    model = ToyModel(width=1001)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with pytest.raises(SystemExit) as left:
            run(lambda: fit(model, *loaders, config=toy_config(), out=tmp_path, recipe={}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert left.value.code == 2
    assert "error: cannot write checkpoint" in capsys.readouterr().err
    assert not list((tmp_path / "checkpoints").iterdir())


def test_an_out_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(InputError, match=r"cannot write to .*file"):
        run_fit(tmp_path / "file")
    if os.geteuid() != 0:  # root may write anywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(InputError, match=r"cannot write to .*Permission denied"):
            run_fit(tmp_path / "locked")

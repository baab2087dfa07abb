"""The open_clip encoder against open_clip itself, and what it refuses."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path

import open_clip
import pytest
import torch
from odd_pictures import photo

from mmrec import InputError
from mmrec.embed import Encoder, OpenClipEncoder, TinyClip, save_model
from mmrec.embed.clip import encode_trimmed
from mmrec.embed.tiny import make_model

CAPTIONS = ["a", "", "wow!!", "five cats #cat #12 #7", "🎬 ünï " * 4, "word " * 100]


def test_it_is_an_encoder(clip: OpenClipEncoder) -> None:
    assert all(isinstance(tower, Encoder) for tower in clip.towers.values())
    assert (clip.image_dim, clip.text_dim, clip.preprocessing.size) == (37, 37, (48, 48))


def test_vectors_are_open_clips_own(clip: OpenClipEncoder, tiny: TinyClip) -> None:
    config = json.loads(tiny.config.read_text())
    theirs = open_clip.CLIP(**config).eval()
    open_clip.load_checkpoint(theirs, str(tiny.weights))
    tokenizer = open_clip.SimpleTokenizer(context_length=29)
    with torch.inference_mode():
        expected = theirs.encode_text(tokenizer(CAPTIONS))
        pixels = torch.randn(3, 3, 48, 48)
        torch.testing.assert_close(clip.encode_image(pixels), theirs.encode_image(pixels))
    torch.testing.assert_close(
        clip.encode_text(clip.tokenize(CAPTIONS)), expected, rtol=1e-4, atol=1e-5
    )


def test_text_is_computed_no_further_than_its_longest_caption(
    clip: OpenClipEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths: list[int] = []
    forward = clip.model.transformer.forward

    def spy(x: torch.Tensor, **options: object) -> torch.Tensor:
        widths.append(x.shape[1])
        return forward(x, **options)

    monkeypatch.setattr(clip.model.transformer, "forward", spy)
    clip.encode_text(clip.tokenize(["a cat", "a"]))
    clip.encode_text(clip.tokenize(CAPTIONS))
    assert widths == [4, 29]  # start, a, cat, end; cut to the context length


@pytest.mark.parametrize(
    "change", [{"no_causal_mask": True}, {"pool_type": "first"}, {"pool_type": "last"}]
)
def test_other_text_towers_get_the_full_width(change: dict[str, object], tmp_path: Path) -> None:
    config: dict[str, dict[str, object]] = json.loads(
        json.dumps({"embed_dim": 12, "vision_cfg": {}, "text_cfg": {}})
    )
    config["vision_cfg"] = {
        "image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8,
    }  # fmt: skip
    config["text_cfg"] = {
        "context_length": 19, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1, **change,
    }  # fmt: skip
    model = make_model(config, seed=2).eval()
    files = save_model(model, config, tmp_path)
    encoder = OpenClipEncoder(model_name=files.config, pretrained=files.weights, device="cpu")
    tokens = encoder.tokenize(["a cat", "two more words"])
    with torch.inference_mode():
        expected = model.encode_text(tokens)
    torch.testing.assert_close(encoder.encode_text(tokens), expected)
    if "no_causal_mask" in change:
        with pytest.raises((RuntimeError, TypeError)):
            encode_trimmed(encoder.model, tokens)


def test_a_torch_file_of_tensors_is_the_same_model(
    clip: OpenClipEncoder, tiny: TinyClip, tmp_path: Path
) -> None:
    file = tmp_path / "weights.pt"
    torch.save({"state_dict": clip.model.state_dict()}, file)
    again = OpenClipEncoder(model_name=tiny.config, pretrained=file, device="cpu")
    assert again.fingerprint() == clip.fingerprint()


def test_another_weight_is_another_identity(
    clip: OpenClipEncoder, tiny: TinyClip, tmp_path: Path
) -> None:
    config = json.loads(tiny.config.read_text())
    other = save_model(make_model(config, seed=9), config, tmp_path)
    encoder = OpenClipEncoder(model_name=other.config, pretrained=other.weights, device="cpu")
    assert encoder.fingerprint()["weights"] != clip.fingerprint()["weights"]
    assert encoder.fingerprint()["model"] == clip.fingerprint()["model"]


@pytest.mark.parametrize("options", [{"precision": "bf16"}, {"channels_last": True}])
def test_faster_settings_agree(
    options: dict[str, object], clip: OpenClipEncoder, tiny: TinyClip
) -> None:
    fast = OpenClipEncoder(model_name=tiny.config, pretrained=tiny.weights, device="cpu", **options)
    from mmrec.embed.preprocess import normalise, resize_batch

    pictures = [torch.tensor(list(photo(48, 48, seed=s).tobytes())) for s in range(4)]
    pixels = [p.view(48, 48, 3).permute(2, 0, 1).to(torch.uint8) for p in pictures]
    tokens = clip.tokenize(CAPTIONS)
    batch = normalise(resize_batch(pixels, clip.preprocessing), clip.preprocessing)
    for a, b in [
        (fast.encode_image(batch), clip.encode_image(batch)),
        (fast.encode_text(tokens), clip.encode_text(tokens)),
    ]:
        assert torch.nn.functional.cosine_similarity(a.float(), b, dim=1).min() > 0.999


class _Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("this must never be printed",))


def _bad_weights(kind: str, folder: Path, tiny: TinyClip) -> Path:
    file = folder / f"{kind}.pt"
    if kind == "pickle":
        file.write_bytes(pickle.dumps(_Code()))
    elif kind == "torch pickle":
        torch.save({"state_dict": _Code()}, file)
    elif kind == "text":
        file.write_text("not weights at all")
    elif kind == "empty":
        file.touch()
    elif kind == "truncated":
        file = file.with_suffix(".safetensors")
        file.write_bytes(tiny.weights.read_bytes()[:5000])
    elif kind == "other shapes":
        torch.save({key: torch.zeros(2) for key in ("visual.proj", "logit_scale")}, file)
    elif kind == "torchscript":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)
    elif kind == "directory":
        file.mkdir()
    return file  # "absent": nothing there


@pytest.mark.parametrize(
    "kind",
    [
        "pickle", "torch pickle", "text", "empty", "truncated", "other shapes", "torchscript",
        "directory", "absent",
    ],
)  # fmt: skip
def test_bad_weights_are_one_sentence(
    kind: str, tiny: TinyClip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = _bad_weights(kind, tmp_path, tiny)
    with pytest.raises(InputError, match="weights") as caught:
        OpenClipEncoder(model_name=tiny.config, pretrained=file, device="cpu")
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "must never" not in capsys.readouterr().out


def test_unknown_names_are_one_sentence(tiny: TinyClip, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"list_models.*'ViT-B-33'"):
        OpenClipEncoder(model_name="ViT-B-33", pretrained=tiny.weights)
    with pytest.raises(InputError, match=r"tags of ViT-B-32.*'laion3b'"):
        OpenClipEncoder(model_name="ViT-B-32", pretrained="laion3b")
    with pytest.raises(InputError, match=r"config .*none\.json cannot be read"):
        OpenClipEncoder(model_name=tmp_path / "none.json", pretrained=tiny.weights)
    (tmp_path / "half.json").write_text('{"embed_dim": 3}')
    with pytest.raises(InputError, match="embed_dim, vision_cfg, text_cfg"):
        OpenClipEncoder(model_name=tmp_path / "half.json", pretrained=tiny.weights)
    with pytest.raises(InputError, match="got 'abacus'"):
        OpenClipEncoder(model_name=tiny.config, pretrained=tiny.weights, device="abacus")
    with pytest.raises(InputError, match="precision is one of"):
        OpenClipEncoder(model_name=tiny.config, pretrained=tiny.weights, precision="int3")


@pytest.mark.parametrize("network", ["refused", "silent", "off"])
@pytest.mark.parametrize("tag", ["laion2b_s34b_b79k", "openai"])
def test_a_tag_without_network_is_one_sentence(
    tag: str, network: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever open_clip and the hub say, and however long they try: the sentence is ours."""

    def connect(*_: object, **__: object) -> None:
        raise ConnectionRefusedError if network == "refused" else TimeoutError

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", network == "off")
    monkeypatch.setattr("socket.create_connection", connect)
    monkeypatch.setattr("socket.getaddrinfo", connect)
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the hub's own tries
    with pytest.raises(InputError, match=r"could not be downloaded .*--pretrained FILE") as caught:
        OpenClipEncoder(model_name="ViT-B-32", pretrained=tag)
    assert tag in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("hub", "name"),
    [
        ("some/model/", "open_clip_model.safetensors"),
        ("some/model/", "open_clip_pytorch_model.bin"),
        ("some/model/own.pt", "own.safetensors"),
        ("some/model/own.pt", "own.pt"),
    ],
)
def test_what_the_hubs_cache_holds_is_found_without_network(
    hub: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from mmrec.embed.clip import resolve_tag

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.create_connection", None)
    monkeypatch.setattr("socket.getaddrinfo", None)
    place = tmp_path / "models--some--model"
    file = place / "snapshots" / ("1" * 40) / name
    file.parent.mkdir(parents=True)
    file.touch()
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("1" * 40)
    assert resolve_tag("any", "tag", {"hf_hub": hub}) == file


def test_a_tag_in_the_cache_needs_no_network(
    monkeypatch: pytest.MonkeyPatch, clip: OpenClipEncoder, tiny: TinyClip
) -> None:
    """The tag's own activation and pixel statistics come with it."""
    from mmrec.embed import clip as module

    name, _ = module._register(str(tiny.config))
    known = {"hf_hub": "none/such/", "mean": (0.5, 0.5, 0.5), "quick_gelu": True}
    monkeypatch.setattr(
        open_clip, "get_pretrained_cfg", lambda model, tag: known if tag == "mine" else {}
    )
    monkeypatch.setattr(module, "resolve_tag", lambda *_: tiny.weights)
    monkeypatch.setattr("socket.create_connection", None)
    encoder = OpenClipEncoder(model_name=tiny.config, pretrained="mine", device="cpu")
    assert encoder.preprocessing.mean == (0.5, 0.5, 0.5)
    pixels = torch.randn(2, 3, 48, 48)
    assert not torch.allclose(encoder.encode_image(pixels), clip.encode_image(pixels))
    assert name in open_clip.list_models()

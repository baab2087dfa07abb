"""Any open_clip model as a frozen encoder. open_clip is imported when an encoder is made.

In go the name of a model and of weights, or files of both. First comes the encoder, then how its
model is found and loaded, the text tower computed no further than it must, and last how weights are
found and refused.

Shapes: B rows of a batch, T tokens of the batch's longest caption, C the context length.
"""

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmrec.devices import resolve_device
from mmrec.embed.encoder import Encoder, Preprocessing, hash_weights, towers
from mmrec.errors import InputError

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
_LIGHT = 5_000_000  # parameters of an image tower that is faster on one thread beside decoders
_FILE_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".npz", ".npy")
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class OpenClipEncoder:
    """A frozen open_clip model, whose two towers (`towers`) are encoders of two modalities.

    Args:
        model_name: a name of `open_clip.list_models()`, or the path of a model config `.json`
            (open_clip's own format, or the hub's `{"model_cfg": …, "preprocess_cfg": …}`).
        pretrained: a pretrained tag of that model, or the path of a weights file (safetensors, or
            a torch file of tensors only).
        device: "auto" takes a CUDA device where there is one.
        precision: "fp32"; "bf16" or "fp16" for autocast; "auto" is fp16 on CUDA, fp32 elsewhere.
        channels_last: memory format of pictures and of the image tower.
        compile: `torch.compile` the image tower.

    Vectors are as the towers give them, not scaled to unit length.

    Raises:
        InputError: open_clip is not installed, the model is unknown, or its weights cannot be
            found, reached or read, or do not fit the model; one sentence each.
    """

    def __init__(
        self,
        *,
        model_name: str | os.PathLike[str] = "ViT-B-32",
        pretrained: str | os.PathLike[str] = "openai",
        device: str | torch.device = "auto",
        precision: str = "auto",
        channels_last: bool = False,
        compile: bool = False,
    ) -> None:
        if precision not in PRECISIONS:
            raise InputError(f"precision is one of {PRECISIONS}, got {precision!r}")
        open_clip = import_open_clip()
        self.device = resolve_device(device)
        if precision == "auto":
            precision = "fp16" if self.device.type == "cuda" else "fp32"
        self.precision = precision
        name, given = _register(str(model_name))
        model, weights = _load(name, str(pretrained), given)
        self.name = f"{Path(model_name).stem if given is not None else name} ({weights.name})"
        self._identity = {
            "model": open_clip.get_model_config(name),
            "weights": hash_weights(model),
            "precision": precision,
        }
        self.preprocessing = _preprocessing(model.visual.preprocess_cfg)
        try:
            self._tokenizer = open_clip.get_tokenizer(name)
        except Exception as error:
            raise InputError(
                f"the tokenizer of {name} could not be loaded (it may need the network): {error}"
            ) from None
        self._channels_last = channels_last
        self.model = model.eval().requires_grad_(False).to(self.device)
        if channels_last:
            self.model.visual.to(memory_format=torch.channels_last)
        self._trims = _can_trim(self.model)
        self.image_dim, self.text_dim = self._probe()
        # On the CPU, threads of a small model spin at every barrier while decoding wants their
        # cores; measured, they made the tiny model's forward pass five times slower.
        light = sum(p.numel() for p in self.model.visual.parameters()) < _LIGHT
        self.threads = 1 if light or self.device.type == "cuda" else None
        self._visual = torch.compile(self.model.visual) if compile else self.model.visual

    @property
    def towers(self) -> dict[str, Encoder]:
        """The modalities image and text, for `embed_items`."""
        return towers(self)

    def fingerprint(self) -> dict[str, Any]:
        """Architecture, a hash of every weight, precision and preprocessing."""
        return {**self._identity, "preprocessing": self.preprocessing.fingerprint()}

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) float32, normalised, on the encoder's device -> (B, image_dim)."""
        if self._channels_last:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), self._autocast():
            vectors: Tensor = self._visual(pixels)
        return vectors

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """B captions -> (B, C) int64, cut and padded to the context length."""
        tokens: Tensor = self._tokenizer(list(captions))
        return tokens

    def encode_text(self, tokens: Tensor) -> Tensor:
        """(B, C) int64 from `tokenize` -> (B, text_dim).

        In a causal text tower nothing after the end-of-text token can reach it, so only as many
        positions are computed as the longest caption of the batch has. Other towers get the full
        width.
        """
        with torch.inference_mode(), self._autocast():
            if self._trims:
                return encode_trimmed(self.model, tokens)
            vectors: Tensor = self.model.encode_text(tokens.to(self.device, non_blocking=True))
        return vectors

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=_DTYPES[self.precision])

    def _probe(self) -> tuple[int, int]:
        """The two widths, and whether trimmed text agrees with open_clip's own in this version."""
        tokens = self.tokenize(["a cat", "two words, and then some more of them!!"])
        with torch.inference_mode():
            whole = self.model.encode_text(tokens.to(self.device))
            if self._trims:
                try:
                    cut = encode_trimmed(self.model, tokens)
                    self._trims = torch.allclose(cut, whole, rtol=1e-3, atol=1e-4)
                except (RuntimeError, AttributeError, TypeError):
                    self._trims = False
            height, width = self.preprocessing.size
            image = self.model.visual(torch.zeros(1, 3, height, width, device=self.device))
        if not isinstance(image, Tensor) or not isinstance(whole, Tensor):
            raise InputError(
                "the towers of an encoder give one vector each; this model gives several outputs "
                "(output_tokens in its config)"
            )
        return image.shape[-1], whole.shape[-1]


def import_open_clip() -> Any:
    """The package, or one sentence on how to get it."""
    try:
        import open_clip
    except ImportError:
        raise InputError(
            "embedding needs open_clip: pip install 'mmrec[clip]', or use ready-made features"
        ) from None
    return open_clip


def _register(model_name: str) -> tuple[str, dict[str, Any] | None]:
    """A name that open_clip knows; the preprocess_cfg where the model came as a config file."""
    import open_clip

    if not (model_name.endswith(".json") or os.sep in model_name):
        name = model_name.replace("/", "-")
        if name not in open_clip.list_models():
            raise InputError(
                f"the model must be one of open_clip.list_models() or the path of a config .json, "
                f"got {model_name!r}"
            )
        return name, None
    path = Path(model_name)
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"the model config {path} cannot be read as JSON: {reason}") from None
    config = content.get("model_cfg", content) if isinstance(content, dict) else None
    wanted = ("embed_dim", "vision_cfg", "text_cfg")
    if not isinstance(config, dict) or any(key not in config for key in wanted):
        raise InputError(f"a model config holds {', '.join(wanted)}; {path} does not")
    text = json.dumps(config, sort_keys=True)
    # open_clip names a config after its file: the hash keeps two "tiny.json" apart.
    name = f"{path.stem}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    if name not in open_clip.list_models():
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / f"{name}.json"
            file.write_text(text)
            open_clip.add_model_config(file)
    return name, content.get("preprocess_cfg", {})


def _load(name: str, pretrained: str, given: dict[str, Any] | None) -> tuple[Any, Path]:
    """The model on the CPU in float32, and the file that its weights came from."""
    import open_clip

    overrides: dict[str, Any] = {"force_preprocess_cfg": given} if given else {}
    known = open_clip.get_pretrained_cfg(name, pretrained)
    if known:
        weights = resolve_tag(name, pretrained, known)
        overrides["force_preprocess_cfg"] = {
            key: known.get(key)
            for key in ("mean", "std", "interpolation", "resize_mode", "fill_color")
        }
        # Some tags were trained with another activation than the architecture's config says.
        overrides["force_quick_gelu"] = bool(known.get("quick_gelu", False))
    elif looks_like_file(pretrained):
        weights = resolve_file(pretrained)
    else:
        tags = open_clip.list_pretrained_tags_by_model(name)
        raise InputError(
            f"pretrained must be a weights file or one of the tags of {name} "
            f"({', '.join(tags) or 'it has none'}), got {pretrained!r}"
        )
    with quietly():
        try:
            # The file that was found is the one that is read: a tag given here would be looked
            # up again, over the network.
            model = open_clip.create_model(
                name, pretrained=str(weights), device="cpu", precision="fp32", **overrides
            )
        except Exception as error:
            raise explain(error, weights, name) from None
    return model, weights


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without open_clip's log lines and warnings about what we decide here."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _preprocessing(config: dict[str, Any]) -> Preprocessing:
    size = config["size"]
    height, width = (size, size) if isinstance(size, int) else size
    mean, std = config["mean"], config["std"]
    return Preprocessing(
        size=(int(height), int(width)),
        resize_mode=config["resize_mode"],
        interpolation="bilinear" if config["interpolation"] == "bilinear" else "bicubic",
        mean=(float(mean[0]), float(mean[1]), float(mean[2])),
        std=(float(std[0]), float(std[1]), float(std[2])),
        fill=int(config.get("fill_color", 0)),
    )


def _can_trim(model: Any) -> bool:
    """Whether this is CLIP's own causal text tower, pooled at the end-of-text token."""
    import open_clip

    return (
        type(model) is open_clip.CLIP
        and getattr(model, "attn_mask", None) is not None
        and getattr(model, "text_pool_type", "argmax") == "argmax"
    )


def encode_trimmed(model: Any, tokens: Tensor) -> Tensor:
    """(B, C) tokens -> (B, text_dim), computing only the first T <= C positions."""
    end = tokens.argmax(dim=1)  # (B,): end-of-text has the highest id
    length = int(end.max()) + 1 if len(end) else 1
    device = model.token_embedding.weight.device
    tokens = tokens[:, :length].to(device, non_blocking=True)
    end = end.to(device, non_blocking=True)
    x = model.token_embedding(tokens) + model.positional_embedding[:length]  # (B, T, width)
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    x = model.ln_final(x)[torch.arange(len(end), device=device), end]  # (B, width)
    projection = model.text_projection
    if projection is not None:
        x = projection(x) if isinstance(projection, nn.Linear) else x @ projection
    vectors: Tensor = x
    return vectors


def looks_like_file(name: str) -> bool:
    """Whether `name` is meant as a path, so that a typing error is reported as one.

    >>> looks_like_file("weights/tiny.safetensors"), looks_like_file("laion2b_s34b_b79k")
    (True, False)
    """
    return os.sep in name or name.lower().endswith(_FILE_SUFFIXES) or Path(name).exists()


def resolve_file(path: str | os.PathLike[str]) -> Path:
    """The weights file at `path`, checked to be there and readable."""
    file = Path(path)
    if not file.is_file():
        raise InputError(f"the weights file must exist, and there is no file at {file}")
    try:
        with open(file, "rb") as handle:
            if not handle.read(1):
                raise InputError(f"the weights file is empty: {file}")
    except PermissionError:
        raise InputError(f"the weights file may not be read (permission denied): {file}") from None
    return file


def resolve_tag(model_name: str, tag: str, known: dict[str, Any]) -> Path:
    """The local file of a pretrained tag: from the cache if there, else downloaded.

    Raises:
        InputError: the file is not in the cache and cannot be downloaded; open_clip and
            huggingface_hub try for as long as they see fit.
    """
    cached = _cached(known)
    if cached is not None:
        return cached
    from open_clip.pretrained import download_pretrained

    try:
        return resolve_file(download_pretrained(known))
    except Exception as error:
        raise InputError(
            f"weights {tag!r} of {model_name} are not in the local cache and could not be "
            f"downloaded ({_first_line(error)}); fetch the file on a machine with a network and "
            f"give its path as pretrained (--pretrained FILE)"
        ) from None


def _cached(known: dict[str, Any]) -> Path | None:
    """Where the hub's cache holds the file; open_clip would ask the network even then."""
    if not known.get("hf_hub"):
        return None
    from huggingface_hub import try_to_load_from_cache

    repository, name = os.path.split(known["hf_hub"])
    names = ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    if name:
        names = [str(Path(name).with_suffix(".safetensors")), name]
    found = [try_to_load_from_cache(repository, candidate) for candidate in names]
    return next((Path(file) for file in found if isinstance(file, str)), None)


def explain(error: Exception, path: Path, model_name: str) -> InputError:
    """One sentence for what open_clip or torch said when it could not use `path`."""
    text = str(error)
    if "Error(s) in loading state_dict" in text or isinstance(error, KeyError):
        detail = " ".join(text.split())[:300]
        return InputError(f"the weights in {path} do not fit the model {model_name}: {detail}")
    if "TorchScript" in text:
        return InputError(
            f"weights must be safetensors or a tensors-only torch file; {path} is a TorchScript "
            f"archive, which is code: convert it to safetensors first"
        )
    if "eights only load failed" in text or "Unsupported" in text:
        return InputError(
            f"weights must be safetensors or a torch file that loads with weights_only=True; "
            f"{path} is a pickle that holds more than tensors and is not opened"
        )
    return InputError(
        f"weights must be safetensors or a tensors-only torch file; {path} cannot be read: "
        f"{_first_line(error)}"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]

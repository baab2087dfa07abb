"""Find weights and refuse bad ones: a file, or a tag that the cache or the network can give."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from mmrec.errors import InputError

HUB = "https://huggingface.co"
REACHABLE_WITHIN_S = 3.0
_FILE_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".npz", ".npy")


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

    Nothing is attempted over the network before a connection of at most three seconds has shown
    that it is there, so that an offline run says so at once.

    Raises:
        InputError: the file is not in the cache and the network is not there.
    """
    if "file" in known:
        return resolve_file(str(known["file"]))
    cached = _cached(known)
    if cached is not None:
        return cached
    address = _address(known)
    if address is None or not _reachable(address):
        where = (
            "hub access is off (HF_HUB_OFFLINE)"
            if address is None
            else f"{address} is out of reach"
        )
        raise InputError(
            f"weights {tag!r} of {model_name} are not in the local cache and {where}: download "
            f"them on a machine with a network and give the file as pretrained (--pretrained FILE)"
        )
    from open_clip.pretrained import download_pretrained

    try:
        return Path(download_pretrained(known))
    except Exception as error:
        raise InputError(
            f"weights {tag!r} of {model_name} could not be downloaded ({_first_line(error)}); "
            f"fetch the file by other means and give its path as pretrained (--pretrained FILE)"
        ) from None


def _cached(known: dict[str, Any]) -> Path | None:
    from open_clip import pretrained

    if known.get("hf_hub") and pretrained.has_hf_hub():
        from huggingface_hub import try_to_load_from_cache

        repository, name = os.path.split(known["hf_hub"])
        names = [name] if name else []
        if not name or name.endswith((".bin", ".pth")):
            names = ["open_clip_model.safetensors", *names, "open_clip_pytorch_model.bin"]
            names += [n[:-4] + ".safetensors" for n in names if n.endswith((".bin", ".pth"))]
        for candidate in names:
            found = try_to_load_from_cache(repo_id=repository, filename=candidate)
            if isinstance(found, str) and os.path.isfile(found):
                return Path(found)
    if known.get("url"):
        file = Path("~/.cache/clip").expanduser() / os.path.basename(str(known["url"]))
        if file.is_file():
            return file
    return None


def _address(known: dict[str, Any]) -> str | None:
    """host:port that a download would talk to first; None where downloads are switched off."""
    url = known.get("url") or HUB
    if known.get("hf_hub"):
        if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
            return None
        url = os.environ.get("HF_ENDPOINT", HUB)
    target = urlsplit(getproxies().get(urlsplit(url).scheme, url))
    return f"{target.hostname}:{target.port or 443}"


def _reachable(address: str) -> bool:
    """Whether a TCP connection opens in time. In a thread: a name look-up has no time-out."""
    host, port = address.rsplit(":", 1)
    answer: list[bool] = []

    def connect() -> None:
        try:
            socket.create_connection((host, int(port)), timeout=REACHABLE_WITHIN_S).close()
            answer.append(True)
        except OSError:
            answer.append(False)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(REACHABLE_WITHIN_S)
    return bool(answer) and answer[0]


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

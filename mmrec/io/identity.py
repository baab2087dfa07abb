"""Same identity or refuse: what a run left on disk is resumed only by a run of the same make."""

import json
from pathlib import Path
from typing import Any

from mmrec.errors import InputError
from mmrec.io.files import write_json

EMBEDDED = "_identity.json"  # in a folder of embedded features: what they were made by
_SHOWN = 3  # differences spelled out


def require_same(stored: Any, given: Any, *, where: Path | str, remedy: str) -> None:
    """Refuse what was made from something else.

    Args:
        stored, given: what it was made from, and what this run is made from; JSON-able.
        where: what is refused.
        remedy: what to do, said at the end.

    Raises:
        InputError: the two differ; names what differs, with both values.

    >>> require_same({"recipe": {"depth": 2}}, {"recipe": {"depth": 3}}, where=Path("run"),
    ...              remedy="use another folder")
    Traceback (most recent call last):
    mmrec.errors.InputError: run was made with another recipe: depth was 2 and is 3; \
use another folder
    """
    there, here = _flat(as_json(stored)), _flat(as_json(given))
    keys = [key for key in {**there, **here} if there.get(key, "absent") != here.get(key, "absent")]
    if not keys:
        return
    parts = list(dict.fromkeys(key.split(".")[0] for key in keys))
    named = f"{parts[0]}." if len(parts) == 1 else ""
    shown = [
        f"{key.removeprefix(named)} was {_short(there.get(key, 'absent'))} "
        f"and is {_short(here.get(key, 'absent'))}"
        for key in keys[:_SHOWN]
    ]
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    raise InputError(
        f"{where} was made with another {', '.join(parts)}: {', '.join(shown)}{more}; {remedy}"
    )


def bind_identity(path: Path, given: Any, *, remedy: str) -> None:
    """Require the identity that the folder of `path` was made with; the first run writes it there.

    Raises:
        InputError: it is another, or cannot be read.
    """
    try:
        stored = json.loads(path.read_text())
    except FileNotFoundError:
        write_json(path, as_json(given))
        return
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); {remedy}") from None
    require_same(stored, given, where=path.parent, remedy=remedy)


def as_json(value: Any) -> Any:
    """As it would come back from JSON (tuples become lists).

    Raises:
        InputError: it would not.
    """
    try:
        return json.loads(json.dumps(value))
    except TypeError as error:
        raise InputError(f"recipes and fingerprints must be JSON-able: {error}") from error


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    if not isinstance(value, dict) or not value:
        return {prefix or "value": value}
    flat: dict[str, Any] = {}
    for key, part in value.items():
        flat |= _flat(part, f"{prefix}.{key}" if prefix else key)
    return flat


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."

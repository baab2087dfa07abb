"""Settings as plain data: frozen dataclasses to dicts and back, changed by dotted names, from TOML.

Every value is checked against its field's type; a wrong name or type is one sentence.
"""

import dataclasses
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

from mmrec.errors import InputError, require

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class DataclassInstance(Protocol):
    """Any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


D = TypeVar("D", bound=DataclassInstance)


def to_plain(value: Any) -> Any:
    """Dicts, lists, numbers and strings, as JSON and TOML hold them: a dict of a dataclass."""
    if hasattr(value, "to_plain"):
        return value.to_plain()
    if dataclasses.is_dataclass(value):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: to_plain(part) for name, part in value.items()}
    return [to_plain(part) for part in value] if isinstance(value, tuple | list) else value


def from_plain(kind: type[D], values: Any, *, where: str = "") -> D:
    """The inverse of `to_plain`.

    A list becomes a tuple, a whole number a float where the field is one, and the string "none"
    becomes None where the field may be None (TOML has no null). A class with a plain form of its
    own has the methods `to_plain()` and `from_plain(values, where)`.

    Args:
        where: dotted name of the value, for messages.

    Raises:
        InputError: a name that `kind` does not have, or a value of another type.
    """
    own: Callable[[Any, str], D] | None = getattr(kind, "from_plain", None)
    if own is not None:
        return own(values, where)
    return from_table(kind, values, where)


def from_table(kind: type[D], values: Any, where: str) -> D:
    """`from_plain` of a table with a value for each field of `kind`."""
    place = where or kind.__name__
    require(isinstance(values, Mapping), f"{place} must be a table of settings, got {values!r}")
    hints = get_type_hints(kind)
    known = [f.name for f in dataclasses.fields(kind)]
    if unknown := [name for name in values if name not in known]:
        raise InputError(f"{place} holds {', '.join(sorted(known))}; got {unknown[0]!r}")
    prefix = f"{where}." if where else ""
    given = {n: _checked(hints[n], v, f"{prefix}{n}") for n, v in values.items()}
    try:
        return kind(**given)
    except TypeError as error:
        raise InputError(f"{place} is incomplete: {error}") from None


def _checked(kind: Any, value: Any, where: str) -> Any:
    """`value` as the type `kind` says."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None or (value == "none" and type(None) in inner):
            return None
        return _checked(next(part for part in inner if part is not type(None)), value, where)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        if isinstance(value, kind):  # type: ignore[arg-type]  # a class, by the type hint
            return value
        return from_plain(kind, value, where=where)  # type: ignore[arg-type]
    if origin in (tuple, list) and isinstance(value, list | tuple):
        each = inner[:1] * len(value) if origin is list or inner[1:] == (...,) else inner
        if len(each) == len(value):
            return origin(_checked(k, v, where) for k, v in zip(each, value, strict=True))
    elif origin is not None and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {name: _checked(inner[1], part, f"{where}.{name}") for name, part in value.items()}
    elif kind is float and type(value) is int:
        return float(value)
    elif isinstance(kind, type) and type(value) is kind:
        return value
    raise InputError(f"{where} must be {_called(kind)}, got {value!r}")


def _called(kind: Any) -> str:
    """A type as a message calls it."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is None:
        return str(getattr(kind, "__name__", kind))
    if not issubclass(origin, Mapping):
        return str(kind)
    value = "{name=0.5}" if get_origin(inner[1]) is not None else "0.5"
    return f"a table such as {{name={value}}}"


def changed(value: D, settings: Mapping[str, Any]) -> D:
    """A copy with other values under dotted names, `{"items.id_dim": 0}`.

    Raises:
        InputError: see `from_plain`.
    """
    plain = to_plain(value)
    for name, new in settings.items():
        *path, last = name.split(".")
        table: Any = plain
        for step in path:
            table = table.get(step) if isinstance(table, dict) else None
        require(
            isinstance(table, dict),
            f"{'.'.join(path)} holds no settings, so {name} cannot be set",
        )
        table[last] = new
    return from_plain(type(value), plain)


def parse_settings(texts: Sequence[str]) -> dict[str, Any]:
    """`["training.epochs=3", "items.fusion=gmu"]` -> dotted names and values.

    A value is read as TOML, else taken as a string.

    >>> parse_settings(["training.epochs=3", "items.fusion=gmu", "history.newest=none"])
    {'training.epochs': 3, 'items.fusion': 'gmu', 'history.newest': 'none'}
    """
    settings = {}
    for text in texts:
        name, equals, value = text.partition("=")
        require(equals and name.strip(), f"a setting reads NAME=VALUE, got {text!r}")
        try:
            settings[name.strip()] = tomllib.loads(f"value = {value}")["value"]
        except ValueError:
            settings[name.strip()] = value.strip()
    return settings


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file.

    Raises:
        InputError: it is not there, or no TOML.
    """
    try:
        return dict(tomllib.loads(path.read_text()))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise InputError(f"{path} is no TOML: {error}") from None

"""Parts that have variants: a name and options as plain data, and the registry that builds them.

Modules take objects, never names; names are looked up by recipes and command lines alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mmrec.errors import require

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """One variant of a part.

    As plain data it is a table, `{name = "transformer", layers = 2}`, or the name alone.

    Attributes:
        name: in the part's registry.
        options: what its constructor takes beside what the builder knows (widths).
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        """Name and options in one table."""
        return {"name": self.name, **self.options}

    @classmethod
    def from_plain(cls, values: Any, where: str) -> Part:
        """The inverse of `to_plain`; a string is a name.

        Raises:
            InputError: neither a table with a name nor a string; `where` names the place.
        """
        options = {"name": values} if isinstance(values, str) else values
        require(
            isinstance(options, Mapping) and isinstance(options.get("name"), str),
            f"{where} must be a name or a table with a name, got {values!r}",
        )
        return cls(options["name"], {k: v for k, v in options.items() if k != "name"})


class Registry(dict[str, Callable[..., T]]):
    """Name -> constructor with keyword arguments; one's own: `REGISTRY["mine"] = Mine`.

    Args:
        kind: the setting of a recipe that names one, for messages.

    >>> widths = Registry("width", {"twice": lambda *, dim, more=0: 2 * dim + more})
    >>> widths.build(Part("twice", {"more": 1}), dim=3)
    7
    """

    def __init__(self, kind: str, makers: Mapping[str, Callable[..., T]]) -> None:
        super().__init__(makers)
        self.kind = kind

    def check(self, part: Part, known: Iterable[str] = ()) -> set[str]:
        """What the constructor of `part` takes beside what the builder knows.

        Raises:
            InputError: no such name, or an option that this variant does not have.
        """
        require(
            part.name in self,
            f"{self.kind} must be one of {', '.join(sorted(self))}, got {part.name!r}",
        )
        parameters = inspect.signature(self[part.name]).parameters.values()
        own = {p.name for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD}
        takes_any = len(own) < len(parameters)
        own -= set(known)
        for option in part.options:
            require(
                option in own or takes_any,
                f"{self.kind} {part.name!r} takes the options "
                f"{', '.join(sorted(own)) or 'none'}, got {option!r}",
            )
        return own

    def build(self, part: Part, *, offered: Mapping[str, Any] | None = None, **known: Any) -> T:
        """Call the constructor of `part` with what the builder knows and the part's options.

        Args:
            part: name and options.
            offered: passed where the constructor has such a parameter and the options do not
                name it.
            known: always passed; no option may name it.

        Raises:
            InputError: see `check`.
        """
        own = self.check(part, known)
        more = {name: value for name, value in (offered or {}).items() if name in own}
        return self[part.name](**known, **{**more, **part.options})

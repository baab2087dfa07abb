"""The one exception for mistakes that a user can fix, and the checks that raise it."""

from collections.abc import Iterable
from functools import cache
from math import isfinite
from numbers import Integral, Real


class InputError(ValueError):
    """Bad input: the rule, then what arrived and where, in one sentence.

    Command lines print the sentence and leave with exit code 2 (`mmrec.cli.run`); library users
    catch it as a `ValueError`.
    """


class FailedElsewhere(InputError):
    """Another rank has failed and says why; this one leaves in silence (`mmrec.cli.run`)."""


def require(good: object, sentence: str) -> None:
    """Raise `InputError` with this sentence unless `good` is true.

    For arguments and files, checked once; not for what is checked at every batch, since the
    sentence is put together either way.

    >>> require(3 > 4, "depth must be above 4, got 3")
    Traceback (most recent call last):
    mmrec.errors.InputError: depth must be above 4, got 3
    """
    if not good:
        raise InputError(sentence)


def positive(at_least: int = 1, **sizes: int) -> None:
    """Raise unless every size is a whole number of at least 1.

    >>> positive(dim=8, depth=0)
    Traceback (most recent call last):
    mmrec.errors.InputError: depth must be a whole number of at least 1, got 0
    """
    for name, value in sizes.items():
        require(
            isinstance(value, Integral) and not isinstance(value, bool) and value >= at_least,
            f"{name} must be a whole number of at least {at_least}, got {value!r}",
        )


def whole(name: str, value: object) -> int:
    """A whole number of any kind, numpy's too, as Python's.

    >>> whole("seed", 3.5)
    Traceback (most recent call last):
    mmrec.errors.InputError: seed must be a whole number, got 3.5
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(f"{name} must be a whole number, got {value!r}")
    return int(value)


def not_negative(**sizes: int) -> None:
    """Raise unless every size is a whole number of at least 0."""
    positive(0, **sizes)


def probability(**chances: float) -> None:
    """Raise unless every chance lies in [0, 1)."""
    for name, value in chances.items():
        good = isinstance(value, Real) and 0.0 <= value < 1.0
        require(good, f"{name} must lie in [0, 1), got {value!r}")


def modality_names(names: Iterable[object]) -> None:
    """Raise unless modules and parameters can be called so.

    >>> modality_names(["image", "my sound"])
    Traceback (most recent call last):
    mmrec.errors.InputError: a modality is called by letters, digits and _, and not like a member \
of nn.Module, got 'my sound'
    """
    for name in names:
        require(
            isinstance(name, str) and name.isidentifier() and name not in _of_modules(),
            "a modality is called by letters, digits and _, and not like a member of nn.Module, "
            f"got {name!r}",
        )


@cache
def _of_modules() -> frozenset[str]:
    from torch import nn  # here, so that errors alone load nothing

    return frozenset({*dir(nn.ModuleDict()), *dir(nn.ParameterDict())})


def finite(at_least: float = 0.0, **numbers: float) -> None:
    """Raise unless every number is finite and at least that.

    >>> finite(learning_rate=float("nan"))
    Traceback (most recent call last):
    mmrec.errors.InputError: learning_rate must be a finite number of at least 0, got nan
    """
    for name, value in numbers.items():
        good = isinstance(value, Real) and isfinite(value) and value >= at_least
        rule = f"{name} must be a finite number of at least {at_least:g}"
        require(good and not isinstance(value, bool), f"{rule}, got {value!r}")

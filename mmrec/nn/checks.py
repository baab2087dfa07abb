"""Constructor arguments, checked where they arrive."""

from mmrec.errors import InputError


def positive(**sizes: int) -> None:
    """Raise unless every size is a whole number of at least 1."""
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name} must be a whole number of at least 1, got {value!r}")


def not_negative(**sizes: int) -> None:
    """Raise unless every size is a whole number of at least 0."""
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise InputError(f"{name} must be a whole number of at least 0, got {value!r}")


def probability(**chances: float) -> None:
    """Raise unless every chance lies in [0, 1)."""
    for name, value in chances.items():
        if not 0.0 <= value < 1.0:
            raise InputError(f"{name} must lie in [0, 1), got {value!r}")

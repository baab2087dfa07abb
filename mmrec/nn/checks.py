"""Constructor arguments, checked where they arrive."""

from mmrec.errors import require


def positive(at_least: int = 1, **sizes: int) -> None:
    """Raise unless every size is a whole number of at least 1."""
    for name, value in sizes.items():
        require(
            isinstance(value, int) and not isinstance(value, bool) and value >= at_least,
            f"{name} must be a whole number of at least {at_least}, got {value!r}",
        )


def not_negative(**sizes: int) -> None:
    """Raise unless every size is a whole number of at least 0."""
    positive(0, **sizes)


def probability(**chances: float) -> None:
    """Raise unless every chance lies in [0, 1)."""
    for name, value in chances.items():
        require(0.0 <= value < 1.0, f"{name} must lie in [0, 1), got {value!r}")

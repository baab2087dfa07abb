"""The one exception for mistakes that a user can mend, and the one way to check for them."""


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

"""The one exception for mistakes that a user can mend."""


class InputError(ValueError):
    """Bad input: the rule, then what arrived and where, in one sentence.

    Command lines print the sentence and leave with exit code 2 (`mmrec.cli.run`); library users
    catch it as a `ValueError`.
    """


class FailedElsewhere(InputError):
    """Another rank has failed and says why; this one leaves in silence (`mmrec.cli.run`)."""

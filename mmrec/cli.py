"""What every command line shares: one sentence and exit code 2 for a user's mistake."""

from __future__ import annotations

import sys
from collections.abc import Callable

from mmrec.errors import FailedElsewhere, InputError

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


def run(main: Callable[[], None]) -> None:
    """Run `main` and leave the process with an exit code instead of a traceback.

    `InputError` and `OSError` (no space, no permission, no such file) become one sentence on
    stderr and exit code 2; Ctrl-C becomes one sentence and exit code 130. Any other exception is
    a bug of ours and keeps its traceback. Of several ranks that fail together one speaks.
    """
    try:
        main()
    except FailedElsewhere:
        sys.exit(EXIT_BAD_INPUT)
    except InputError as error:
        _leave(str(error), EXIT_BAD_INPUT)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        _leave(f"{error.strerror or error}{where}", EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        _leave("interrupted; the same command goes on from here", EXIT_INTERRUPTED)


def _leave(sentence: str, code: int) -> None:
    print(f"error: {' '.join(sentence.split())}", file=sys.stderr)
    sys.exit(code)

"""What every command line shares: one sentence and exit code 2 for a user's mistake."""

import argparse
import os
import resource
import select
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from mmrec.errors import FailedElsewhere, InputError, require

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_NOBODY_READS = 141  # as a shell calls the end by SIGPIPE


def run(main: Callable[[], None]) -> None:
    """Run `main` and leave the process with an exit code instead of a traceback.

    `InputError` and `OSError` (no space, no permission, no such file) become one sentence on
    stderr and exit code 2; Ctrl-C becomes one sentence and exit code 130. Any other exception is
    a bug of ours and keeps its traceback. Of several ranks that fail together one speaks. Where
    nobody reads stdout any more (`| head`), it leaves in silence with exit code 141.
    """
    try:
        _to_the_end(main)
    except FailedElsewhere:
        sys.exit(EXIT_BAD_INPUT)
    except InputError as error:
        _leave(str(error), EXIT_BAD_INPUT)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what Python still has to write
            sys.exit(EXIT_NOBODY_READS)
        where = f": {error.filename}" if error.filename else ""
        _leave(f"{error.strerror or error}{where}", EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        _leave("interrupted; the same command resumes from here", EXIT_INTERRUPTED)


def _to_the_end(main: Callable[[], None]) -> None:
    """With all that it prints written; later, Python could only complain of a closed stdout."""
    try:
        main()
    except SystemExit:
        sys.stdout.flush()
        raise
    sys.stdout.flush()


def _nobody_reads() -> bool:
    """Whether it is stdout that broke, and no pipe between processes of ours."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def program(module: str) -> str:
    """What the help of a command calls it: by the way it was started.

    >>> program("mmrec.stream.repack")
    'python -m mmrec.stream.repack'
    """
    started = Path(sys.argv[0])
    if "mmrec" in (started.stem, started.stem == "__main__" and started.parent.name):
        return f"mmrec {module.rpartition('.')[2]}"
    return f"python -m {module}"


def named(texts: Iterable[str]) -> dict[str, str]:
    """Options that read NAME=VALUE.

    >>> named(["image=covers", "audio=sounds"])
    {'image': 'covers', 'audio': 'sounds'}
    """
    found = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        require(name and equals and value, f"an option reads NAME=VALUE, got {text!r}")
        require(name not in found, f"each name is given once, got {name} twice")
        found[name] = value
    return found


def offer_modules(parser: argparse.ArgumentParser) -> None:
    """The option `--import MODULE` of every command that makes a ranker; see `import_modules`."""
    parser.add_argument(
        "--import",
        action="append",
        default=[],
        dest="modules",
        metavar="MODULE",
        help="that registers fusions, encoders or other parts of your own (any number of times)",
    )


def import_modules(names: Iterable[str]) -> None:
    """Import what registers parts of a user's own, also from the folder one stands in.

    Raises:
        InputError: there is no such module, or one that it imports is not there. Any other mistake
            inside it keeps its traceback.

    >>> import_modules(["my/fusions.py"])
    Traceback (most recent call last):
    mmrec.errors.InputError: --import takes the name of a module (my_fusions, or package.module), \
got 'my/fusions.py'
    """
    for name in names:
        require(
            all(part.isidentifier() for part in name.split(".")),
            f"--import takes the name of a module (my_fusions, or package.module), got {name!r}",
        )
        here = os.getcwd()
        if here not in sys.path:
            sys.path.append(here)  # last: a file here hides no module of another place
        try:
            import_module(name)
        except ImportError as error:
            raise InputError(
                f"--import {name} failed: {error}; modules are looked for in {here} and on "
                "PYTHONPATH"
            ) from error


def _leave(sentence: str, code: int) -> None:
    print(f"error: {' '.join(sentence.split())}", file=sys.stderr)
    sys.exit(code)


class Stages:
    """Headings on stdout, the seconds of a run's stages, and its peak memory after each in MiB.

    >>> stage = Stages()
    >>> with stage("train"):
    ...     print("done")
    <BLANKLINE>
    == train
    done
    >>> list(stage.seconds)
    ['train']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.memory: dict[str, int] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        print(f"\n== {name}", flush=True)
        began = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - began, 2)
        self.memory[name] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

    def lines(self) -> dict[str, str]:
        """A line of each stage, for the table at the end."""
        return {
            f"{name}, seconds and peak memory": f"{seconds:,.1f}  {self.memory[name]:,} MiB"
            for name, seconds in self.seconds.items()
        }


def two_columns(lines: Mapping[str, str]) -> str:
    """Names, and beside them their values.

    >>> print(two_columns({"rows": "3", "parameters": "17"}))
    rows        3
    parameters  17
    """
    width = max(map(len, lines), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines.items())

"""`mmrec COMMAND …`: every command of the library under one name; `python -m mmrec` is the same.

A command is a line of `COMMANDS`: its module has `main(arguments)`, and most also run by themselves
as `python -m`.
"""

import sys
from importlib import import_module
from types import ModuleType

from mmrec import __version__
from mmrec.cli import run, two_columns
from mmrec.errors import InputError, require

COMMANDS = {
    "prepare": ("mmrec.data.prepare.__main__", "a log and a table of items to a data set"),
    "audit": ("mmrec.audit.__main__", "leaks, shifts and broken content of a data set"),
    "embed": ("mmrec.embed.__main__", "pictures and titles to vectors"),
    "train": ("mmrec.commands.train", "a data set to a trained ranker"),
    "predict": ("mmrec.predict.__main__", "a trained ranker and rows to prediction.csv"),
    "serve": ("mmrec.serve.__main__", "a trained ranker and a file of requests to answers"),
    "export": ("mmrec.commands.export", "a trained ranker to a program that needs no mmrec"),
    "repack": ("mmrec.stream.repack", "parquet files to ones that shuffle well"),
}


def main(arguments: list[str] | None = None) -> None:
    """Run the command that comes first, with the arguments behind it."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        about = {name: what for name, (_, what) in COMMANDS.items()}
        print(f"usage: mmrec COMMAND …   (mmrec COMMAND --help, mmrec --version)\n\n{_list(about)}")
    elif name == "--version":
        print(f"mmrec {__version__}")
    else:
        require(
            name in COMMANDS,
            f"a command is one of {', '.join(COMMANDS)}, got {name!r}: see mmrec --help",
        )
        _load(name).main(rest)


def _list(about: dict[str, str]) -> str:
    return "\n".join(f"  {line}" for line in two_columns(about).splitlines())


def _load(name: str) -> ModuleType:
    try:
        return import_module(COMMANDS[name][0])
    except ModuleNotFoundError as error:
        raise InputError(
            f"mmrec {name} needs the package {error.name}: pip install 'mmrec[all]'"
        ) from error


def command() -> None:
    """What `mmrec` starts."""
    run(main)


if __name__ == "__main__":
    command()

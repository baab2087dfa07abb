"""`mmrec export RUN PATH`: a trained ranker as one file that runs without mmrec."""

import argparse
from pathlib import Path

from mmrec.cli import import_modules, offer_modules, program
from mmrec.errors import require
from mmrec.io.files import require_file
from mmrec.serve.export import FORMATS, FORMS, ExportOptions, export, manifest_of
from mmrec.serve.load import open_run


def main(arguments: list[str] | None = None) -> None:
    """Open, write, and say where."""
    parser = argparse.ArgumentParser(
        prog=program("mmrec.export"),
        description="Write a torch.export program (.pt2) or ONNX (.onnx), and what goes into it.",
    )
    add = parser.add_argument
    add("run", type=Path, help="`out` of the training, or one checkpoint's JSON")
    add("path", help="what to write: NAME.pt2 or NAME.onnx")
    add("--data", type=Path, help="the data set's folder, for its items (that of the training)")
    add("--form", default="rows", choices=FORMS, help="user: one history and its candidates (rows)")
    add("--length", type=int, metavar="N", help="history items that are read (as trained)")
    offer_modules(parser)
    given = parser.parse_args(arguments)
    import_modules(given.modules)
    kind = Path(given.path).suffix.removeprefix(".")
    require(kind in FORMATS, f"a program is called NAME.pt2 or NAME.onnx, got {given.path}")
    path = require_file(given.path)
    require_file(manifest_of(path))
    options = ExportOptions(format=kind, form=given.form, length=given.length)
    ranker, schema = open_run(given.run, given.data, None)
    print(path, export(ranker, path, schema=schema, options=options), sep="\n")

"""python -m mmrec.audit --data DIR [--out DIR]"""

import argparse
import sys
from pathlib import Path

from mmrec.audit.run import audit
from mmrec.audit.scan.images import DECODED
from mmrec.cli import program, run
from mmrec.io.files import require_folder

EXIT_SERIOUS = 1


def main(given: list[str] | None = None) -> None:
    """Audit a directory and print the findings."""
    parser = argparse.ArgumentParser(
        prog=program("mmrec.audit"),
        description="Know a data set before anyone believes an AUC: shapes, leaks, shift, content.",
    )
    parser.add_argument("--data", type=Path, required=True, help="directory in the layout")
    parser.add_argument("--out", type=Path, help="write audit.md, audit.json, audit.png there")
    parser.add_argument("--time", help="column of each row's time (default: the schema's)")
    parser.add_argument(
        "--images", type=int, default=DECODED, help="pictures to decode (default: %(default)s)"
    )
    parser.add_argument("--facts", action="store_true", help="print all figures, not only findings")
    parser.add_argument(
        "--strict",
        action="store_true",
        help=f"leave with exit code {EXIT_SERIOUS} if there is a serious finding",
    )
    arguments = parser.parse_args(given)
    if arguments.out is not None:
        require_folder(arguments.out)
    report = audit(
        arguments.data,
        out=arguments.out,
        time=arguments.time,
        images=arguments.images,
        progress=True,
    )
    print(report.terminal(facts=arguments.facts))
    if arguments.strict and report.serious:
        sys.exit(EXIT_SERIOUS)


if __name__ == "__main__":
    run(main)

"""Where a result comes from: the command and the versions that made it."""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("mmrec", "torch", "numpy", "pyarrow")


def provenance() -> dict[str, Any]:
    """{"command": what was typed, "versions": package -> version}, JSON-able.

    >>> sorted(provenance())
    ['command', 'versions']
    """
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # run from a folder that was not installed
            versions[package] = "not installed"
    return {"command": list(sys.orig_argv), "versions": versions}

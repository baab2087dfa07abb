"""What is published: a wheel made of the sdist installs, and the quickstart runs on it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import mmrec

ROOT = Path(__file__).parents[1]
slow = pytest.mark.slow
PUBLISHED = ("mmrec", "examples", "*.toml", "*.md", "*.in", "*.cff", "LICENSE")


def test_the_version_stands_in_one_place() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert 'dynamic = ["version"]' in text
    assert not re.search(r'^version = "', text, flags=re.MULTILINE)
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert newest is not None
    assert newest[1] == mmrec.__version__


def call(*words: object, cwd: Path) -> str:
    """A process that knows nothing of this checkout."""
    environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(cwd)}
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an sdist of a copy, with the build backend that is installed: nothing is downloaded."""
    work = tmp_path_factory.mktemp("package")
    for pattern in PUBLISHED:
        for path in ROOT.glob(pattern):
            ignore = shutil.ignore_patterns("__pycache__")
            if path.is_dir():
                shutil.copytree(path, work / "source" / path.name, ignore=ignore)
            else:
                shutil.copy(path, work / "source")
    backend = "from setuptools import build_meta; build_meta.build_sdist('../dist')"
    (work / "dist").mkdir()
    call(sys.executable, "-c", backend, cwd=work / "source")
    (sdist,) = (work / "dist").glob("*.tar.gz")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps")
    call(*pip, "--no-build-isolation", "--wheel-dir", work / "dist", sdist, cwd=work)
    (found,) = (work / "dist").glob("*.whl")
    return found


@pytest.fixture(scope="module")
def fresh(wheel: Path) -> Path:
    """The `bin` of an environment with the wheel; torch and the like are those of this one."""
    place = wheel.parents[1] / "fresh"
    call(sys.executable, "-m", "venv", "--without-pip", place, cwd=wheel.parent)
    python = place / "bin" / "python"
    (packages,) = place.glob("lib/*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
    call(*pip, "--no-index", "--no-deps", "--force-reinstall", wheel, cwd=wheel.parent)
    return python.parent


@slow
def test_the_wheel_holds_the_library_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert wheel.name.startswith(f"mmrec-{mmrec.__version__}-py3-none-any")
    assert {name.split("/")[0].split("-")[0] for name in names} == {"mmrec"}
    own = {str(path.relative_to(ROOT)) for path in (ROOT / "mmrec").rglob("*.py")}
    assert own | {"mmrec/py.typed"} <= names


@slow
def test_the_quickstart_runs_in_a_fresh_environment(fresh: Path, tmp_path: Path) -> None:
    shutil.copy(ROOT / "examples" / "quickstart.py", tmp_path)
    told = call(fresh / "python", "-c", "import mmrec; print(mmrec.__file__)", cwd=tmp_path)
    assert Path(told.strip()).is_relative_to(fresh.parent)
    assert "click probabilities" in call(fresh / "python", "quickstart.py", cwd=tmp_path)
    assert call(fresh / "mmrec", "--version", cwd=tmp_path) == f"mmrec {mmrec.__version__}\n"
    metadata = "from importlib.metadata import version; print(version('mmrec'))"
    assert call(fresh / "python", "-c", metadata, cwd=tmp_path).strip() == mmrec.__version__

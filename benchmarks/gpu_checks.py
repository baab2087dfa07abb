"""Steps of `gpu.py` that run tests: the contract of `tests/models/test_devices.py`."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time

from gpu_job import Job

TESTS = "tests/models/test_devices.py"


def contract(job: Job) -> None:
    """The step "tests". A rehearsal picks a few: the suite runs them all.

    Raises:
        SystemExit: a test failed.
    """
    mark = "cuda" if job.on_cuda else "not cuda and not slow"
    run_tests(job, ["-m", mark, *(["-k", "steps_learn or waits"] if job.small else [])])


def sanitizer(job: Job) -> None:
    """The step "sanitizer": what is cheap of it under compute-sanitizer's memcheck."""
    tool = shutil.which("compute-sanitizer")
    if tool is None or not job.on_cuda:
        job.note(left_out="there is no compute-sanitizer here" if job.on_cuda else "needs CUDA")
        return
    before = [tool, "--tool", "memcheck", "--error-exitcode", "3"]
    run_tests(job, ["-m", "cuda", "-k", "guard or scale or arrive or waits"], before=before)


def run_tests(job: Job, chosen: list[str], *, before: list[str] | None = None) -> None:
    asked = [*(before or []), sys.executable, "-m", "pytest", TESTS, "-p", "no:cacheprovider"]
    began = time.perf_counter()
    code = subprocess.run([*asked, *chosen]).returncode
    job.note(tests=" ".join(chosen), code=code, seconds=time.perf_counter() - began)
    if code:
        raise SystemExit(code)

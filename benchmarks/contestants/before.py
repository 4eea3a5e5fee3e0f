"""fink-dask as it was at an earlier commit, with today's libraries: the same command, so that a change can be seen."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.contestants import fink_dask
from benchmarks.contestants.job import Job
from benchmarks.environments import CACHE, ROOT
from benchmarks.errors import BenchmarkError
from benchmarks.measure import Command

#: The last one whose decoder reads each record twice.
BEFORE_COMMIT = "e2fcb93"


def command(job: Job) -> Command:
    """Return the command, run from a copy of that commit.

    Raises BenchmarkError: this checkout is without its history.
    """
    package = _package()
    (_, *rest), environment = fink_dask.command(job).arguments, job.environment({"PYTHONPATH": str(package)})
    return Command((sys.executable, *rest), environment, package)


def _package() -> Path:
    folder = CACHE / f"fink-dask-{BEFORE_COMMIT}"
    if not folder.is_dir():
        aside = CACHE / f"fink-dask-{BEFORE_COMMIT}.part"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        git = ["git", "-C", str(ROOT), "archive", "--format=zip", f"--output={aside / 'all.zip'}"]
        said = subprocess.run([*git, BEFORE_COMMIT, "fink_dask"], capture_output=True, text=True, check=False)
        if said.returncode:
            raise BenchmarkError(f"commit {BEFORE_COMMIT} can't be had, so nothing is compared with it: {said.stderr}")
        shutil.unpack_archive(aside / "all.zip", aside)
        aside.rename(folder)
    return folder

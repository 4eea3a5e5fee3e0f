"""Try a change: in a copy of the project, so that the files of whoever runs it are never touched."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.mutate.changes import Change

#: What the tests need of the project.
_COPIED = ("fink_dask", "tests", "examples", "pyproject.toml")
#: pytest says so with its status, where there was nothing to run.
_NO_TESTS = 5


class Copy:
    """A copy of a project, in which one thing at a time is changed.

    Parameters
    ----------
    root : pathlib.Path
        The project.
    folder : pathlib.Path
        Where the copy is made, and the caches of those who run it.
    environment : mapping
        Variables of those who run it.
    """

    def __init__(self, root: Path, folder: Path, environment: Mapping[str, str]) -> None:
        self._root, self._environment = root, environment
        self._tree, self._aside = folder / "tree", folder / "aside"
        #: What numba has compiled: of the code as it is, and of the one change that is tried.
        self.compiled, self.changed_compiled = folder / "numba", self._aside / "numba"
        shutil.rmtree(self._tree, ignore_errors=True)
        for name in _COPIED:
            if (root / name).is_dir():
                shutil.copytree(root / name, self._tree / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif (root / name).exists():
                shutil.copy2(root / name, self._tree / name)

    def passes(self, tests: Sequence[str], compiled: Path, limit_s: float) -> tuple[bool | None, str]:
        """Tell whether tests pass, None where they took too long, and which one did not."""
        shutil.rmtree(self._aside, ignore_errors=True)
        (self._aside / "tmp").mkdir(parents=True)
        output = self._aside / "output"
        # Verbose, so that the last line names the test that took too long.
        command = [sys.executable, "-m", "pytest", "-x", "-v", "--tb=no", "-p", "no:cacheprovider", *tests]
        aside = {
            "PYTHONPATH": str(self._tree),
            "NUMBA_CACHE_DIR": str(compiled),
            "TMPDIR": str(self._aside / "tmp"),
            "FINK_DASK_TEST_CACHE": os.environ.get("FINK_DASK_TEST_CACHE") or str(self._root / ".cache"),
        }
        with output.open("wb") as file:
            process = subprocess.Popen(
                command, cwd=self._tree, env={**os.environ, **aside, **self._environment}, stdin=subprocess.DEVNULL,
                stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip
            try:
                status: int | None = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                _end(process)
        said = output.read_text(errors="replace")
        if status == _NO_TESTS:
            raise ValueError(f"there are no tests in {' '.join(tests)}")
        names = re.findall(r"^(?:FAILED|ERROR) \S*?([^\s/:]+)(?= |$)" if status else r"::(\S+) $", said, re.MULTILINE)
        return None if status is None else status == 0, names[-1] if names else said.strip()[-200:] if status else ""

    @contextmanager
    def changed(self, change: Change) -> Iterator[None]:
        """Make a change for a while."""
        path = self._tree / change.path
        source, times = path.read_bytes(), path.stat()
        path.write_bytes(change.apply(source))
        try:
            yield
        finally:
            path.write_bytes(source)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a run of tests with all that it has started."""
    try:
        started = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        started = []
    for each in (*started, process):
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()

"""Try a change: in a copy of the project, so that the files of whoever runs it are never touched."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import numba
import psutil
import pytest

from tests.mutate.changes import Change

#: What the tests need of the project.
_COPIED = ("fink_dask", "tests", "examples", "pyproject.toml")
#: The libraries are loaded once, which takes longer than most tests.
_FORK = multiprocessing.get_context("fork")
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
        self.tree, self._aside = folder / "tree", folder / "aside"
        #: What numba has compiled: of the code as it is, and of the one change that is tried.
        self.compiled, self.changed_compiled = folder / "numba", self._aside / "numba"
        shutil.rmtree(self.tree, ignore_errors=True)
        for name in _COPIED:
            if (root / name).is_dir():
                shutil.copytree(root / name, self.tree / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif (root / name).exists():
                shutil.copy2(root / name, self.tree / name)

    def passes(self, tests: Sequence[str], compiled: Path, limit_s: float) -> tuple[bool | None, str]:
        """Tell whether tests pass, None where they took too long, and which one did not."""
        shutil.rmtree(self._aside, ignore_errors=True)
        (self._aside / "tmp").mkdir(parents=True)
        output = self._aside / "output"
        # Verbose, so that the last line names the test that took too long.
        command = ["-x", "-v", "--tb=no", "-p", "no:cacheprovider", *tests]
        aside = {
            "PYTHONPATH": str(self.tree),
            "NUMBA_CACHE_DIR": str(compiled),
            "TMPDIR": str(self._aside / "tmp"),
            "PYTEST_ADDOPTS": "",
            "FINK_DASK_TEST_CACHE": os.environ.get("FINK_DASK_TEST_CACHE") or str(self._root / ".cache"),
        }
        process = _FORK.Process(target=_run_tests, args=(self.tree, command, {**aside, **self._environment}, output))
        process.start()
        try:
            process.join(limit_s)
            status = process.exitcode
        finally:
            _end(process)
        said = output.read_text(errors="replace") if output.exists() else ""  # it may end before it begins
        if status == _NO_TESTS:
            raise ValueError(f"there are no tests in {' '.join(tests)}")
        failed = re.findall(r"^(?:FAILED|ERROR) \S*?([^\s/:]+)(?= |$)", said, re.MULTILINE)
        # A test that took too long, or that ended the process, has no such line.
        names = failed or re.findall(r"::(\S+) $|::(\S+) Fatal", said, re.MULTILINE)[-1:]
        return None if status is None else status == 0, "".join(names[-1]) if names and status != 0 else ""

    @contextmanager
    def changed(self, change: Change) -> Iterator[None]:
        """Make a change for a while."""
        path = self.tree / change.path
        source, times = path.read_bytes(), path.stat()
        path.write_bytes(change.apply(source))
        try:
            yield
        finally:
            path.write_bytes(source)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _run_tests(tree: Path, command: Sequence[str], environment: Mapping[str, str], output: Path) -> None:
    """Run tests in a process that has the libraries loaded, and nothing of the project's."""
    os.setsid()
    with output.open("wb") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    os.environ.update(environment)
    os.chdir(tree)
    for name in [name for name in sys.modules if name.partition(".")[0] in {"fink_dask", "tests"}]:
        del sys.modules[name]
    sys.path[:] = [
        str(tree),
        *(each for each in sys.path if each and not (Path(each) / "fink_dask" / "__init__.py").is_file()),
    ]
    tempfile.tempdir = None
    numba.config.reload_config()
    status = pytest.main(list(command))
    sys.stdout.flush()
    sys.exit(int(status))


def _end(process: BaseProcess) -> None:
    """End a run of tests with all that it has started, also what nobody waits for any more."""
    for each in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getsid(each.pid) == process.pid:
                each.kill()
    process.kill()
    process.join()

"""Run each test many times, some of these beside busy processes, and say which has ever failed.

Results are kept, a line each, so that the same command goes on where it was stopped, days later as well:
``python -m tests.repeat --times 20 --busy 5 tests/kafka``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.harness.targets import TARGETS

ROOT = Path(__file__).resolve().parents[1]
#: For a run of pytest that this program starts: where it writes results, what it adds to each line, the file that names
#: the tests that it runs, and the one where it writes which there are.
FILE, ROUND = "FINK_DASK_TEST_RESULTS", "FINK_DASK_TEST_ROUND"
LEFT, NAMES = "FINK_DASK_TESTS_LEFT", "FINK_DASK_TEST_NAMES"


class Results:
    """Note how each test ended: it has failed if any part of it has."""

    def __init__(self, path: Path, round_: dict[str, Any]) -> None:
        self._path, self._round = path, round_
        self._outcomes: dict[str, str] = {}
        self._began_s: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a part of a test; its last one writes the line."""
        self._began_s.setdefault(report.nodeid, time.monotonic())
        if report.outcome != "passed":
            self._outcomes.setdefault(report.nodeid, report.outcome)
        if report.when == "teardown":
            seconds = time.monotonic() - self._began_s[report.nodeid]
            outcome = self._outcomes.get(report.nodeid, "passed")
            line = {**self._round, "test": report.nodeid, "outcome": outcome, "seconds": round(seconds, 2)}
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")


def pytest_configure(config: pytest.Config) -> None:
    """Note results in the process where they come together, when this program has started it."""
    if ROUND in os.environ and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Results(Path(os.environ[FILE]), json.loads(os.environ[ROUND])), "results")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what this program asks for, in each process of a run; no file of arguments takes all names."""
    if LEFT in os.environ:
        left = set(json.loads(Path(os.environ[LEFT]).read_text()))
        items[:] = [item for item in items if item.nodeid in left]


def pytest_collection_finish(session: pytest.Session) -> None:
    """List the tests by the names that they have, when only that is asked for."""
    if NAMES in os.environ:
        Path(os.environ[NAMES]).write_text(json.dumps([item.nodeid for item in session.items]))


def collect(arguments: Sequence[str]) -> list[str]:
    """List the tests."""
    command = [sys.executable, "-m", "pytest", "-p", "tests.repeat", "--collect-only", "--quiet", *arguments]
    with tempfile.NamedTemporaryFile("r") as names:
        subprocess.run(command, cwd=ROOT, env={**os.environ, NAMES: names.name}, stdout=subprocess.DEVNULL, check=True)
        found: list[str] = json.load(names)
        return found


def read(path: Path) -> list[dict[str, Any]]:
    """Read what there is of results; a line that was cut off by the end of a sitting is none."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Keep processors busy until the block ends."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def run(tests: list[str], times: int, busy: int, command: Sequence[str], path: Path) -> None:
    """Run what has no result yet, a round after the other; those beside busy processes come first."""
    for number in range(1, times + 1):
        is_busy = number <= busy
        done = {line["test"] for line in read(path) if line["round"] == number}
        if left := [name for name in tests if name not in done]:
            round_ = json.dumps({"round": number, "busy": is_busy, "commit": _commit()})
            with busy_processes(2 if is_busy else 0), tempfile.NamedTemporaryFile("w") as names:
                json.dump(left, names)
                names.flush()
                env = {**os.environ, FILE: str(path), ROUND: round_, LEFT: names.name}
                subprocess.run(command, cwd=ROOT, env=env, check=False)


def _commit() -> str:
    """Name what is run: the commit, and whether something was changed since."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def summarise(tests: list[str], times: int, path: Path) -> int:
    """Say how often the tests of each folder ran, what has failed, and what has no result; returns the exit status."""
    wanted = {(name, number) for name in tests for number in range(1, times + 1)}
    results = [line for line in read(path) if (line["test"], line["round"]) in wanted]
    failures = Counter((line["test"], line["busy"]) for line in results if line["outcome"] == "failed")
    folders: dict[str, Counter[str]] = defaultdict(Counter)
    for line in results:
        folder = folders[line["test"].partition("::")[0].rpartition("/")[0]]
        folder.update({"runs": 1, "busy": line["busy"], "failed": line["outcome"] == "failed"})
    for name, count in sorted(folders.items()):
        print(f"{name}: {count['runs']} runs, {count['busy']} beside busy processes, {count['failed']} failed")
    for commit, number in Counter(line.get("commit") or "a commit that has no name" for line in results).items():
        print(f"{commit}: {number} runs")
    for (name, is_busy), number in failures.most_common():
        print(f"{number} failed{' beside busy processes' if is_busy else ''}: {name}")
    missing = wanted - {(line["test"], line["round"]) for line in results}
    print(f"{len(wanted) - len(missing)} of {len(wanted)} runs have a result, {failures.total()} of them failed")
    return int(bool(missing or failures))


def main() -> int:
    """Read the command line, run what is left, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=20, help="how often each test is to run")
    parser.add_argument("--busy", type=int, default=5, help="how many of these beside two busy processes")
    parser.add_argument("-n", "--processes", type=int, default=6, help="how many run them, as in make test")
    parser.add_argument("--target", choices=["test", *TARGETS, "all"], default="all", help="as pytest's")
    parser.add_argument("--results", type=Path, default=ROOT / "build" / "repeat.jsonl", help="where they are kept")
    parser.add_argument("paths", nargs="*", help="as pytest's: files, folders, tests")
    given = parser.parse_args()
    given.results.parent.mkdir(exist_ok=True)
    # Not apart from its name: pytest takes `docs` for the folder then.
    chosen = [f"--target={given.target}", *given.paths]
    tests = collect(chosen)
    quietly = ["-q", "-p", "no:cacheprovider", "-p", "tests.repeat", "--no-header"]
    shared = ["-n", str(given.processes), "--dist", "loadfile", "--no-loadscope-reorder", "--max-worker-restart", "0"]
    command = [sys.executable, "-m", "pytest", *quietly, *shared, *chosen]
    run(tests, given.times, given.busy, command, given.results)
    return summarise(tests, given.times, given.results)


if __name__ == "__main__":
    sys.exit(main())

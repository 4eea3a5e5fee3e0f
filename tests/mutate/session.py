"""Try changes one after the other, and keep what came of each: the same command goes on where it was stopped."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tests.mutate.changes import Change, find_changes
from tests.mutate.trial import Copy

#: What may become of a change. A test that takes far longer than it did notices as well, for whoever waits for it.
KILLED, TIMED_OUT, EQUIVALENT, SURVIVED = "killed", "timed out", "equivalent", "survived"

#: How many times as long as with a change tests may take without one, when they are tried first: all of them run then,
#: and what is compiled is compiled.
_FIRST = 5

#: The files that are changed, by area; for each, the test files that reach it.
Areas = Mapping[str, Mapping[str, Sequence[str]]]


@dataclass(frozen=True)
class Result:
    """What became of a change, and the test that noticed it or took too long, or the reason why none can."""

    change: Change
    outcome: str
    by: str
    seconds: float = 0.0


def choose(root: Path, areas: Areas, count: int, seed: int) -> list[Change]:
    """Choose changes at random, from each area by turns, and in an area from each file."""
    by_area = []
    for area, files in areas.items():
        rng = random.Random(f"{seed} {area}")
        found = [find_changes(path, (root / path).read_bytes()) for path in files]
        by_area.append(_by_turns([rng.sample(changes, len(changes)) for changes in found]))
    return _by_turns(by_area)[:count]


def _by_turns(lists: Sequence[Sequence[Change]]) -> list[Change]:
    return [change for turn in zip_longest(*lists) for change in turn if change is not None]


class Session:
    """Tries changes of one project.

    Parameters
    ----------
    root : pathlib.Path
        The project.
    folder : pathlib.Path
        Where results and the copy of the project are kept.
    areas : mapping
        What is changed, and which tests reach it.
    equivalent : mapping
        Reasons by the names of changes that need not be tried, as nobody could notice them.
    compiled : sequence of str
        Files that numba compiles: a change of one of them must not find what was compiled before, nor be found.
    environment : mapping
        Variables of the tests.
    limit_s : float
        Seconds that the tests of a change may take; twice as long as they take without it where that is more, as on a
        machine that others use as well.
    """

    def __init__(
        self,
        root: Path,
        folder: Path,
        areas: Areas,
        equivalent: Mapping[str, str],
        compiled: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        limit_s: float = 120.0,
    ) -> None:
        self._equivalent, self._compiled = equivalent, compiled
        self._limit_s = limit_s
        self._tests = {path: tuple(tests) for files in areas.values() for path, tests in files.items()}
        self._digests: dict[Sequence[str], str] = {}
        self._path = folder / "results.jsonl"
        self._copy = Copy(root, folder, environment or {})

    def run(self, changes: Sequence[Change], tell: Callable[[Result], None]) -> list[Result]:
        """Try what has not been tried, and tell of each change what became of it.

        A change that was noticed is tried again when its file has changed; one that was not, also when its tests have.

        Raises
        ------
        ValueError
            If the tests fail, or take too long, without any change.
        """
        known = self._read()
        results = []
        for change in changes:
            source, tests = self._digest((change.path,)), self._digest(self._tests[change.path])
            if reason := self._equivalent.get(change.name):
                result = Result(change, EQUIVALENT, reason)
            elif (
                (line := known.get(change.name))
                and line["source"] == source
                and (line["outcome"] != SURVIVED or line["tests"] == tests)
            ):
                result = Result(change, line["outcome"], line["by"], line["seconds"])
            else:
                usual_s = self._usual_s(self._tests[change.path], tests, known)
                result = self._try(change, max(self._limit_s, 2 * usual_s))
                self._keep(change.name, result.outcome, result.by, result.seconds, source, tests)
            tell(result)
            results.append(result)
        return results

    def _try(self, change: Change, limit_s: float) -> Result:
        began = time.monotonic()
        compiled = self._copy.changed_compiled if change.path in self._compiled else self._copy.compiled
        with self._copy.changed(change):
            passed, by = self._copy.passes(self._tests[change.path], compiled, limit_s)
        outcome = {True: SURVIVED, False: KILLED, None: TIMED_OUT}[passed]
        return Result(change, outcome, by, round(time.monotonic() - began, 1))

    def _usual_s(self, tests: Sequence[str], digest: str, known: dict[str, dict[str, Any]]) -> float:
        """See once that tests pass without a change, or failures would say nothing of one, and how long that takes."""
        name = " ".join(tests)
        if name not in known or known[name]["tests"] != digest:
            began = time.monotonic()
            passed, by = self._copy.passes(tests, self._copy.compiled, _FIRST * self._limit_s)
            if not passed:
                raise ValueError(f"{name}: {by} fails, or takes too long, without any change")
            known[name] = self._keep(name, SURVIVED, "", round(time.monotonic() - began, 1), "", digest)
        return float(known[name]["seconds"])

    def _digest(self, paths: Sequence[str]) -> str:
        if paths not in self._digests:
            whole = b"".join((self._copy.tree / path).read_bytes() for path in paths)
            self._digests[paths] = hashlib.sha256(whole).hexdigest()[:16]
        return self._digests[paths]

    def _keep(self, name: str, outcome: str, by: str, seconds: float, source: str, tests: str) -> dict[str, Any]:
        line = {"name": name, "outcome": outcome, "by": by, "seconds": seconds, "source": source, "tests": tests}
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return line

    def _read(self) -> dict[str, dict[str, Any]]:
        """Read what there is of results, the last of each; a line that was cut off is none."""
        found = {}
        for line in self._path.read_text().splitlines() if self._path.exists() else []:
            try:
                found[json.loads(line)["name"]] = json.loads(line)
            except ValueError:
                continue
        return found

"""Mutation itself: what tests notice is told from what they do not, and nothing is tried twice or left changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.harness.crash import run
from tests.mutate import rooms
from tests.mutate.session import EQUIVALENT, KILLED, SURVIVED, choose
from tests.mutate.toy import ADDED, COMPARED, PATH, SOURCE, TEST, TESTS, note, refused, refused_as_too_slow, tried

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a project with a function, and a test that notices some of what could be wrong with it."""
    texts = {PATH: SOURCE, TESTS[0]: TEST, "pyproject.toml": "[tool.pytest.ini_options]\npythonpath = ['fink_dask']\n"}
    for path, text in texts.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "build").mkdir()
    return tmp_path


def _apart(function: Callable[[Path], object], root: Path) -> Any:
    """Call a function in a process without threads, as one that forks should be, and return what it returns."""
    assert run(note, function, root) == 0
    return json.loads((root / "said.json").read_text())


def test_what_no_test_notices_is_told_and_nothing_istried_twice(root: Path) -> None:
    added = "first + 0 → (first - 0)"
    first = _apart(tried, root)
    assert first == {COMPARED: SURVIVED, ADDED: SURVIVED, added: SURVIVED, "1 → 2": EQUIVALENT}
    kept = root / "build" / "results.jsonl"
    before = kept.read_text()
    assert _apart(tried, root) == first
    assert kept.read_text() == before
    kept.write_text(before[:-9])  # as a kill leaves it
    (root / TESTS[0]).write_text(f"{TEST}    assert larger(3, 2) == 3\n")
    assert _apart(tried, root) == {**first, ADDED: KILLED}


def test_tests_that_fail_or_take_too_long_without_any_change_are_not_believed(root: Path) -> None:
    assert "takes too long" in str(_apart(refused_as_too_slow, root))
    (root / TESTS[0]).write_text(TEST.replace("== 3", "== 4"))
    assert "test_larger" in str(_apart(refused, root))


def test_what_is_nottried_is_still_in_the_code_and_so_are_the_tests() -> None:
    changes = {change.name for change in choose(ROOT, rooms.AREAS, 10**6, 0)}
    assert changes >= rooms.EQUIVALENT.keys()
    files = [file for area in rooms.AREAS.values() for tests in area.values() for file in tests]
    assert all((ROOT / file).is_file() for file in files)

"""Mutation itself: what tests notice is told from what they do not, and nothing is tried twice or left changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutate import rooms
from tests.mutate.session import EQUIVALENT, KILLED, SURVIVED, Session, choose

ROOT = Path(__file__).resolve().parents[2]

SOURCE = '''
def larger(first: int, second: int = 1) -> int:
    """Return the larger one."""
    if first > second:
        return first + 0
    return second
'''
TEST = "from toy import larger\n\n\ndef test_larger():\n    assert larger(2, 3) == 3\n"
PATH, TESTS = "fink_dask/toy.py", ("tests/test_toy.py",)
AREAS = {"toy": {PATH: TESTS}}
#: pytest starts sooner without what others have installed.
PLAIN = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
COMPARED, ADDED = "first > second → (first >= second)", "0 → 1"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a project with a function, and a test that notices some of what could be wrong with it."""
    texts = {PATH: SOURCE, TESTS[0]: TEST, "pyproject.toml": "[tool.pytest.ini_options]\npythonpath = ['fink_dask']\n"}
    for path, text in texts.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "build").mkdir()
    return tmp_path


def _tried(root: Path) -> dict[str, str]:
    session = Session(root, root / "build", AREAS, {f"{PATH} larger: 1 → 2": "nobody leaves it out"}, (), PLAIN)
    results = session.run(choose(root, AREAS, 100, 1), lambda _: None)
    assert (root / PATH).read_text() == SOURCE == (root / "build" / "tree" / PATH).read_text()
    return {f"{each.change.before} → {each.change.after}": each.outcome for each in results}


def test_what_no_test_notices_is_told_and_nothing_is_tried_twice(root: Path) -> None:
    added = "first + 0 → (first - 0)"
    first = _tried(root)
    assert first == {COMPARED: SURVIVED, ADDED: SURVIVED, added: SURVIVED, "1 → 2": EQUIVALENT}
    kept = root / "build" / "results.jsonl"
    before = kept.read_text()
    assert _tried(root) == first
    assert kept.read_text() == before
    kept.write_text(before[:-9])  # as a kill leaves it
    (root / TESTS[0]).write_text(f"{TEST}    assert larger(3, 2) == 3\n")
    assert _tried(root) == first | {ADDED: KILLED}


def test_tests_that_fail_or_take_too_long_without_any_change_are_not_believed(root: Path) -> None:
    changes = choose(root, AREAS, 100, 1)
    with pytest.raises(ValueError, match="takes too long"):
        Session(root, root / "build", AREAS, {}, (), PLAIN, limit_s=0.001).run(changes, lambda _: None)
    (root / TESTS[0]).write_text(TEST.replace("== 3", "== 4"))
    with pytest.raises(ValueError, match="test_larger"):
        Session(root, root / "build", AREAS, {}, (), PLAIN).run(changes, lambda _: None)


def test_what_is_not_tried_is_still_in_the_code_and_so_are_the_tests() -> None:
    changes = {change.name for change in choose(ROOT, rooms.AREAS, 10**6, 0)}
    assert changes >= rooms.EQUIVALENT.keys()
    files = [file for area in rooms.AREAS.values() for tests in area.values() for file in tests]
    assert all((ROOT / file).is_file() for file in files)

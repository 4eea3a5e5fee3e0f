"""A project of one function, whose test notices some of what could be wrong with it, for the tests of mutation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.mutate.session import Session, choose

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


def note(function: Callable[[Path], object], root: Path) -> None:
    """Write down what a function returns."""
    (root / "said.json").write_text(json.dumps(function(root)))


def tried(root: Path) -> dict[str, str]:
    """Try all changes, and say what became of each; nothing may be left changed."""
    session = Session(root, root / "build", AREAS, {f"{PATH} larger: 1 → 2": "nobody leaves it out"}, (), PLAIN)
    results = session.run(choose(root, AREAS, 100, 1), lambda _: None)
    assert (root / PATH).read_text() == SOURCE == (root / "build" / "tree" / PATH).read_text()
    return {f"{each.change.before} → {each.change.after}": each.outcome for each in results}


def refused(root: Path, limit_s: float = 60) -> str:
    """Say why nothing was tried; empty where it was."""
    session = Session(root, root / "build", AREAS, {}, (), PLAIN, limit_s=limit_s)
    try:
        session.run(choose(root, AREAS, 100, 1), lambda _: None)
    except ValueError as error:
        return str(error)
    return ""


def refused_as_too_slow(root: Path) -> str:
    """Say the same where no test is quick enough."""
    return refused(root, 0.001)
